"""HTTP/1.1 as pure functions of bytes: requests out of a stream, nothing else.

PURE: no module of this package may import gevent, socket, os or time. What a request
means (routes, keys, events) is not known here, only where it begins, where it ends,
and whether a careful recipient may believe it.

The way of the bytes, one concept a module:

    parser.py   a connection's stream -> heads and bodies, in order
    head.py     the bytes of one head -> Head, and the cache in front of that
    framing.py  where the body ends: Content-Length, Transfer-Encoding
    targets.py  request targets: forms, percent-decoding, dot segments, authorities
    chunked.py  the chunked coding
    grammar.py  the character classes all of them share

Every refusal is an `IngestError`; a stream that was refused once stays refused.
"""
