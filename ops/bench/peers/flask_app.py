"""Flask with ujson and jsonschema; served by gunicorn's gevent worker."""

import json
import os

import ujson
from flask import Flask, Response, request
from jsonschema.validators import validator_for

with open(os.environ["BENCH_SCHEMA"], "rb") as file:
    schema = json.load(file)
is_valid = validator_for(schema)(schema).is_valid
app = Flask(__name__)


@app.post("/metrics")
def metrics() -> Response:
    try:
        event = ujson.loads(request.get_data())
    except ValueError as error:
        return Response(str(error), 400)
    if not is_valid(event):
        return Response("the event does not follow its schema", 422)
    return Response(ujson.dumps({"accepted": 1}), 202, mimetype="application/json")
