"""Every command of the how-tos runs, in the order of its page, with a tiny model in place of each and two steps."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubtune.cli import commands

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted((REPO / "docs" / "how-to").glob("*.md"))
STAND_INS = {"sentence-transformers/all-MiniLM-L6-v2": "bert", "llava-hf/llava-interleave-qwen-0.5b-hf": "llava"}
"""Models of the pages, and the types of the tiny ones in their place."""
QUICK = ["--set", "train.max_steps=2", "--set", "train.verify=false"]
"""Added to trainings, for the suite's time."""


def steps(page: Path) -> list[tuple[list[str], list[str]]]:
    """The commands of a page, and of each the lines that the page shows below it."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((shlex.split(line[2:]), []))
            else:
                found[-1][1].append(line)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the rows of the how-tos, in which the commands run."""
    subprocess.run([sys.executable, str(REPO / "examples" / "make_rows.py"), str(tmp_path / "rows")], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Served:
    """`hubtune serve` in a thread of this process, on a port that is free in place of the page's."""

    def __init__(self) -> None:
        self.server: Any = None
        self.thread: threading.Thread | None = None

    def start(self, arguments: list[str]) -> None:
        self.thread = threading.Thread(target=commands.main, args=(["serve", *arguments, "--port", "0"],), daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 60
        while self.server is None or not self.server.started:
            assert time.monotonic() < deadline
            assert self.thread.is_alive()
            time.sleep(0.01)

    @property
    def port(self) -> int:
        return int(self.server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    uvicorn, found = pytest.importorskip("uvicorn"), Served()

    class Server(uvicorn.Server):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            found.server = self

    monkeypatch.setattr(uvicorn, "Server", Server)
    yield found
    if found.thread is not None:
        found.server.should_exit = True
        found.thread.join(20)


def asked(served: Served, address: str, *arguments: str) -> str:
    """What `curl ADDRESS -H HEADER -d BODY` prints."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    name, _, value = options.get("-H", "Accept: */*").partition(": ")
    body = options["-d"].encode() if "-d" in options else None
    request = urllib.request.Request(address.replace(":8000", f":{served.port}"), body, {name: value})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(
    page: Path, place: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str], served: Served
) -> None:
    given = steps(page)
    assert len(given) >= 3
    for (program, command, *arguments), shown in given:
        if program == "curl":
            assert [line for line in shown if line not in asked(served, command, *arguments)] == []
            continue
        assert program == "hubtune"
        if command == "serve" and "--space" not in arguments:
            served.start(arguments)
            continue
        arguments = [str(tiny_model(STAND_INS[argument])) if argument in STAND_INS else argument for argument in arguments]
        status = commands.main([command, *arguments, *(QUICK if command == "train" else [])])
        captured = capsys.readouterr()
        is_refused = any(line.startswith("error") for line in shown)
        assert status == int(is_refused), f"{page.name}: {command} {arguments}\n{captured.out}{captured.err}"
        assert [line for line in shown if line not in captured.out + captured.err] == []


def test_the_pages_are_listed_and_the_first_command_makes_the_rows() -> None:
    listed = (REPO / "docs" / "how-to" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", listed)) == {page.name for page in PAGES} - {"README.md"}
    assert steps(REPO / "docs" / "how-to" / "README.md") == [(["python", "examples/make_rows.py", "rows"], [])]


def test_the_rows_are_what_the_pages_say(place: Path) -> None:
    import csv

    def labels(name: str) -> list[str]:
        with (place / "rows" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return [row["label"] for row in csv.DictReader(file)]

    assert {label: labels("few").count(label) for label in set(labels("few"))} == {"positive": 16, "negative": 16, "neutral": 16}
    assert (len(labels("rest")), len(labels("many")), len(set(labels("many")))) == (432, 720, 30)
    assert labels("rare").count("urgent") * 20 == len(labels("rare"))


