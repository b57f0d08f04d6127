"""Those who scrape without a pause do not keep the event loop from serving events."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from threading import Thread

from tests.support.events import METRICS
from tests.support.gateway import Gateway

#: Events that are sent meanwhile; INGEST_SCRAPED_EVENTS makes it a longer run.
EVENTS = int(os.environ.get("INGEST_SCRAPED_EVENTS", "3000"))
SCRAPERS = 4


def test_scraping_without_a_pause_never_holds_the_event_loop(
    new_gateway: Callable[..., Gateway],
) -> None:
    gateway = new_gateway()
    sending = True
    scrapes = 0

    def scrape() -> None:
        nonlocal scrapes
        with gateway.connect() as client:
            while sending:
                accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
                assert client.request("GET", "/metrics", headers=accept).status == 200
                scrapes += 1

    scrapers = [Thread(target=scrape) for _ in range(SCRAPERS)]
    for scraper in scrapers:
        scraper.start()
    body = json.dumps(METRICS).encode()
    fields = {"Content-Type": "application/json"}
    with gateway.connect() as client:
        for _ in range(EVENTS):
            assert client.request("POST", "/v1/events/metrics", body, fields).status == 202
    sending = False
    for scraper in scrapers:
        scraper.join()
    assert scrapes >= SCRAPERS
    # `max_blocking_seconds` is 0.1; time without a core is not the loop's and not counted.
    assert gateway.metric('ingest_hub_blocked_total{handler="-"}') == 0
    assert gateway.metric('ingest_events_accepted_total{type="metrics"}') == EVENTS
