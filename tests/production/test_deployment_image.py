"""The container image: its file is linted, its build carried out, and what comes out is run.

Where there is a Docker daemon, `docker build` does more; these need none, only root.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support import image
from tests.support.deployment import DOCKERFILE
from tests.support.proxies import free_ports

#: Sends events and reads them back, in the container, with nothing but its interpreter.
CLIENT = """
import json, sys, urllib.request
body = json.dumps({"metrics": [{"name": "a", "value": 1, "type": "gauge"}]}).encode()
for _ in range(10):
    request = urllib.request.Request(
        sys.argv[1] + "/metrics", body, {"Content-Type": "application/json"}
    )
    assert urllib.request.urlopen(request).status == 202
"""


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    command = [str(program), "--failure-threshold", "info", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_hadolint_has_nothing_to_say_about_the_dockerfile(tmp_path: Path) -> None:
    done = hadolint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")
    worse = DOCKERFILE.read_text().replace("WORKDIR /srv", "WORKDIR srv").replace(" --no-cache", "")
    (tmp_path / "Dockerfile").write_text(worse)
    assert hadolint(tmp_path / "Dockerfile").returncode != 0, "it reads nothing"


def test_the_image_builds_and_serves_as_its_user_on_a_read_only_root(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    steps, stage = image.build(str(tmp_path / "image"))
    volume = stage.root + json.loads(stage.noted["VOLUME"])[0]

    def inside(*words: str) -> str:
        return image.container(stage, shlex.join(words), INGEST_BIND=f"0.0.0.0:{port}")

    entry = [*json.loads(stage.noted["ENTRYPOINT"]), *json.loads(stage.noted["CMD"])]
    check = json.loads(stage.noted["HEALTHCHECK"].partition("CMD ")[2])
    (tmp_path / "client.py").write_text(CLIENT)
    script = [
        "set -eu",
        f"mkdir -p {tmp_path}/image && mount -t tmpfs tmpfs {tmp_path}/image",
        *steps,
        # What Docker does with VOLUME: the directory of the image, on its own file system.
        f"owner=$(stat -c '%u:%g' {volume}) mode=$(stat -c %a {volume})",
        f"mount -t tmpfs tmpfs {volume} && chown $owner {volume} && chmod $mode {volume}",
        f"mount -o remount,ro {stage.root}",
        f"! {inside('touch', '/srv/ingest/x')} 2>/dev/null",
        f"{inside(*check)} && exit 9",
        f"{inside(*entry)} >{tmp_path}/out 2>{tmp_path}/log & server=$!",
        f"i=0; until {inside(*check)} 2>/dev/null; do i=$((i+1)); test $i -lt 60; done",
        inside("python", "-c", CLIENT, f"http://127.0.0.1:{port}"),
        inside(*check, "--ready"),
        "echo user $(stat -c '%u:%g' /proc/$server)",
        "kill -TERM $server; wait $server; echo ended $?",
        inside("python", "-m", "ingest", "journal", "cat"),
        f"find {volume} -printf '%y %m %U\\n' | sort -u",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{log[-2000:]}"
    lines = done.stdout.splitlines()
    assert f"user {stage.user}" in lines and "ended 0" in lines
    assert sum('"specversion":"1.0"' in line for line in lines) == 10
    user = stage.user.partition(":")[0]
    assert {f"d 750 {user}", f"f 640 {user}"} == {
        line for line in lines if line.startswith(("d ", "f "))
    }
    assert "Traceback" not in log and "readable_by_all" not in log
