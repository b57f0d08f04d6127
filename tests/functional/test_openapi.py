"""`/openapi.json`: a sound document, of every route, that says of answers what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry as References
from referencing.jsonschema import DRAFT202012

from ingest.endpoints import Endpoints
from ingest.errors import CATALOGUE
from tests.support.events import METRICS
from tests.support.gateway import Answer, Gateway

PROBLEM = "application/problem+json"


def description(gateway: Gateway) -> dict[str, Any]:
    answer = gateway.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def test_the_document_is_valid_openapi_and_stands_alone(gateway: Gateway) -> None:
    document = description(gateway)
    assert document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    text = json.dumps(document)
    for reference in re.findall(r'"\$ref": "([^"]*)"', text):
        assert reference.startswith("#/components/")
        found = document
        for token in reference[2:].split("/"):
            found = found[token]
    assert "x-ingest" not in text
    identifiers = re.findall(r'"operationId": "([^"]*)"', text)
    assert len(set(identifiers)) == len(identifiers) > 10


def test_it_comes_with_a_tag(gateway: Gateway) -> None:
    first = gateway.request("GET", "/openapi.json")
    again = gateway.request(
        "GET", "/openapi.json", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")
    assert gateway.request("POST", "/openapi.json", b"{}").status == 405


def test_every_route_of_the_service_and_its_page_is_described(gateway: Gateway) -> None:
    paths = description(gateway)["paths"]
    described = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    types = [entry["type"] for entry in gateway.request("GET", "/v1/schemas").json()["types"]]
    page = Path("docs/http-api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH) /[^`?]*)", page))
    assert {"GET /openapi.json", "POST /v1/batch/{type}", "POST /metrics"} <= named
    for route in named:
        if "{type}" in route and route.startswith("POST "):
            assert {route.replace("{type}", name) for name in types} <= described
        else:
            assert route in described
    table = Endpoints.table(Endpoints.__new__(Endpoints))
    for path, methods in table.items():
        if path != "*":  # OPTIONS *: no path
            for method in methods:
                assert f"{method} {path.replace('/*', '/{type}')}" in described
    of_types = {route for route in named if "{type}" in route and route.startswith("POST ")}
    assert len(described) == len(named - of_types) + len(of_types) * len(types)


def test_every_error_is_described_with_its_status(gateway: Gateway) -> None:
    document = description(gateway)
    paths = document["paths"]
    answers = {
        **paths["/v1/journal/{partition}"]["get"]["responses"],
        **paths["/v1/journal/{partition}/{segment}"]["get"]["responses"],
        **paths["/v1/events/metrics"]["post"]["responses"],
    }
    for code, failure in CATALOGUE.items():
        name = answers[str(failure.status)]["$ref"].rpartition("/")[2]
        problem = document["components"]["responses"][name]
        assert f"`{code}`: {failure.title}" in problem["description"]
        assert code in problem["content"][PROBLEM]["schema"]["properties"]["code"]["enum"]
    reading = document["paths"]["/v1/schemas"]["get"]["responses"]
    assert {"400", "404", "405", "431", "500", "503"} <= reading.keys()
    assert not {"410", "411", "412", "415", "416", "422", "504", "507"} & reading.keys()


# -- what is described is what is answered --------------------------------------------------------


class Description:
    """Looks answers up in the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        resource = DRAFT202012.create_resource(document)
        self._known: References[Any] = References().with_resource("urn:document", resource)

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Assert that an answer is one of those described, with its fields and content."""
        described = self.document["paths"][path][method.lower()]["responses"][str(answer.status)]
        if "$ref" in described:
            described = self.document["components"]["responses"][
                described["$ref"].rpartition("/")[2]
            ]
        if answer.status != 304:
            media = answer.headers["content-type"].partition(";")[0]
            schema = described["content"][media]["schema"]
            value = answer.json() if "json" in media else answer.body.decode()
            self.validator(schema).validate(value)
        for name in ("x-request-id", "etag", "vary", "allow", "retry-after", "accept-post"):
            if name in answer.headers:
                assert name in {field.lower() for field in described["headers"]}

    def validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        rooted = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
        return Draft202012Validator(rooted, registry=self._known)


EVENT = json.dumps(METRICS).encode()
JSON, LINES = "application/json", "application/x-ndjson"
EVENT_OF_CLOUD = json.dumps(
    {"specversion": "1.0", "id": "1", "source": "/s", "type": "metrics", "data": METRICS}
).encode()
CLOUDEVENT, CLOUDEVENTS = (f"application/cloudevents{kind}+json" for kind in ("", "-batch"))


@pytest.mark.parametrize(
    ("path", "media", "body", "status"),
    [
        ("/v1/events/metrics", JSON, EVENT, 202),
        ("/metrics", JSON, EVENT, 202),
        ("/v1/events/metrics", LINES, EVENT + b"\n" + EVENT, 202),
        ("/v1/events/metrics?ids=false", LINES, EVENT + b"\n{", 207),
        ("/v1/batch/metrics", JSON, b"[%s,{}]" % EVENT, 207),
        ("/v1/batch/metrics", JSON, b"[{},1]", 422),
        ("/v1/batch/metrics?atomic=true", JSON, b"[%s,{}]" % EVENT, 422),
        ("/v1/batch/metrics", JSON, b"{}", 400),
        ("/v1/batch/metrics", LINES, b"{}", 415),
        ("/v1/events/metrics", JSON, b"{,", 400),
        ("/v1/events/metrics", JSON, b"{}", 422),
        ("/v1/events/metrics", JSON, b" " * (2 << 20), 413),
        ("/v1/events/metrics", JSON, None, 411),
        ("/v1/events", CLOUDEVENT, EVENT_OF_CLOUD, 202),
        ("/v1/events", CLOUDEVENT, b"{}", 422),
        ("/v1/events", CLOUDEVENTS, b"[%s]" % EVENT_OF_CLOUD, 202),
        ("/v1/events?ids=false", CLOUDEVENTS, b"[%s,{}]" % EVENT_OF_CLOUD, 207),
        ("/v1/events", JSON, EVENT, 422),
        ("/v1/events", LINES, EVENT, 415),
    ],
)
def test_answers_to_events_are_as_described(
    gateway: Gateway, path: str, media: str, body: bytes | None, status: int
) -> None:
    answer = gateway.request("POST", path, body, {"Content-Type": media})
    assert answer.status == status
    Description(description(gateway)).check("POST", path.partition("?")[0], answer)


def test_answers_to_reading_are_as_described(gateway: Gateway) -> None:
    described = Description(description(gateway))
    for path in ("/livez", "/readyz", "/health", "/startupz", "/metrics", "/v1/schemas"):
        for fields in (
            {},
            {"Accept": "application/json"},
            {"Accept": "application/openmetrics-text"},
        ):
            described.check("GET", path, gateway.request("GET", path, headers=fields))
    for path in ("/v1/schemas/order", "/v1/schemas/order?version=7", "/v1/schemas/nothing"):
        described.check("GET", "/v1/schemas/{type}", gateway.request("GET", path))
    tag = gateway.request("GET", "/v1/schemas").headers["etag"]
    current = gateway.request("GET", "/v1/schemas", headers={"If-None-Match": tag})
    described.check("GET", "/v1/schemas", current)


def test_examples_are_accepted_as_they_stand(gateway: Gateway) -> None:
    document = description(gateway)
    sent = 0
    for path, item in document["paths"].items():
        for media, content in (
            item.get("post", {}).get("requestBody", {}).get("content", {}).items()
        ):
            for example in content.get("examples", {}).values():
                answer = gateway.post(path, example["value"])
                assert (media, answer.status) == (JSON, 202)
                Description(document).validator(content["schema"]).validate(example["value"])
                sent += 1
    assert sent > 10


def test_a_type_of_ones_own_is_described_with_its_parts(
    new_gateway: type[Gateway], tmp_path: Path
) -> None:
    schemas = tmp_path / "schemas"
    (schemas / "_parts").mkdir(parents=True)
    (schemas / "_parts" / "level.json").write_text('{"enum": ["low", "high"]}')
    (schemas / "alarm.v1.json").write_text(
        json.dumps({
            "title": "Alarm",
            "x-ingest": {"routes": ["PUT /alarms/new", "PATCH /alarms/new"]},
            "type": "object",
            "properties": {"level": {"$ref": "_parts/level.json"}},
        })
    )  # fmt: skip
    gateway = new_gateway("--schemas", str(schemas), "--handlers", str(tmp_path / "none"))
    document = description(gateway)
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert {"put", "patch"} == document["paths"]["/alarms/new"].keys()
    assert document["components"]["schemas"]["event.alarm.v1"]["properties"]["level"] == {
        "$ref": "#/components/schemas/shared._parts.level"
    }
    described = Description(document)
    for level, status in (("low", 202), ("loud", 422)):
        body = json.dumps({"level": level}).encode()
        answer = gateway.request("PUT", "/alarms/new", body, {"Content-Type": JSON})
        assert answer.status == status
        described.check("PUT", "/alarms/new", answer)
