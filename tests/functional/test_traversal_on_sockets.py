"""No request target, event type or schema names a file outside of where it belongs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.registry import Registry, RegistryError
from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.mounted import raw

CANARY = "canary-in-a-file-nobody-may-read"
#: Ways out of a directory: plain, encoded once and twice, overlong, with other separators.
CLIMBS = (
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "..\\", "..;/",
    "%c0%ae%c0%ae/", "%c0%ae%c0%ae%c0%af", "..%c0%af", "..%00/", "....//", "/", "%2f", "%5c",
    "..%u2215", "%uff0e%uff0e/", "..%ef%bc%8f",
)  # fmt: skip
#: Where a name in the path becomes, or might become, the name of a file.
PLACES = (
    "/v1/schemas/{}canary", "/v1/schemas/metrics?version={}canary", "/v1/journal/{}canary.ndjson",
    "/v1/journal/0/{}canary.ndjson", "/v1/journal/0/{}{}canary.ndjson",
    "/v1/journal/0/{}{}{}canary",
    "/legacy/{}canary", "/{}canary.json", "/v1/events/{}canary",
)  # fmt: skip


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a file to find next to, above and in everything it reads."""
    tmp_path = tmp_path_factory.mktemp("traversal")
    (tmp_path / "schemas").mkdir()
    schema = {"type": "object", "x-ingest": {"on_reject": "keep"}}
    (tmp_path / "schemas" / "metrics.json").write_text(json.dumps(schema))
    data = tmp_path / "data"
    (data / "journal" / "0").mkdir(parents=True)
    for directory in (tmp_path, data, data / "journal", data / "journal" / "0"):
        for name in ("canary", "canary.json", "canary.ndjson"):
            (directory / name).write_text(json.dumps({"description": CANARY}))
    gateway = Gateway(
        data,
        *("--schemas", str(tmp_path / "schemas"), "--handlers", str(tmp_path / "handlers")),
        *("--mounts", "/legacy=tests.support.wsgi_apps:app", "--journal-http", "on"),
    ).start()
    yield gateway
    gateway.stop()


def test_no_spelling_of_a_path_leaves_its_directory(surrounded: Gateway) -> None:
    targets = [
        place.replace("{}", climb * depth)
        for place in PLACES
        for climb in CLIMBS
        for depth in (1, 3)
    ]
    for target in targets:
        request = f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"
        answer = raw(surrounded, request.encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 "), target
        assert CANARY.encode() not in answer, target
    assert surrounded.request("GET", "/livez").status == 200
    assert "Traceback" not in surrounded.log()


@pytest.mark.parametrize("path", ["/etc/passwd", "//etc/passwd", "/%2fetc/passwd"])
def test_absolute_paths_are_no_paths_of_this_machine(surrounded: Gateway, path: str) -> None:
    for prefix in ("", "/v1/schemas", "/v1/journal", "/v1/journal/0", "/legacy"):
        answer = raw(surrounded, f"GET {prefix}{path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        assert b"root:" not in answer


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_no_event_type_makes_a_file_elsewhere(surrounded: Gateway) -> None:
    before = files(surrounded.data.parent)
    names = [climb * 3 + "made" for climb in ("../", "..%2f", "%2e%2e%2f", "..\\")]
    for name in names:
        for path in (f"/v1/events/{name}", f"/v1/batch/{name}"):
            raw(
                surrounded,
                f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                "Content-Length: 2\r\n\r\n{}".encode("latin-1"),
            )
        event = {"specversion": "1.0", "id": name, "source": f"/{name}", "type": name, "data": {}}
        status = surrounded.post(
            "/v1/events", event, **{"Content-Type": "application/cloudevents+json"}
        ).status
        assert status in (400, 404, 422), name
    key = {"Idempotency-Key": '"../../made"'}
    assert surrounded.post("/v1/events/metrics", METRICS, **key).status == 202
    assert surrounded.post("/v1/events/metrics", b"{", **key).status == 400
    made = {name for name in files(surrounded.data.parent) - before if "made" in name}
    assert made == set()


@pytest.mark.parametrize(
    "reference",
    ["../canary.json", "file:///etc/passwd", "/etc/passwd", "http://127.0.0.1:9/x.json",
     "_common/../../canary.json", "%2e%2e/canary.json"],
)  # fmt: skip
def test_a_schema_refers_to_nothing_outside_of_its_directory(
    tmp_path: Path, reference: str
) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "canary.json").write_text(json.dumps({"const": CANARY}))
    (tmp_path / "schemas" / "t.json").write_text(json.dumps({"$ref": reference}))
    with pytest.raises(RegistryError) as caught:
        Registry.load(tmp_path / "schemas")
    assert CANARY not in str(caught.value.problems)


def test_a_link_out_of_the_schemas_is_the_operator_s_own_doing(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links; following them is wanted, and only at start."""
    (tmp_path / "elsewhere.json").write_text('{"type": "object"}')
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "t.json").symlink_to(tmp_path / "elsewhere.json")
    assert "t" in Registry.load(tmp_path / "schemas").types
