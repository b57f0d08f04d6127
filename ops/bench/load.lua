-- wrk: POST one body over and over; `depth` copies of the request go out in one piece.
-- Arguments after `--`: depth, body file. Prints its figures as one line of JSON.
function init(args)
   local file = assert(io.open(args[2], "rb"))
   wrk.method = "POST"
   wrk.body = assert(file:read("*a"))
   wrk.headers["Content-Type"] = "application/json"
   file:close()
   local depth, format = tonumber(args[1]), wrk.format
   wrk.format = function(...) return string.rep(format(...), depth) end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\nFIGURES {"requests":%d,"seconds":%.6f,"p50_us":%.1f,"p99_us":%.1f,' ..
      '"non_2xx":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
