"""Imports point one way, and what is to be pure reaches for no I/O."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path("ingest")

#: Modules that know bytes and values only.
PURE = (
    "admission/buckets", "admission/control", "admission/drain", "admission/fairness",
    "access/addresses", "access/exposure", "access/keys", "access/principal",
    "access/proxy_protocol", "access/signatures",
    "answers", "batch", "cloudevents", "codec", "dedupe", "dedupe_files", "dedupe_records",
    "encodings",
    "errors", "exits", "handlers/event", "journal/frame",
    "journal/record", "journal/replay_messages", "metrics_sums", "metrics_wire",
    "openapi_parts", "ranges", "representations", "settings_kafka", "sinks/forward_failures",
    "sinks/forward_window", "sinks/kafka_errors",
    "tls/names", "tls/validity", "tracing", "type_options", "wsgi_answer", "wsgi_environ",
    *(f"http/{path.stem}" for path in (PACKAGE / "http").glob("[a-z]*.py")),
)  # fmt: skip
IMPURE = {
    "gevent", "greenlet", "socket", "_socket", "os", "time", "select", "selectors", "threading",
    "subprocess", "pathlib", "ssl", "signal", "structlog", "logging",
}  # fmt: skip

#: Lowest first: a module imports nothing of a layer above its own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("version", "exits", "errors", "tracing"),
    ("encodings",),
    ("settings", "codec", "http", "metrics", "type_options", "access/proxy_protocol"),
    (
        "logs",
        "answers",
        "representations",
        "ranges",
        "validation",
        "health",
        "handlers/event",
        "link",
        "machine",
        "systemd",
        "patching",
        "stamps",
        "tls/context",
        "tls/layer",
        "tls/names",
        "tls/validity",
    ),
    ("peer",),
    ("access", "registry", "journal", "dedupe", "followers", "handlers/loader"),
    ("findings", "reload_outcome", "handover"),
    ("sinks",),
    (
        "handlers/runner",
        "handlers/lifecycle",
        "handlers/offload",
        "handlers/reload",
        "blocking",
        "pool",
        "batch",
        "cloudevents",
        "inflating",
        "rejected",
        "handlers/consumers",
        "consumers",
        "consuming",
    ),
    ("connection", "routes", "sinks/forward", "sinks/wiring"),
    ("tls",),
    ("responder",),
    ("admission", "handling", "refusing", "wsgi"),
    ("admin", "pipeline", "endpoints", "openapi", "server"),
    ("slow", "debug", "operations", "serving"),
    ("reloading",),
    ("service", "banner", "supervisor", "worker"),
    ("check", "cli_parser"),
    ("docs", "cli", "testing"),
    ("__main__",),
)


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE).with_suffix(""))
        found[name.removesuffix("/__init__")] = path
    return found


def imported(path: Path, *, at_runtime_only: bool) -> set[str]:
    """Dotted names a module imports; what stands under TYPE_CHECKING may be left out."""
    tree = ast.parse(path.read_text())
    if at_runtime_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def layer(module: str) -> int | None:
    """The layer of `a/b`: by its own name, its package's, or the name it was split from; the
    longest of these counts."""
    best, found = "", None
    for index, names in enumerate(LAYERS):
        for name in names:
            split = module == name or module.startswith((f"{name}/", f"{name}_"))
            if split and len(name) > len(best):
                best, found = name, index
    return found


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_for_no_io(name: str) -> None:
    roots = {module.partition(".")[0] for module in imported(modules()[name], at_runtime_only=True)}
    assert not roots & IMPURE


def test_every_module_has_a_place() -> None:
    packages = {".", "__init__", "handlers"}
    assert {name for name in modules() if layer(name) is None} <= packages


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_arrow_turns_round(name: str) -> None:
    own = layer(name)
    if own is None:
        return
    for dotted in imported(modules()[name], at_runtime_only=True):
        if dotted.startswith("ingest."):
            other = layer(dotted.removeprefix("ingest.").replace(".", "/"))
            assert other is None or other <= own, f"{name} imports {dotted}"
