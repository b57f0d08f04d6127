"""Where settings come from: flags, environment and a settings file become one set of values.

Everything is passed in; nothing here reads the process or the disk. All that is wrong is
collected, so that an operator corrects a deployment once. This module must not know which
settings exist: they are handed to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from ingest.settings_values import Setting, Value, echo

ENV_PREFIX = "INGEST_"

#: Kubernetes gives every pod variables about each Service of its namespace. A Service called
#: `ingest` or `ingest-…` must not keep the gateway from starting.
#: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES = re.compile(
    r"INGEST_(\w+_)?("
    r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
#: What has a backslash before it in the value of a pair.
_ENDS = re.compile(r"[,\\]")
_BACKSLASH = r"\\\g<0>"
_KUBERNETES_PORT = re.compile(r"INGEST_(\w+_)?PORT")
_KUBERNETES_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://")


class Problem(NamedTuple):
    """One thing wrong with the settings.

    Attributes:
        key: the setting's name, or the unknown name as it was written.
        source: where it stands: `--ack`, `INGEST_ACK`, `ingest.yaml:3`.
        message: a sentence that says what is wanted.
    """

    key: str
    source: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


class Origin(NamedTuple):
    """A text and where it stands."""

    source: str
    text: str


class Entry(NamedTuple):
    """The value of an entry of the settings file; `pairs`: it was a map of plain values."""

    text: str
    pairs: bool = False


class Resolution(NamedTuple):
    """Values of the settings that something names, where each was named, and what is wrong."""

    values: dict[str, Value]
    origins: dict[str, str]
    problems: list[Problem]


def resolve(
    settings: Sequence[Setting],
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    file_text: str | None,
    file_name: str,
) -> Resolution:
    """Read all sources; a flag goes before the environment, and that before the file.

    A value that a stronger source hides is checked too: it would be wrong on the day the
    flag is dropped.

    Args:
        settings: the declarations.
        flags: setting name → text, of the flags that were given.
        environ: the process's environment.
        file_text: content of the settings file, None where there is none.
        file_name: its name, for messages.
    """
    problems: list[Problem] = []
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    declared = {setting.name: setting for setting in settings}
    weakest_first = (
        _from_file(declared, file_text, file_name, problems),
        _from_environ(declared, environ, problems),
        {name: Origin(declared[name].flag, text) for name, text in flags.items()},
    )
    for found in weakest_first:
        for name, origin in found.items():
            try:
                values[name] = declared[name].parse(origin.text)
            except ValueError as error:
                message = f"{name} {error}"
                if not declared[name].secret:
                    message += f", not {echo(origin.text)}"
                problems.append(Problem(name, origin.source, message))
            else:
                origins[name] = origin.source
    return Resolution(values, origins, problems)


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `; did you mean bind?`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _from_environ(
    declared: Mapping[str, Setting], environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Origin]:
    names = {setting.env: setting.name for setting in declared.values()}
    found = {}
    for variable, text in environ.items():
        if variable in names:
            found[names[variable]] = Origin(variable, text)
        elif variable.startswith(ENV_PREFIX) and not _is_kubernetes(variable, text):
            message = f"{variable} names no setting{suggest(variable, names)}"
            problems.append(Problem(variable, variable, message))
    return found


def _is_kubernetes(variable: str, text: str) -> bool:
    if _KUBERNETES.fullmatch(variable):
        return True
    # Told apart from a person's INGEST_PORT=8080, who is better told about INGEST_BIND.
    named = _KUBERNETES_PORT.fullmatch(variable) is not None
    return named and _KUBERNETES_PORT_VALUE.match(text) is not None


def _from_file(
    declared: Mapping[str, Setting], text: str | None, file_name: str, problems: list[Problem]
) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for line, key, value in _entries(text, file_name, problems):
        source = f"{file_name}:{line}"
        whole, dot, part = key.partition(".")
        if dot and value is not None and whole in declared and declared[whole].pairs:
            # `kafka.linger.ms: 5` is one entry of the map `kafka`.
            entry = Entry(_pair(part, value.text), pairs=True)
            if value.pairs:
                problems.append(Problem(key, source, f"{key} must be one plain value"))
            elif whole in found:
                found[whole] = Origin(found[whole].source, f"{found[whole].text},{entry.text}")
            else:
                found[whole] = Origin(source, entry.text)
        elif key not in declared:
            message = f"{echo(key)} is no setting{suggest(key, declared)}"
            problems.append(Problem(key, source, message))
        elif key == "config":
            message = "config cannot stand in the settings file itself; use --config"
            problems.append(Problem(key, source, message))
        elif key in found:
            message = f"{key} stands twice, first at {found[key].source}"
            problems.append(Problem(key, source, message))
        elif value is None or (value.pairs and not declared[key].pairs):
            problems.append(Problem(key, source, f"{key} must be one plain value"))
        else:
            found[key] = Origin(source, value.text)
    return found


def _entries(
    text: str | None, file_name: str, problems: list[Problem]
) -> Iterator[tuple[int, str, Entry | None]]:
    """Line, key and value as written, of each entry; None for a value that holds others.

    A map of plain values stands for `a=b,c=d`.

    The texts are taken as they stand and read by `Setting.parse`. YAML's own reading
    would make `access_log: off` false and `5:30` a number in base 60.
    """
    try:
        node = yaml.compose(text or "", Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source = f"{file_name}:{mark.line + 1}" if mark else file_name
        problems.append(Problem("", source, f"the file is not YAML: {error.problem}"))
        return
    except yaml.YAMLError as error:
        problems.append(Problem("", file_name, f"the file is not YAML: {echo(str(error))}"))
        return
    if node is None or _is_null(node):
        return
    if not isinstance(node, yaml.MappingNode):
        source = f"{file_name}:{node.start_mark.line + 1}"
        problems.append(Problem("", source, "the file must hold `name: value` lines"))
        return
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        yield key.start_mark.line + 1, name, _entry(value)


def _entry(node: yaml.Node) -> Entry | None:
    if _is_text(node):
        return Entry(node.value)
    if not isinstance(node, yaml.MappingNode):
        return None
    if not all(_is_text(key) and _is_text(value) for key, value in node.value):
        return None
    pairs = (_pair(key.value, value.value) for key, value in node.value)
    return Entry(",".join(pairs), pairs=True)


def _pair(name: str, value: str) -> str:
    r"""A pair of a map as it stands in a text of pairs: what would end it has a backslash."""
    return f"{name}={_ENDS.sub(_BACKSLASH, value)}"


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not _is_null(node)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"
