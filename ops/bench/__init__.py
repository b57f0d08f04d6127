"""`make bench`: this server and its peers, measured side by side on the same cores.

    bench.py      what is run, in which order (start reading here)
    servers.py    the catalogue: how each server is started; its program is in peers/
    process.py    one server process: start, stop, CPU time and memory
    checks.py     the body, and the proof that a server really judges it
    stage.py      a server on its core, for whatever is measured
    wrk.py        one measurement by wrk (load.lua)
    client.py     an own closed-loop client, for the ladder and for the tests
    ladder.py     rising numbers of clients with a fixed number of requests each
    report.py     medians, ratios, Markdown and JSON; plot.py the picture
    install.py    gets wrk, nginx, npm packages and a virtual environment, or says why not
    modes.py      what is measured beside the table, one module each: openloop.py (openloop.c),
                  batches.py, curves.py, decoders.py, workers.py, crowd.py, flame.py,
                  durability.py (no_journal.py)
    page.py       writes the figures into docs/performance.md

Only the two servers of this project are imported from nowhere: like the peers they are
started as their users start them, and all are judged from outside.
"""
