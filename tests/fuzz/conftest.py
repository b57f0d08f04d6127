"""By default only the saved corpora are replayed; the rest is `make fuzz-short`'s.

A file named on the command line is collected all the same.
"""

collect_ignore = ["test_socket_machine.py"]
