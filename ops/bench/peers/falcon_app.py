"""Falcon with msgspec and jsonschema-rs; served by granian."""

import json
import os

import falcon
import jsonschema_rs
import msgspec

with open(os.environ["BENCH_SCHEMA"], "rb") as file:
    is_valid = jsonschema_rs.validator_for(json.load(file)).is_valid
decode = msgspec.json.Decoder().decode
ACCEPTED = msgspec.json.encode({"accepted": 1})


class Metrics:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        try:
            event = decode(request.bounded_stream.read())
        except msgspec.DecodeError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        if not is_valid(event):
            raise falcon.HTTPUnprocessableEntity
        response.status = falcon.HTTP_202
        response.content_type = falcon.MEDIA_JSON
        response.data = ACCEPTED


app = falcon.App()
app.add_route("/metrics", Metrics())
