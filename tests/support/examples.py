"""The curl lines of a page, run as they stand, with the answers printed behind them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.support.gateway import Gateway

#: An indented block that calls curl, and the answer printed in the block behind it.
EXAMPLE = re.compile(
    r"((?:^    (?!import|HTTP|\{).*\n)*^ .*curl .*\n(?:^      .*\n)*)\n((?:^    .*\n)+)", re.M
)


def _shape(text: str) -> object:
    """An answer without what differs from run to run: ids, and members left out by `…`."""
    text = re.sub(r'"[0-9a-f]{8}-[^"]*"', '"ID"', text)
    body = text[text.index("{") :]
    return json.loads(re.sub(r",\s*…", "", body))


def check_examples(page: Path, gateway: Gateway) -> int:
    """Run every example of a page, in order; returns how many there are.

    Raises:
        AssertionError: one of them is not answered as printed.
    """
    examples = EXAMPLE.findall(page.read_text(encoding="utf-8"))
    for command, printed in examples:
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        expected, answered = _shape(printed), _shape(done.stdout)
        assert isinstance(expected, dict) and isinstance(answered, dict)
        assert expected == {key: answered[key] for key in expected}
        if "HTTP/1.1" in printed:
            assert printed.split("\n")[0].strip() in done.stdout
    return len(examples)
