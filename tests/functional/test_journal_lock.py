"""One process per data directory."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.journal.lock import DataDirectoryLocked, DirectoryLock

HOLDER = """
import sys, time
from pathlib import Path
from ingest.journal.lock import DirectoryLock
DirectoryLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        lock = DirectoryLock(data)
        with pytest.raises(DataDirectoryLocked) as refused:
            lock.acquire()
        assert f"process {holder.pid};" in str(refused.value)
        assert str(data) in str(refused.value)
        lock.release()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    lock.acquire()
    lock.release()


def test_a_lock_given_back_can_be_taken_again(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(DataDirectoryLocked):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_file_in_the_data_directorys_place_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError) as caught:
        DirectoryLock(tmp_path / "data").acquire()
    assert caught.value.filename == str(tmp_path / "data")
