"""The README's curl lines, run as they stand against a gateway, give the answers printed there."""

import json
import re
import subprocess
from pathlib import Path

from tests.support.gateway import Gateway

README = Path("README.md").read_text()
#: An indented block that calls curl, and the answer printed in the block behind it.
EXAMPLE = re.compile(
    r"((?:^    (?!import|HTTP|\{).*\n)*^ .*curl .*\n(?:^      .*\n)*)\n((?:^    .*\n)+)", re.M
)


def shape(text: str) -> object:
    """An answer without what differs from run to run: ids, and members left out by `…`."""
    text = re.sub(r'"[0-9a-f]{8}-[^"]*"', '"ID"', text)
    body = text[text.index("{") :]
    return json.loads(re.sub(r",\s*…", "", body))


def test_every_curl_line_of_the_readme_gives_the_answer_printed_there(gateway: Gateway) -> None:
    examples = EXAMPLE.findall(README)
    assert len(examples) == 3
    for command, printed in examples:
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        expected, answered = shape(printed), shape(done.stdout)
        assert isinstance(expected, dict) and isinstance(answered, dict)
        assert expected == {key: answered[key] for key in expected}
        if "HTTP/1.1" in printed:
            assert printed.split("\n")[0].strip() in done.stdout
