"""Known vulnerabilities and licences of what the container image is made of; `make audit`.

    python -m ops.audit              both
    python -m ops.audit --licences   prints the table of docs/security.md

Vulnerabilities are what the advisory service of PyPI knows of the exact versions in
ops/docker/requirements.txt. Where it cannot be reached, or knows nothing of a package at all, that
is said as NOT RUN: no answer is no all-clear.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).resolve().parent / "docker" / "requirements.txt"
#: Of no package of the image's on Linux.
ELSEWHERE = {"cffi", "colorama", "pycparser"}
#: Licences that ask for no more than a notice, and file-level copyleft.
PERMITTED = re.compile(r"mit|bsd|apache|psf|python|isc|zpl|zope|mpl|mozilla|unlicense|0bsd", re.I)
REFUSED = re.compile(r"\b(a|l)?gpl|general public|proprietary|commercial", re.I)


def locked() -> dict[str, str]:
    """Name → version, of the packages of the image."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE)
    return {name: version for name, version in found if name not in ELSEWHERE}


def licence(name: str) -> str | None:
    """What a package says of itself; None where it is not installed here."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier", [])
        if line.startswith("License :: OSI Approved :: ")
    ]
    text = said["License-Expression"] or " or ".join(classifiers) or said["License"] or "unknown"
    return " ".join(text.split())[:60]


def licences() -> tuple[dict[str, str], list[str]]:
    """Name → licence, and what is wrong with them."""
    found, problems = {}, []
    for name in sorted(locked()):
        text = licence(name)
        if text is None:
            continue  # for another version of Python
        found[name] = text
        if REFUSED.search(text) or not PERMITTED.search(text):
            problems.append(f"{name}: licence {text!r} is not among the permitted ones")
    return found, problems


def table() -> str:
    """The licences as Markdown."""
    rows = [f"| `{name}` | {text} |" for name, text in licences()[0].items()]
    return "\n".join(["| package | licence |", "|---|---|", *rows]) + "\n"


def vulnerabilities() -> tuple[list[str], str | None]:
    """What is known, and why it could not be asked, if it could not."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"),
            *("--disable-pip", "--progress-spinner", "off", "--timeout", "20", "--format", "json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        lines = done.stderr.strip().splitlines()
        return [], f"pip-audit: {lines[-1] if lines else done.returncode}"
    found = [
        f"{package['name']} {package['version']}: {known['id']}, "
        f"fixed in {', '.join(known['fix_versions']) or 'no version'}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    skipped = sorted(package["name"] for package in packages if "skip_reason" in package)
    if skipped:
        return found, f"the advisory service knows nothing of {len(skipped)} of {len(packages)}"
    return found, None


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--licences", action="store_true", help="print the table of licences")
    if parser.parse_args().licences:
        sys.stdout.write(table())
        return 0
    found, problems = licences()
    print(f"licences: {len(found)} packages, {len(problems)} problems")
    known, not_asked = vulnerabilities()
    if not_asked is None:
        print(f"vulnerabilities: {len(known)} known of {len(locked())} packages")
    else:
        print(f"NOT RUN: vulnerabilities: {not_asked}", file=sys.stderr)
    for line in problems + known:
        print(line, file=sys.stderr)
    return 1 if problems or known else 0


if __name__ == "__main__":
    sys.exit(main())
