"""Brings a broker's jars here, once: about 50 MB by Maven, kept in build/kafka.

This module must not start anything but Maven.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / "build" / "kafka"
POM = HERE / "pom.xml"
JAVA_LEAST = 11
INSTALL_SECONDS = 600


class Unavailable(Exception):
    """There can be no broker here; the message says what is missing."""


def java() -> str:
    """The program that runs a broker.

    Raises:
        Unavailable: there is none that is new enough.
    """
    found = shutil.which("java")
    if found is None:
        raise Unavailable("java is missing: apt-get install default-jre-headless")
    said = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = said.partition('"')[2].partition(".")[0]
    if not version.isdecimal() or int(version) < JAVA_LEAST:
        raise Unavailable(f"Kafka needs Java {JAVA_LEAST}; {found} says {said.splitlines()[:1]}")
    return found


def jars() -> Path:
    """The directory with the jars; they are brought here when they are not.

    Raises:
        Unavailable: Maven is missing, or cannot get them.
    """
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    directory = CACHE / wanted
    if directory.is_dir():
        return directory
    if shutil.which("mvn") is None:
        raise Unavailable("mvn is missing, which brings the jars: apt-get install maven")
    coming = CACHE / f"{wanted}.{os.getpid()}"
    coming.mkdir(parents=True)
    command = [
        "mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies",
        f"-DoutputDirectory={coming}", "-DincludeScope=runtime",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        shutil.rmtree(coming)
        last = " ".join((done.stdout + done.stderr).split())[-500:]
        raise Unavailable(f"Maven could not bring Kafka's jars: {last}")
    try:
        coming.rename(directory)
    except OSError:  # another process was faster
        shutil.rmtree(coming)
    return directory
