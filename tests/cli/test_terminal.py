"""The process around a command: signals end it with a word and their exit code, whatever the streams can show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

import hubtune
from hubtune.cli import commands


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_a_word_and_its_exit_code(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(hubtune, "search", lambda *given, **named: os.kill(os.getpid(), number), raising=False)
    assert commands.main(["search", "anything"]) == 128 + number
    assert capsys.readouterr().err == f"stopped by {signal.Signals(number).name}\n"
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*given: Any, **named: Any) -> list[Any]:
        os.kill(os.getpid(), signal.SIGHUP)
        return []

    monkeypatch.setattr(hubtune, "search", search, raising=False)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert commands.main(["search", "anything", "--json"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_characters_that_the_terminal_lacks_are_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hubtune", "train", "sentiment", "--model", "m", "--data", "données.csv", "--json"],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert rb"donn\xe9es.csv" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$0" -m hubtune tasks {closed}', sys.executable], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
