"""The command line: what it understands, what it refuses and how it says so."""

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ingest import cli, cli_parser
from ingest.check import check
from ingest.cli_parser import EXAMPLES, EXIT_MEANINGS, Invocation, UsageError
from ingest.exits import ExitCode
from ingest.settings import SETTINGS, Settings
from tests.support.gateway import ROOT

SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}}'


def parse(*argv: str) -> Invocation:
    return cli_parser.parse(argv, [cli._add_journal])


def run(*argv: str, cwd: Path, stdout: int = subprocess.PIPE, **env: str):  # type: ignore[no-untyped-def]
    return subprocess.run(
        [sys.executable, "-m", "ingest", *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one type and its handler; nothing is wrong with it."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text(SCHEMA)
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "thing.py").write_text("def handle(event):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def break_everything(deployment: Path) -> None:
    (deployment / "ingest.yaml").write_text("ack: write\nworkrs: 2\n")
    (deployment / "schemas" / "one.json").write_text('{"properties": {"a": {"type": "nope"}}}')
    (deployment / "schemas" / "two.json").write_text("{")
    (deployment / "handlers" / "one.py").write_text("import nowhere_to_be_found\n")
    (deployment / "handlers" / "stray.py").write_text("def handle(event): ...\n")


# -- grammar --------------------------------------------------------------------------------


def test_without_a_command_it_serves_with_or_without_flags() -> None:
    assert (parse().command, parse().flags) == ("serve", {})
    invocation = parse("--schemas", "X")
    assert (invocation.command, invocation.flags) == ("serve", {"schemas": "X"})


@pytest.mark.parametrize(
    "line",
    [
        "--data X --ack write check",
        "check --data X --ack write",
        "--data X check --ack write",
        "--data=X check --ack=write",
        "--data first check --data X --ack write",
    ],
)
def test_flags_may_stand_before_or_after_the_command(line: str) -> None:
    invocation = parse(*line.split())
    assert (invocation.command, invocation.flags) == ("check", {"data": "X", "ack": "write"})


def test_every_setting_has_its_flag() -> None:
    for setting in SETTINGS:
        assert parse(setting.flag, "v").flags == {setting.name: "v"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--bnid 1.2.3.4:1", "unknown flag --bnid; did you mean --bind?"),
        ("--bnid=1 check", "unknown flag --bnid; did you mean --bind?"),
        ("check --bnid 1", "unknown flag --bnid; did you mean --bind?"),
        ("serve --zzzzzz", "unknown flag --zzzzzz"),
        ("--dat x", "unknown flag --dat; did you mean --data?"),
        ("chek", "unknown command 'chek'; commands: serve, check, journal, replay, keys, health"),
        ("check this", "'this' is one argument too many"),
        ("--bind", "argument --bind: expected one argument"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_nearest_name(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*line.split())
    assert str(caught.value) == message


def test_help_names_every_flag_variable_command_and_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for setting in SETTINGS:
        assert f"{setting.flag} {setting.metavar}" in text
        assert f"{setting.env}{'; reloads' if setting.reloads else ''})" in text
    for code in ExitCode:
        assert f"{code:d} {code.name} {EXIT_MEANINGS[code]}" in text
    for command in ("serve", "check", "journal"):
        assert command in text
        assert cli.main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ingest {cli_parser.__version__}\n"


def test_the_examples_in_help_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for _, example in EXAMPLES:
        words = shlex.split(example)
        start = words.index("python")
        environ = dict(word.split("=", 1) for word in words[:start])
        assert words[start : start + 3] == ["python", "-m", "ingest"]
        settings, problems = cli.load_settings(parse(*words[start + 3 :]).flags, environ)
        assert problems == []
        assert (settings.origins != {}) is any(
            word in example for word in ("900", "data", "reload")
        )


# -- settings -------------------------------------------------------------------------------


def test_settings_that_cannot_be_used_are_listed_on_stderr_with_exit_code_2(
    deployment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_BNID", "x")
    (deployment / "ingest.yaml").write_text("\nack: maybe\n")
    assert cli.main(["--backlog", "0"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "ingest: the settings cannot be used:",
        "  INGEST_BNID: INGEST_BNID names no setting; did you mean INGEST_BIND?",
        "  ingest.yaml:2: ack must be fsync or write or remote, not 'maybe'",
        "  --backlog: backlog must be at least 1, not '0'",
    ]


def test_a_usage_error_is_said_on_stderr_with_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--bnid"]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "ingest: unknown flag --bnid; did you mean --bind?\nAll flags: python -m ingest --help\n"
    )


def test_the_default_settings_file_may_be_missing_and_is_read_when_it_is_there(
    deployment: Path,
) -> None:
    assert cli.load_settings({}, {}) == (Settings(), [])
    (deployment / "ingest.yaml").write_text("ack: write\n")
    settings, problems = cli.load_settings({}, {})
    assert (settings.ack, settings.origins, problems) == ("write", {"ack": "ingest.yaml:1"}, [])


def test_a_settings_file_that_is_named_must_be_there(deployment: Path) -> None:
    for flags, environ, source in (
        ({"config": "other.yaml"}, {}, "--config"),
        ({"config": "ingest.yaml"}, {}, "--config"),
        ({}, {"INGEST_CONFIG": "other.yaml"}, "INGEST_CONFIG"),
    ):
        _, problems = cli.load_settings(flags, environ)
        (problem,) = problems
        assert (problem.key, problem.source) == ("config", source)
    (deployment / "other.yaml").write_text("ack: write")
    assert cli.load_settings({}, {"INGEST_CONFIG": "other.yaml"})[0].ack == "write"
    # A flag goes before the variable here as well.
    (deployment / "third.yaml").write_text("ack: fsync")
    settings, _ = cli.load_settings({"config": "third.yaml"}, {"INGEST_CONFIG": "other.yaml"})
    assert settings.origins["ack"] == "third.yaml:1"


def test_a_logging_configuration_that_is_named_must_be_there(deployment: Path) -> None:
    _, problems = cli.load_settings({"log_config": "logging.yaml"}, {})
    assert [str(problem) for problem in problems] == [
        "--log-config: log_config names no file: logging.yaml"
    ]
    assert cli.load_settings({}, {})[1] == []


def test_a_settings_file_that_cannot_be_read_as_text_is_a_problem(deployment: Path) -> None:
    (deployment / "ingest.yaml").write_bytes(b"ack: \xff\n")
    assert [str(problem) for problem in cli.load_settings({}, {})[1]] == [
        "ingest.yaml: ingest.yaml is not UTF-8 text"
    ]
    (deployment / "ingest.yaml").unlink()
    (deployment / "ingest.yaml").mkdir()
    (problem,) = cli.load_settings({}, {})[1]
    assert "cannot read ingest.yaml" in problem.message


# -- journal --------------------------------------------------------------------------------


def test_journal_commands_take_the_data_directory_from_every_source(
    deployment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*argv: str) -> str:
        assert cli.main(argv) == ExitCode.DATA_UNUSABLE
        return capsys.readouterr().err

    assert "by-flag" in refused("journal", "ls", "--data", "by-flag")
    assert "by-flag" in refused("--data", "by-flag", "journal", "ls")
    (deployment / "ingest.yaml").write_text("data: by-file")
    assert "by-file" in refused("journal", "cat")
    monkeypatch.setenv("INGEST_DATA", "by-variable")
    assert "by-variable" in refused("journal", "cat")


# -- check ----------------------------------------------------------------------------------


def test_check_finds_nothing_wrong_with_a_good_deployment(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--ack", "write"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "problems": [],
        "warnings": [],
        "types": ["thing"],
        "handlers": ["thing"],
        "consumers": [],
        "mounts": [],
        "settings": {"ack": "--ack"},
    }
    assert check(Settings()).as_text() == "ok: 1 event type (thing), 1 handler (thing)\n"
    assert not (deployment / "data").exists()


def test_check_tells_consumers_and_mounted_applications_from_handlers(deployment: Path) -> None:
    consumes = "def consume(events):\n    pass\n\napp = lambda environ, start_response: []\n"
    (deployment / "handlers" / "thing.py").write_text(consumes)
    said = "ok: 1 event type (thing), 0 handlers, 1 consumer (thing), 1 mount (/thing)\n"
    assert check(Settings()).as_text() == said


def test_check_lists_the_problems_of_settings_schemas_and_handlers_at_once(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_everything(deployment)
    assert cli.main(["check", "--json"]) == ExitCode.PROBLEMS
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["settings"] == {"ack": "ingest.yaml:1"}
    found = {(problem["area"], problem["file"]): problem for problem in report["problems"]}
    assert set(found) == {
        ("settings", "ingest.yaml"),
        ("schemas", "schemas/one.json"),
        ("schemas", "schemas/two.json"),
        ("handlers", "handlers/one.py"),
        ("handlers", "handlers/stray.py"),
    }
    assert found["settings", "ingest.yaml"]["line"] == 2
    assert "did you mean workers?" in found["settings", "ingest.yaml"]["message"]
    assert found["schemas", "schemas/one.json"]["pointer"] == "/properties/a/type"
    assert found["handlers", "handlers/one.py"]["line"] == 1
    assert "nowhere_to_be_found" in found["handlers", "handlers/one.py"]["message"]


def test_check_does_not_blame_a_handler_for_its_broken_schema(deployment: Path) -> None:
    (deployment / "schemas" / "thing.json").write_text("{")
    assert {finding.area for finding in check(Settings()).problems} == {"schemas"}


def test_check_prints_sentences_with_their_places_on_a_terminal(deployment: Path) -> None:
    break_everything(deployment)
    # Handlers are modules: a process of its own leaves none behind here.
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    done = run("check", "--backlog", "0", cwd=deployment, stdout=slave)
    text = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    lines = text.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert "--backlog: backlog must be at least 1, not '0'" in lines
    assert any(line.startswith("schemas/one.json#/properties/a/type: ") for line in lines)
    assert any(line.startswith("handlers/one.py:1: ModuleNotFoundError") for line in lines)
    assert lines[-1] == f"{len(lines) - 1} problems"


def test_check_lists_a_broken_logging_configuration_in_one_line(deployment: Path) -> None:
    (deployment / "logging.yaml").write_text("version: 1\nroot: {handlers: [nowhere]}\n")
    done = run("check", cwd=deployment)
    (problem,) = json.loads(done.stdout)["problems"]
    assert (done.returncode, problem["area"], problem["file"]) == (1, "logging", "logging.yaml")
    assert "nowhere" in problem["message"] and "\n" not in problem["message"]
    (deployment / "logging.yaml").write_text((ROOT / "logging.yaml").read_text())
    done = run("check", cwd=deployment)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shipped_deployment_passes_its_check() -> None:
    done = run("check", cwd=ROOT)
    report = json.loads(done.stdout)
    assert (done.returncode, report["problems"]) == (0, [])
    assert {"metrics", "order", "page_view"} <= set(report["types"])


# -- serve ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "code", "expected"),
    [
        ("schemas/two.json", "{", ExitCode.PROBLEMS, "schemas/two.json"),
        ("handlers/thing.py", "x = ", ExitCode.PROBLEMS, "handlers/thing.py:1: SyntaxError"),
        ("logging.yaml", "- 1", ExitCode.USAGE, "logging.yaml: must be a mapping"),
        ("ingest.yaml", "workers: none", ExitCode.USAGE, "ingest.yaml:1: workers must be"),
    ],
)
def test_serving_what_cannot_be_served_is_refused_in_words(
    deployment: Path, file: str, text: str, code: ExitCode, expected: str
) -> None:
    (deployment / file).write_text(text)
    done = run("--bind", "127.0.0.1:0", cwd=deployment)
    assert (done.returncode, done.stdout) == (code, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "code"), [("check", 1), ("--version", 0)])
def test_output_that_nobody_reads_changes_nothing(
    deployment: Path, command: str, code: int
) -> None:
    break_everything(deployment)
    reader, writer = os.pipe()
    os.close(reader)
    done = run(command, cwd=deployment, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_MEANINGS) == set(ExitCode)
