"""Checks what a schema cannot: that an order's total is the sum of its lines.

Plain blocking Python. `handle` is called once for each event that matches its schema,
before the client is answered:

* return None, and the event is stored as it was sent;
* return a value, and that is stored instead (after it was validated again);
* raise `ingest.Reject`, and the client gets a 422 with the reason.
"""

from decimal import Decimal

import ingest


def handle(event):
    order = event.data
    # 2.0 is an integer to JSON Schema and a float to Python, so everything becomes a Decimal.
    total = sum(
        Decimal(line["quantity"]) * Decimal(line["price"]["amount"]) for line in order["lines"]
    )
    if Decimal(order["total"]["amount"]) != total:
        raise ingest.Reject(
            f"total is {order['total']['amount']}, the lines add up to {total}",
            pointer="/total/amount",
        )
