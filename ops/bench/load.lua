-- wrk: POST bodies, in turn if there are several; `depth` copies of a request go out in one
-- piece. Arguments after `--`: depth, media type, files with a body each.
-- Prints its figures as one line of JSON.
function init(args)
   local depth, bodies = tonumber(args[1]), {}
   for n = 3, #args do
      local file = assert(io.open(args[n], "rb"))
      bodies[n - 2] = assert(file:read("*a"))
      file:close()
   end
   wrk.method = "POST"
   wrk.headers["Content-Type"] = args[2]
   if #bodies == 1 then
      local format = wrk.format
      wrk.body = bodies[1]
      wrk.format = function(...) return string.rep(format(...), depth) end
      return
   end
   local requests, turn = {}, 0
   for n, body in ipairs(bodies) do
      requests[n] = string.rep(wrk.format(nil, nil, nil, body), depth)
   end
   request = function()
      turn = turn % #requests + 1
      return requests[turn]
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\nFIGURES {"requests":%d,"seconds":%.6f,"p50_us":%.1f,"p99_us":%.1f,' ..
      '"non_2xx":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
