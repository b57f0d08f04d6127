"""Who may send and read what: keys, and what requests are judged by.

Reading order: `principal.py` (who somebody is), `keys.py` (what a keys file says), `gate.py`
(judges a request's head). These modules must not know event types, the pool or the journal.
"""
