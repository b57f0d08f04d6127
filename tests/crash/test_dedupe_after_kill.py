"""Clients that repeat what they got no answer to, and a gateway that is killed meanwhile."""

import json
import threading
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, Gateway
from tests.support.waiting import until

KILLS = 5
CLIENTS = 8
EVENTS_A_CLIENT = 400


class Client(threading.Thread):
    """Sends its events in order, each again and again until it is answered 202."""

    def __init__(self, number: int, by_header: bool) -> None:
        super().__init__()
        self._number = number
        self._by_header = by_header
        self.gateway: Gateway
        self.ids: dict[str, str] = {}
        self.repeated = 0
        self.stopped = False

    def run(self) -> None:
        for n in range(EVENTS_A_CLIENT):
            key = f"{self._number}-{n}"
            while key not in self.ids and not self.stopped:
                self._send(key)

    def _send(self, key: str) -> None:
        fields = {"Idempotency-Key": f'"{key}"'} if self._by_header else {}
        name = "keyed" if self._by_header else "named"
        try:
            answer = self.gateway.post(f"/v1/events/{name}", {"key": key}, **fields)
        except (OSError, EOFError):
            return  # it is gone, or was while it answered
        if answer.status == 202:
            self.ids[key] = answer.json()["id"]
            self.repeated += "idempotency-replayed" in answer.headers
        else:
            # the first one is on its way, or the service starts or stops
            assert answer.status in (409, 503), answer


@pytest.mark.parametrize("by_header", [True, False], ids=["idempotency-key", "pointer"])
def test_what_is_repeated_over_kills_is_stored_exactly_once(
    tmp_path: Path, by_header: bool
) -> None:
    (tmp_path / "schemas").mkdir()
    for name, dedupe in (("keyed", "idempotency-key"), ("named", {"by": "pointer"})):
        if isinstance(dedupe, dict):
            dedupe["pointer"] = "/key"
        schema = {"type": "object", "x-ingest": {"dedupe": dedupe}}
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(schema))

    def start() -> Gateway:
        environ = {"PYTHONPATH": str(ROOT), "INGEST_SEGMENT_MAX_BYTES": "65536"}
        return Gateway(tmp_path / "data", cwd=tmp_path, env=environ).start()

    gateway = start()
    clients = [Client(number, by_header) for number in range(CLIENTS)]
    for client in clients:
        client.gateway = gateway
        client.start()
    try:
        for kill in range(1, KILLS + 1):
            share = CLIENTS * EVENTS_A_CLIENT * kill // (KILLS + 1)
            until(lambda share=share: sum(len(c.ids) for c in clients) >= share)
            gateway.kill()
            gateway = start()
            for client in clients:
                client.gateway = gateway
    except BaseException:
        for client in clients:
            client.stopped = True
        raise
    finally:
        for client in clients:
            client.join()
    answered = {key: event_id for client in clients for key, event_id in client.ids.items()}
    assert len(answered) == CLIENTS * EVENTS_A_CLIENT
    kept = [(record["data"]["key"], record["id"]) for record in gateway.journal()]
    assert len(kept) == len(answered)
    assert dict(kept) == answered
    assert gateway.stop() == 0
