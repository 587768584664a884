"""Kill training, saving, sealing and publication at random moments, go on, and compare what comes out.

    python -m benchmarks.kills                      # 200 kills
    python -m benchmarks.kills --kills 40 --seed 1

A tiny model is trained in a process that gets SIGKILL at a random moment and is resumed, until it ends; its weights have to be
those of a training that nobody stopped. Then its publication to a Hub on loopback is killed and repeated in the same way, and
has to leave one commit. Processes are forked, so that imports take no time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measures import REPO

SETTINGS = {"train.epochs": 6.0, "train.early_stopping_patience": 0, "train.save_minutes": 0.001, "data.limit": 96}
STAGES = ("prepare", "train", "save", "seal", "publish")


def main() -> int:
    """Kill, and print the counts as JSON. 1: weights differ, or there is not one commit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        hub = subprocess.Popen([sys.executable, "-m", "hubtune.testing.hub", "--root", f"{place}/hub"],
                               stdout=subprocess.PIPE, text=True)
        try:
            assert hub.stdout is not None
            for line in (hub.stdout.readline() for _ in range(3)):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                os.environ[name] = value
            os.environ["HF_HOME"] = f"{place}/home"
            found = trials(Path(place), given.kills, random.Random(given.seed))
        finally:
            hub.terminate()
            hub.wait()
    print(json.dumps(found, indent=2))
    return 1 if found["other weights"] or found["not one commit"] or found["errors"] else 0


def trials(place: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Train and publish with kills until there were enough of them."""
    import accelerate  # noqa: F401 - imported here, so that no forked process has to
    import datasets  # noqa: F401

    import hubtune
    from hubtune.runs import stages  # noqa: F401
    from hubtune.testing import models

    base = place / "base"
    timed(lambda: models.tiny_model("bert", base))  # in a process of its own: threads do not survive a fork
    data = REPO / "examples" / "reviews.csv"

    def train(out: Path) -> None:
        hubtune.train("sentiment", model=base, data=data, set=SETTINGS, out=out)

    def go_on(out: Path) -> None:
        if not (out / "run.json").exists():
            train(out)
        elif json.loads((out / "run.json").read_text(encoding="utf-8"))["state"] == "started":  # else killed after it was sealed
            hubtune.resume(out)

    def publish(out: Path, repo: str) -> None:
        hubtune.Run(out).publish(repo)

    seconds = timed(lambda: train(place / "whole"))
    publishing = timed(lambda: publish(place / "whole", "whole"))
    wanted = (place / "whole" / "model" / "model.safetensors").read_bytes()
    found: dict[str, Any] = {"kills": Counter(), "runs": 0, "other weights": 0, "not one commit": 0, "errors": []}
    start = time.monotonic()
    while found["kills"].total() < kills:
        out, repo = place / f"run-{found['runs']}", f"run-{found['runs']}"
        found["runs"] += 1
        kill_until_done(lambda out=out: go_on(out), seconds, lambda since, out=out: stage(out, since), rng, found)  # type: ignore[misc]
        weights = out / "model" / "model.safetensors"
        found["other weights"] += not weights.is_file() or weights.read_bytes() != wanted
        kill_until_done(lambda out=out, repo=repo: publish(out, repo), publishing, lambda since: "publish", rng, found)  # type: ignore[misc]
        found["not one commit"] += commits(repo) != 1
        print(f"{time.monotonic() - start:5.0f} s  {dict(found['kills'])}", file=sys.stderr)
    return {**found, "seconds": round(time.monotonic() - start)}


def stage(out: Path, since: float) -> str:
    """Return what a run in training does, by the files that it wrote since a time of `time.time`."""
    def wrote(name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return (out / name).stat().st_mtime >= since
        return False

    if not (out / "run.json").is_file():
        return "prepare"
    if wrote("model/README.md"):
        return "seal"  # run.json is being written, or checkpoints are being deleted
    if wrote("proof.safetensors"):
        return "save"
    return "train"


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call in a process of its own."""
    start = time.monotonic()
    if code := ended(forked(call), None):
        raise AssertionError(f"it ended with {code}, without a kill")
    return time.monotonic() - start


def kill_until_done(
    call: Callable[[], object], seconds: float, stage: Callable[[float], str], rng: random.Random,
    found: dict[str, Any],
) -> None:
    """Repeat a call, killed at random moments, until it ends; count the kills by stage.

    Three of four kills in a training strike soon after a stage begins, which takes little of the
    time. Each repetition gets more time than the one before, so that it ends on a busy machine too.

    Args:
        seconds: that the call takes.
        stage: returns what the call does at the moment; it is given when the call began.
    """
    for attempt in itertools.count():
        began = time.time()
        wait, target = rng.uniform(0, 1.1 * seconds * (1 + attempt / 4)), None
        if stage(began) != "publish":
            target = rng.choice((None, "train", "save", "seal"))
            wait *= rng.choice((0.001, 0.01, 0.1)) if target else 1
        number = forked(call)
        code, struck = ended(number, wait, lambda began=began: stage(began), target), stage(began)  # type: ignore[misc]
        if code == 0:
            return
        if code != -signal.SIGKILL:
            found["errors"].append(code)
            return
        found["kills"][struck] += 1


def forked(call: Callable[[], object]) -> int:
    """Start a call in a forked process; return its id."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            call()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return number


def ended(
    number: int, after: float | None, stage: Callable[[], str] = str, target: str | None = None
) -> int:
    """Wait for a process, and kill it after some seconds; return its exit code, or minus the signal.

    target: the stage whose beginning the seconds are counted from.
    """
    start = time.monotonic()
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if target and STAGES.index(stage()) < STAGES.index(target):
            start = time.monotonic()
        if after is not None and time.monotonic() - start > after:
            os.kill(number, signal.SIGKILL)
            after = None
        time.sleep(0.002)


def commits(repo: str) -> int:
    """Return the number of commits of the model."""
    from huggingface_hub import HfApi

    history = HfApi().list_repo_commits(f"{HfApi().whoami()['name']}/{repo}")
    return sum(commit.title != "initial commit" for commit in history)


if __name__ == "__main__":
    sys.exit(main())
