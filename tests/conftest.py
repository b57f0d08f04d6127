"""Shared fixtures. The test process is patched like the product, before anything else."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import gevent.util  # noqa: E402
import pytest  # noqa: E402
from gevent.hub import get_hub  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402

from tests.support.certificates import EncryptedGateway, Serve  # noqa: E402
from tests.support.gateway import Gateway  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# A shell that starts this in the background lets it ignore SIGINT, and so would the programs that
# are tested; what has a handler here they get as it is by default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis_settings.register_profile("default", deadline=None, print_blob=True)
hypothesis_settings.load_profile("default")

#: A test that has not ended by then hangs: every greenlet's stack is printed.
HANG_SECONDS = 100


@pytest.fixture(autouse=True)
def no_unhandled_hub_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose time a greenlet died of something nobody caught, or that hangs."""
    hub = get_hub()
    errors: list[BaseException] = []
    original = type(hub).handle_error

    def handle_error(self, context, kind, value, trace):  # type: ignore[no-untyped-def]
        if kind is not None and not issubclass(kind, (gevent.GreenletExit, SystemExit)):
            errors.append(value)
        original(self, context, kind, value, trace)

    monkeypatch.setattr(type(hub), "handle_error", handle_error)
    alarm = gevent.Timeout(HANG_SECONDS)
    alarm.start()
    try:
        yield
    except gevent.Timeout:
        gevent.util.print_run_info()
        raise
    finally:
        alarm.close()
    assert not errors, f"unhandled in a greenlet: {errors}"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """The product in a process of its own, on a free port, with the shipped files."""
    running = Gateway(tmp_path / "data")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[type[Gateway]]:
    """Make gateways with settings of the test's choice; all are stopped at its end."""
    made: list[Gateway] = []

    def make(*flags: str, data: Path | None = None, **keywords) -> Gateway:  # type: ignore[no-untyped-def]
        running = Gateway(data or tmp_path / "data", *flags, **keywords)
        made.append(running)
        running.start()
        return running

    yield make  # type: ignore[misc]
    for running in made:
        running.stop()


@pytest.fixture
def new_encrypted(tmp_path: Path) -> Iterator[Serve]:
    """Make gateways that speak TLS; all are stopped at its end."""
    made: list[EncryptedGateway] = []

    def make(*flags: str, **keywords) -> EncryptedGateway:  # type: ignore[no-untyped-def]
        made.append(EncryptedGateway(tmp_path, *flags, **keywords))
        made[-1].start()
        return made[-1]

    yield make
    for running in made:
        running.stop()


@pytest.fixture(scope="session", autouse=True)
def working_directory() -> None:
    """Paths in tests are relative to the checkout."""
    os.chdir(ROOT)
