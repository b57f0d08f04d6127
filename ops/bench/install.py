"""Gets what the harness needs, or says why it cannot be had.

System programs come by apt-get, the peers' packages by npm and pip, into `.cache/` beside
this file; so do the harness's own Python packages, the extra `bench` of setup.cfg. Nothing is
put into the project's own virtual environment.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
REQUIREMENTS = HERE / "peers" / "requirements.txt"
VENV_BIN = CACHE / "venv" / "bin"
NODE_MODULES = CACHE / "node" / "node_modules"
NPM_PACKAGES = ("fastify@5", "ajv@8")
NODE_MAJOR_LEAST = 20  # what Fastify 5 asks for
INSTALL_SECONDS = 600


class Unavailable(Exception):
    """Something cannot be had here; the message says what to do."""


def _run(command: Sequence[str], directory: Path | None = None) -> str:
    """Run an installer quietly; its output stands in the error when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=INSTALL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"`{' '.join(command)}`: {error}") from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-5:])
        raise Unavailable(f"`{' '.join(command)}` failed ({done.returncode}):\n{tail}")
    return done.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def program(name: str, package: str) -> str:
    """The path of a system program, installed by apt-get when it is missing.

    Raises:
        Unavailable: it is missing and cannot be installed.
    """
    search = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    if found := shutil.which(name, path=search):
        return found
    advice = f"`{name}` is missing; install it, on Debian: apt-get install {package}"
    if not shutil.which("apt-get"):
        raise Unavailable(advice)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    _say(f"installing {package} by apt-get")
    try:
        _run([*as_root, "apt-get", "install", "--yes", "--no-install-recommends", package])
    except Unavailable as error:
        raise Unavailable(f"{advice}\n{error}") from error
    if found := shutil.which(name, path=search):
        return found
    raise Unavailable(advice)


def wrk() -> str:
    """wrk, the client of every measurement."""
    return program("wrk", "wrk")


def taskset() -> str:
    """taskset, which pins to cores."""
    return program("taskset", "util-linux")


def nginx() -> str:
    """nginx, the yardstick."""
    return program("nginx", "nginx-light")


def compiled(source: Path) -> str:
    """The program made of one C file, compiled when there is none of just that text.

    Raises:
        Unavailable: there is no compiler, or it refuses.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    target = CACHE / f"{source.stem}-{digest}"
    if not target.exists():
        CACHE.mkdir(exist_ok=True)
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        flags = ["-O2", "-Wall", "-Wextra"]
        _run([program("gcc", "build-essential"), *flags, "-o", str(fresh), str(source)])
        fresh.replace(target)
    return str(target)


def extras() -> Path:
    """Make the packages of the extra `bench` importable; returns where they are.

    Raises:
        Unavailable: they cannot be installed.
    """
    config = configparser.ConfigParser()
    config.read(HERE.parent.parent / "setup.cfg")
    wanted = config["options.extras_require"]["bench"].split("\n")
    wanted = [line.strip() for line in wanted if line.strip()]
    directory = CACHE / f"packages-{sys.version_info[0]}.{sys.version_info[1]}"
    stamp = directory / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(wanted):
        _say(f"installing {', '.join(wanted)} into {directory.relative_to(HERE.parent.parent)}")
        shutil.rmtree(directory, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--target", str(directory), *wanted])
        stamp.write_text("\n".join(wanted))
    if str(directory) not in sys.path:
        sys.path.append(str(directory))  # behind the project's own versions
        importlib.invalidate_caches()
    return directory


def python_peers() -> None:
    """The virtual environment of the Python peers, made anew when the requirements change."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = CACHE / "venv.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    _say("installing the Python peers into ops/bench/.cache/venv (about a minute)")
    CACHE.mkdir(exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(CACHE / "venv")])
    pip = [str(VENV_BIN / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", "--requirement", str(REQUIREMENTS)])
    stamp.write_text(wanted)


def node_peers() -> None:
    """Fastify and ajv in `.cache/node`."""
    node = program("node", "nodejs")
    version = _run([node, "--version"]).strip()
    major = re.match(r"v(\d+)", version)
    if not major or int(major[1]) < NODE_MAJOR_LEAST:
        raise Unavailable(f"Fastify 5 needs Node.js {NODE_MAJOR_LEAST} or newer, not {version}")
    if all((NODE_MODULES / name.partition("@")[0]).is_dir() for name in NPM_PACKAGES):
        return
    npm = program("npm", "npm")
    _say("installing Fastify into ops/bench/.cache/node")
    NODE_MODULES.parent.mkdir(parents=True, exist_ok=True)
    flags = ["--no-audit", "--no-fund", "--no-save", "--prefix", str(NODE_MODULES.parent)]
    _run([npm, "install", *flags, *NPM_PACKAGES], NODE_MODULES.parent)


def python_version_of(*names: str) -> str:
    """Names and versions of peers' Python packages, as one line."""
    code = (
        "import sys, importlib.metadata as m;"
        "print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    )
    return _run([str(VENV_BIN / "python"), "-c", code, *names]).strip()


def node_version_of(*names: str) -> str:
    """Names and versions of npm packages, and of Node.js itself, as one line."""
    versions = [
        f"{name} {json.loads((NODE_MODULES / name / 'package.json').read_text())['version']}"
        for name in names
    ]
    return ", ".join([*versions, "node " + _run(["node", "--version"]).strip().lstrip("v")])


def nginx_version() -> str:
    """nginx's version as it prints it."""
    return "nginx " + _run([nginx(), "-v"]).strip().rpartition("/")[2]
