"""`make guard`: does a request cost more instructions than it did?

Time is no measure for that: the machines that tests run on do other things as well. The number
of instructions that the gateway executes for a fixed exchange hardly depends on them, so a
tenth more can fail a build.

    __main__.py      the command: measure, compare, print; or write baseline.json
    counting.py      one program under valgrind's callgrind, and its counts
    exchanges.py     what is exchanged with the gateway, always in the same way
    gateway.py       the program that is counted: the gateway, without what makes it vary
    calibration.py   a fixed piece of plain Python, counted beside it
    judge.py         comparison with the baseline (pure)
    baseline.json    counts by Python version and processor, with the versions they were taken with
"""
