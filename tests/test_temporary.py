"""Temporary folders go with the process that made them: at its end, or, where it was killed, when somebody next needs one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubtune import temporary
from hubtune.devices import host_lock

pytestmark = pytest.mark.skipif(temporary.fcntl is None, reason="a lock of this kind is not known to this system")
HOLDING = """
import sys
from hubtune.data.example_store import ExampleStore
store = ExampleStore(memory_limit=0)
store.extend([{"input_ids": [1, 2, 3]}])
store.close()
print(store.scratch.path, flush=True)
sys.stdin.read()
"""
LEADING = """
import sys
from hubtune.devices import host_lock
with host_lock.prepare_shared() as place:
    print(place, flush=True)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory for the test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes, which end with the test."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def start(script: str, running: list[subprocess.Popen[str]]) -> Path:
    """The folder that a process uses until it is killed, or has nothing more to read."""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    running.append(process)
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_folders_of_killed_processes_are_swept_and_locked_ones_stay(started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    stays, left = start(HOLDING, started), start(HOLDING, started)
    started[1].send_signal(signal.SIGKILL)
    started[1].wait()
    others = tmp_path / "hubtune-tests-1", tmp_path / "other"
    for folder in others:
        folder.mkdir()
    assert (left / "0.arrow").stat().st_size
    with temporary.Folder() as new:
        assert not left.exists()
        assert (stays / "0.arrow").stat().st_size
        assert all(folder.is_dir() for folder in (*others, new))
    assert not new.exists()
    started[0].communicate("")
    assert started[0].returncode == 0
    assert not stays.exists()  # it ended by itself, and took its folder along


def test_what_is_handed_over_stays_as_long_as_the_first_process_does(started: list[subprocess.Popen[str]]) -> None:
    """Its other lock, which says that it is still at work, is let go before the others have opened what it made."""
    place = start(LEADING, started)
    assert started[0].stdout is not None
    assert started[0].stdout.readline() == "done\n"
    temporary.sweep()
    assert (place / host_lock.DONE).exists()
    follower = temporary.hold(place)
    started[0].kill()
    started[0].wait()
    temporary.sweep()
    assert (place / host_lock.DONE).exists()  # one of the others reads it
    temporary.release(follower)
    temporary.sweep()
    assert not place.exists()


def test_a_folder_that_is_swept_before_it_is_locked_is_created_again(tmp_path: Path) -> None:
    tries = []

    def make() -> Path:
        tries.append(Path(tempfile.mkdtemp(prefix=temporary.PREFIX)))
        if len(tries) == 1:
            temporary.sweep()
        return tries[-1]

    path, held = temporary.create(make)
    assert path == tries[1]
    assert path.is_dir()
    temporary.delete(path, held)


def test_many_who_make_folders_at_once_do_not_sweep_each_others() -> None:
    def work() -> None:
        for _ in range(50):
            with temporary.Folder() as place:
                (place / "file").write_bytes(b"x")
                seen.append((place / "file").exists())

    seen: list[bool] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 200


def test_links_and_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / f"{temporary.PREFIX}link").symlink_to(tmp_path / "precious")
    (tmp_path / f"{temporary.PREFIX}file").touch()
    temporary.sweep()
    assert (tmp_path / "precious").is_dir()
    assert (tmp_path / f"{temporary.PREFIX}file").exists()
    if os.getuid() == 0:
        theirs = tmp_path / f"{temporary.PREFIX}theirs"
        theirs.mkdir()
        os.chown(theirs, 12345, 12345)
        temporary.sweep()
        assert theirs.is_dir()
