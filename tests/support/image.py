"""Builds ops/docker/Dockerfile without Docker, and runs what comes out.

Each stage is an overlay on this machine's own root directory, in which a `python` stands where
the official image has it. The instructions are carried out one by one as they stand: RUN in a
chroot, COPY from the checkout or another stage. Only root can do that.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.support.deployment import instructions
from tests.support.gateway import ROOT

#: What a container has beside its image, and no more of this machine.
RUNTIME_ENV = ("env", "-i")
_NOTED = {"ARG", "LABEL", "EXPOSE", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


class Stage:
    """One stage, as lines of shell that build it below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = "/"
        self.environment: dict[str, str] = {}
        self.user = ""
        self.noted: dict[str, str] = {}

    def base(self) -> list[str]:
        """The stand-in for the official image of Python."""
        python = Path(sys.executable).resolve()
        upper = f"{self.root}.upper"
        lines = [
            f"mkdir -p {self.root} {upper} {self.root}.work",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={self.root}.work "
            f"{self.root}",
            f"mount --rbind /dev {self.root}/dev",
            f"mount -t proc proc {self.root}/proc",
            f"ln -sfn {python} {self.root}/usr/local/bin/python",
            f"rm -rf {self.root}/opt/ingest {self.root}/srv/ingest {self.root}/var/lib/ingest",
        ]
        # Other users reach the interpreter, wherever on this machine it is.
        lines += [f"chmod o+x {self.root}{parent}" for parent in python.parents if parent.name]
        return lines

    def run(self, command: str) -> str:
        """A command in the stage, as its user is by then."""
        user = [f"--userspec={self.user}"] if self.user else []
        exports = [f"{name}={value}" for name, value in self.environment.items()]
        script = f"cd {shlex.quote(self.directory)} && {command}"
        return shlex.join(["chroot", *user, self.root, "env", *exports, "sh", "-ec", script])

    def copy(self, rest: str, stages: dict[str, Stage]) -> list[str]:
        words = shlex.split(rest)
        source_root, context = str(ROOT), True
        if words[0].startswith("--from="):
            source_root, context = stages[words.pop(0).partition("=")[2]].root, False
        *sources, target = words
        place = f"{self.root}{Path(self.directory, target)}"
        lines = []
        for source in sources:
            origin = Path(source_root, source.lstrip("/") if not context else source)
            into = f"{place}/" if target.endswith("/") else place
            # Of a directory its content is copied, as Docker does.
            lines.append(
                f"if [ -d {origin} ]; then mkdir -p {into} && cp -a {origin}/. {into}; "
                f"else cp {origin} {into}; fi"
            )
        return lines


def build(work: str) -> tuple[list[str], Stage]:
    """Lines of shell that build the image below a directory, and its last stage."""
    stages: dict[str, Stage] = {}
    lines: list[str] = []
    stage = Stage("")
    for name, rest in instructions():
        if name == "FROM":
            stage = stages[rest.rpartition(" ")[2]] = Stage(f"{work}/{rest.rpartition(' ')[2]}")
            lines += stage.base()
        elif name == "WORKDIR":
            stage.directory = rest
            lines.append(f"mkdir -p {stage.root}{rest}")
        elif name == "ENV":
            for pair in rest.split():
                key, _, value = pair.partition("=")
                path = stage.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
                stage.environment[key] = value.replace("$PATH", path)
        elif name == "USER":
            stage.user = rest
        elif name == "COPY":
            lines += stage.copy(rest, stages)
        elif name == "RUN":
            lines.append(stage.run(rest))
        elif name in _NOTED:
            stage.noted[name] = rest
        else:
            raise AssertionError(f"no rule for {name}")
    return lines, stage


def container(stage: Stage, command: str, **environment: str) -> str:
    """A command in a container of the image: its user, its variables and none of this machine."""
    exports = {**stage.environment, "HOME": "/nonexistent", **environment}
    script = f"cd {stage.directory} && exec {command}"
    words = ["chroot", f"--userspec={stage.user}", stage.root, *RUNTIME_ENV]
    return shlex.join([*words, *(f"{k}={v}" for k, v in exports.items()), "sh", "-ec", script])
