"""gevent.pywsgi alone, with ujson and jsonschema. Arguments: port, schema file."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import ujson  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from jsonschema.validators import validator_for  # noqa: E402

port, schema_file = int(sys.argv[1]), sys.argv[2]
with open(schema_file, "rb") as file:
    schema = json.load(file)
is_valid = validator_for(schema)(schema).is_valid
JSON = [("Content-Type", "application/json")]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The one route, as plain WSGI."""
    body = environ["wsgi.input"].read()
    try:
        event = ujson.loads(body)
    except ValueError:
        start_response("400 Bad Request", JSON)
        return [b'{"error":"malformed JSON"}']
    if not is_valid(event):
        start_response("422 Unprocessable Content", JSON)
        return [b'{"error":"the event does not follow its schema"}']
    start_response("202 Accepted", JSON)
    return [ujson.dumps({"accepted": 1}).encode()]


# pywsgi sends head and body apart: with Nagle's algorithm each answer would wait 40 ms for the
# client's delayed ACK. Connections inherit the option from the listening socket.
listener = socket.create_server(("127.0.0.1", port), backlog=4096)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
WSGIServer(listener, app, log=None).serve_forever()
