"""The harness: which server is measured when, and what comes out of it.

Rounds are interleaved: every server is started, warmed, measured under each load and stopped
before the next, and the round begins with another server each time, so that what drifts on
the machine hits all of them alike.

    make bench                         everything: about ten minutes
    make bench BENCH=--quick           this server and nginx: under a minute
    make bench BENCH='--only fastify,nginx --rounds 3 --seconds 5'
    make bench BENCH=--open-loop       something else than the table: see modes.py
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from ops.bench import checks, install, ladder, machine, modes, page, plot, wrk
from ops.bench.process import ServerFailed, ServerProcess
from ops.bench.progress import Progress
from ops.bench.report import Report, disturbed
from ops.bench.servers import CATALOGUE, METRICS_SCHEMA, ROOT, Launch, Spec, journal_directory
from ops.bench.stage import Stage, serving
from ops.bench.wrk import LOADS, Load, Measurement

RESULTS = Path(__file__).resolve().parent / "results"
WARM_SECONDS = 1
WARM_LOAD = LOADS["c64"]
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class Plan(NamedTuple):
    """What is to be run.

    Attributes:
        servers: names out of CATALOGUE, in order.
        loads: names out of LOADS, in order.
        ladder: the servers that climb the ladder.
        rounds: how often each measurement is taken.
        seconds: how long each takes.
        schemas: the directory with the schema that everybody validates against.
        label: stem of the files under results/.
        mode: what of `modes.MODES` to run instead of the table; empty for the table.
        quick: only a look.
    """

    servers: tuple[str, ...]
    loads: tuple[str, ...]
    ladder: tuple[str, ...]
    rounds: int
    seconds: int
    schemas: Path
    label: str
    mode: str = ""
    quick: bool = False

    def loads_of(self, spec: Spec) -> list[Load]:
        """The loads that a server is put under."""
        loads = [LOADS[name] for name in self.loads]
        return [load for load in loads if load.depth == 1 or spec.pipelines]

    def steps(self) -> int:
        """Number of progress steps."""
        measurements = sum(len(self.loads_of(CATALOGUE[name])) for name in self.servers)
        return measurements * self.rounds + len(self.ladder) * len(ladder.RUNGS)


def _names(known: Sequence[str], none_allowed: bool = False) -> Callable[[str], tuple[str, ...]]:
    """An argparse type: comma-separated names out of `known`."""

    def parse(text: str) -> tuple[str, ...]:
        if none_allowed and text == "none":
            return ()
        names = tuple(filter(None, text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(known)}")
        return names

    return parse


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse_arguments(argv: Sequence[str] | None) -> Plan:
    """Command line to plan; exits with code 2 and a usage line on a mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="this server and nginx, 2 rounds of 2 seconds")
    add("--only", type=_names(list(CATALOGUE)), metavar="NAME,…", help=", ".join(CATALOGUE))
    add("--loads", type=_names(list(LOADS)), metavar="LOAD,…", help=", ".join(LOADS))
    add(
        "--ladder",
        type=_names(list(CATALOGUE), none_allowed=True),
        metavar="NAME,…",
        help="who climbs the ladder, or none (default: ingest-fsync, with --quick none)",
    )
    add("--rounds", type=_at_least_one, help="default 5")
    add("--seconds", type=_at_least_one, help="of one measurement; default 4")
    add("--schemas", type=Path, default=ROOT / "schemas", help=f"directory with {METRICS_SCHEMA}")
    add("--label", help="results/<label>.json, .md, .png; default full, partial or quick")
    modes.add_flags(parser)
    options = parser.parse_args(argv)
    if not (options.schemas / METRICS_SCHEMA).is_file():
        parser.error(f"{options.schemas / METRICS_SCHEMA} does not exist")
    everybody = tuple(name for name, spec in CATALOGUE.items() if spec.quick or not options.quick)
    servers = options.only or everybody
    climbers = options.ladder
    if climbers is None:
        climbers = () if options.quick else tuple({"ingest-fsync"} & set(servers))
    complete = not (options.quick or options.only or options.loads)
    if options.mode:
        label = f"quick.{options.mode}" if options.quick else options.mode
        return Plan(
            servers=options.only or (),
            loads=(),
            ladder=(),
            rounds=options.rounds or (modes.QUICK_ROUNDS if options.quick else modes.ROUNDS),
            seconds=options.seconds or (modes.QUICK_SECONDS if options.quick else modes.SECONDS),
            schemas=options.schemas.resolve(),
            label=options.label or label,
            mode=options.mode,
            quick=options.quick,
        )
    return Plan(
        servers=servers,
        loads=options.loads or (("c64", "c1000") if options.quick else tuple(LOADS)),
        ladder=climbers,
        rounds=options.rounds or (2 if options.quick else 5),
        seconds=options.seconds or (2 if options.quick else 4),
        schemas=options.schemas.resolve(),
        label=options.label or ("full" if complete else "quick" if options.quick else "partial"),
    )


class Harness:
    """Carries a plan out and collects what it finds.

    Args:
        plan: what to run.
        cores: where server and client run.
        progress: told of every step.
    """

    def __init__(self, plan: Plan, cores: machine.Cores, progress: Progress) -> None:
        self._plan = plan
        self._cores = cores
        self._progress = progress
        self._judged: set[str] = set()
        self.versions: dict[str, str] = {}
        self.results: dict[str, dict[str, list[Measurement | None]]] = {}
        self.ladders: dict[str, list[ladder.Rung]] = {}
        self.remarks: list[str] = []
        self.failed = False

    def prepare(self) -> None:
        """Install what the servers need; who cannot be had is left out, with a remark."""
        for name in dict.fromkeys(self._plan.servers + self._plan.ladder):
            spec = CATALOGUE[name]
            try:
                spec.prepare()
                self.versions[name] = spec.version()
            except install.Unavailable as error:
                self._remark(f"{spec.title} is left out: {error}")
                skipped = len(self._plan.loads_of(spec)) * self._plan.rounds
                self._progress.skip(skipped if name in self._plan.servers else 0)
                self._progress.skip(len(ladder.RUNGS) if name in self._plan.ladder else 0)

    def measure(self) -> None:
        """All rounds."""
        servers = [name for name in self._plan.servers if name in self.versions]
        self.results = {
            name: {load.name: [] for load in self._plan.loads_of(CATALOGUE[name])}
            for name in servers
        }
        for number in range(self._plan.rounds):
            first = number % len(servers) if servers else 0
            for name in servers[first:] + servers[:first]:
                self._visit(name, number)

    def climb(self) -> None:
        """The ladders."""
        for name in self._plan.ladder:
            if name not in self.versions:
                continue
            rungs = self.ladders[name] = []
            try:
                with self._server(name) as (_, launch):
                    for clients, requests in ladder.RUNGS:
                        self._progress.step(f"{name}, ladder {clients} x {requests}")
                        rungs.append(ladder.climb(launch.port, clients, requests))
            except ServerFailed as error:
                self._fail(name, error)
                self._progress.skip(len(ladder.RUNGS) - len(rungs))

    def _visit(self, name: str, number: int) -> None:
        """Start one server, put it under every load, stop it."""
        spec = CATALOGUE[name]
        loads = self._plan.loads_of(spec)
        found: dict[str, Measurement] = {}
        try:
            with self._server(name) as (process, launch):
                target = wrk.Target(process, launch.port, launch.body_file, self._cores.client)
                warm = wrk.run(target, WARM_LOAD, WARM_SECONDS)
                answered = warm.requests - warm.failures
                for load in loads:
                    self._progress.step(
                        f"round {number + 1}/{self._plan.rounds}, {name}, {load.title}"
                    )
                    figures = wrk.run(target, load, self._plan.seconds)
                    found[load.name] = figures
                    answered += figures.requests - figures.failures
                    self._progress.note(f"{figures.requests_per_second:,.0f}/s")
                if spec.stores:
                    checks.require_stored(process, journal_directory(launch), answered)
        except (ServerFailed, ValueError, OSError) as error:
            self._fail(name, error)
            self._progress.skip(len(loads) - len(found))
        for load in loads:
            self.results[name][load.name].append(found.get(load.name))

    @contextmanager
    def _server(self, name: str) -> Iterator[tuple[ServerProcess, Launch]]:
        """A server that serves and judges, stopped at the end with all it has written."""
        spec = CATALOGUE[name]
        with serving(spec, self._cores.server, self._plan.schemas) as (process, launch):
            if spec.validates and name not in self._judged:
                checks.require_judgement(launch.port)
                self._judged.add(name)
            yield process, launch

    def _remark(self, text: str) -> None:
        self.remarks.append(text)
        self._progress.message(text)

    def _fail(self, name: str, error: Exception) -> None:
        self.failed = True
        self._remark(f"{CATALOGUE[name].title}: {error}")


def _conditions(plan: Plan, cores: machine.Cores) -> dict[str, str]:
    return {
        "taken": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **machine.describe(cores),
        "journal": f"on {machine.file_system_of(install.CACHE)}",
        "load": f"wrk, one thread, POST of {len(checks.BODY)} bytes (three metrics), keep-alive",
        "taking": f"median of {plan.rounds} interleaved rounds of {plan.seconds} s; "
        "failures: sum over the rounds",
    }


def _run_mode(plan: Plan, cores: machine.Cores) -> int:
    """Run what is measured beside the table; returns the exit code."""
    progress = Progress(0, sys.stderr)
    stage = Stage(
        cores, progress, plan.rounds, plan.seconds, plan.schemas, plan.servers, plan.quick
    )
    progress.add(modes.module_of(plan.mode).steps(stage))
    conditions = _conditions(plan, cores)
    del conditions["load"]
    conditions["taking"] = modes.module_of(plan.mode).TAKING.format(**plan._asdict())
    if plan.mode in modes.ON_BOTH_CORES and cores.server is not None:
        conditions["cores"] = f"server and client share cores {cores.server} and {cores.client}"
    try:
        well = modes.run(plan.mode, stage, conditions, RESULTS / plan.label)
    except KeyboardInterrupt:
        progress.message("interrupted; nothing is saved")
        return EXIT_INTERRUPTED
    finally:
        progress.close()
    if plan.label == plan.mode:
        page.write()
    return EXIT_OK if well else EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; returns the exit code."""
    plan = parse_arguments(argv)
    try:
        install.wrk()
        install.taskset()
    except install.Unavailable as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    cores = machine.choose_cores()
    if cores.client is not None:
        os.sched_setaffinity(0, {cores.client})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    install.CACHE.mkdir(exist_ok=True)
    try:
        install.extras()
    except install.Unavailable as error:
        print(f"without pictures: {error}", file=sys.stderr)
    if plan.mode:
        return _run_mode(plan, cores)
    progress = Progress(plan.steps(), sys.stderr)
    harness = Harness(plan, cores, progress)
    try:
        harness.prepare()
        harness.measure()
        harness.climb()
    except KeyboardInterrupt:
        progress.message("interrupted; nothing is saved")
        return EXIT_INTERRUPTED
    finally:
        progress.close()
    for title in disturbed(harness.results):
        harness.remarks.append(
            f"{title}: neither nginx nor its client could use its core fully; "
            "other work was running, and requests/s and ratios are to be distrusted"
        )
    report = Report(
        conditions=_conditions(plan, cores),
        titles={name: (spec.title, spec.does) for name, spec in CATALOGUE.items()},
        versions=harness.versions,
        results=harness.results,
        ladders=harness.ladders,
        remarks=harness.remarks,
    )
    print(report.markdown())
    paths = report.save(RESULTS / plan.label)
    picture = RESULTS / f"{plan.label}.png"
    if plot.save(report.document(), picture):
        paths.append(picture)
    else:
        print("no picture: matplotlib is missing")
    print("saved:", ", ".join(str(path.relative_to(ROOT)) for path in paths))
    if plan.label == "full":
        page.write()
    return EXIT_FAILED if harness.failed else EXIT_OK
