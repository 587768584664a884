"""Inject faults into requests to a Hub on loopback, and count what they break.

    python -m benchmarks.hub_faults                     # 300 faults over pull, publish, publish again and pull request
    python -m benchmarks.hub_faults --faults 60 --seed 1

Each fault hits a request drawn from those that the operation makes: an answer of 429, 500, 502, 503 or 504, or a cut connection,
once to three times, before the request is carried out or after; of downloads, damaged bytes too. An operation that failed is
repeated without a fault. Waits between attempts are shortened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune.testing.hub import LoopbackHub

STATUSES = (429, 500, 502, 503, 504, None)
FINISHED = ("rode it out", "no request was hit")
OPERATIONS = ("pull", "publish", "publish again", "pull request")


@dataclass
class Trial:
    """One fault: of which request of which operation, and what came of it."""

    operation: str
    request: str
    status: int | None
    times: int
    after: bool
    corrupts: bool
    outcome: str = ""
    broken: list[str] = field(default_factory=list)


def main() -> int:
    """Inject the faults, and print the counts as JSON. 1: something was lost, doubled or left bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with LoopbackHub(user="me") as hub, tempfile.TemporaryDirectory() as place:
        os.environ |= hub.env()  # the client reads it when it is imported
        shorten_waits()
        trials = Trials(hub, Path(place), random.Random(given.seed))
        start = time.monotonic()
        found = [trials.run(number) for number in range(given.faults)]
    broken = [trial for trial in found if trial.broken]
    print(json.dumps({
        "faults": len(found), "seconds": round(time.monotonic() - start), "operations": Counter(trial.operation for trial in found),
        "outcomes": Counter(trial.outcome for trial in found), "broken": [vars(trial) for trial in broken]}, indent=2))
    return 1 if broken else 0


def shorten_waits() -> None:
    """Sleep a thousandth of what is asked for."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 1000)


class Trials:
    """Operations on repositories of their own, with a fault in each."""

    def __init__(self, hub: LoopbackHub, place: Path, rng: random.Random) -> None:
        self.hub, self.place, self.rng = hub, place, rng
        self.old, self.new = (self.files(name) for name in ("old", "new"))
        self.requests = {operation: self.requests_of(operation) for operation in OPERATIONS}

    def files(self, name: str) -> Path:
        """Write the small files of a folder to publish."""
        folder = self.place / name
        folder.mkdir()
        (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# {name}\n", encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"name": name}), encoding="utf-8")
        return folder

    def requests_of(self, operation: str) -> list[tuple[str, str]]:
        """Return the method and the path pattern of every request that an undisturbed operation makes."""
        repo = f"me/clean-{OPERATIONS.index(operation)}"
        call = self.operation(operation, repo)
        before = len(self.hub.requests)
        call()
        made = [(one.method, one.path) for one in self.hub.requests[before:]]
        return list(dict.fromkeys((method, self.pattern(path, repo)) for method, path in made))

    @staticmethod
    def pattern(path: str, repo: str) -> str:
        """Return a pattern of a request's path, whatever the repository, commit, blob and storage ticket."""
        path = re.escape(path).replace(re.escape(repo.split("/")[1]), r"[\w-]+")
        path = re.sub(r"load\\-[\w\\-]+", r"load-[\\w-]+", path)
        return re.sub(r"[0-9a-f]{40,}", "[0-9a-f]{40,}", path) + "$"

    def operation(self, operation: str, repo: str) -> Callable[[], Any]:
        """Prepare the repository of an operation; return the operation."""
        from huggingface_hub import HfApi

        from hubtune import hub

        for folder in (self.old, self.new):  # content that the Hub does not have yet
            (folder / "model.safetensors").write_bytes(f"{folder.name} {repo} ".encode() * 10_000)
        if operation == "pull":
            HfApi().create_repo(repo)
            HfApi().upload_folder(repo_id=repo, folder_path=str(self.new))
            return lambda: self.pull(repo)
        if operation in ("publish again", "pull request"):
            hub.push(self.old, repo, message="Old")
        return lambda: hub.push(self.new, repo, message="New", pr=operation == "pull request")

    def pull(self, repo: str) -> None:
        """Download a repository that is not in the cache."""
        from huggingface_hub import constants

        from hubtune import hub

        shutil.rmtree(Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}"), ignore_errors=True)
        folder = hub.download(hub.resolve(repo), ["*"])
        assert (folder / "model.safetensors").read_bytes() == (self.new / "model.safetensors").read_bytes(), "other bytes"

    def run(self, number: int) -> Trial:
        """Run an operation with a fault, and again without one if it failed; look at what is there then."""
        from hubtune.errors import HubtuneError

        operation = OPERATIONS[number % len(OPERATIONS)]
        method, path = self.rng.choice(self.requests[operation])
        corrupts = operation == "pull" and "resolve" in path and self.rng.random() < 0.3
        trial = Trial(operation, f"{method} {path}", self.rng.choice(STATUSES), self.rng.choice((1, 1, 2, 3)),
                      self.rng.random() < 0.5, corrupts)
        repo = f"me/trial-{number}"
        call = self.operation(operation, repo)
        if corrupts:
            self.hub.corrupt_next(path, times=trial.times)
        else:
            self.hub.fail_next(method, path, status=trial.status, times=trial.times, after=trial.after)
        before = len(self.hub.requests)
        try:
            call()
            met = corrupts or any(one.status == (trial.status or 0) for one in self.hub.requests[before:])
            trial.outcome = "rode it out" if met else "no request was hit"
        except HubtuneError as error:
            trial.outcome = f"one block: {type(error).__name__}"
        except Exception as error:
            trial.outcome = "foreign error"
            trial.broken.append(f"{type(error).__name__}: {error}"[:300])
        self.look(trial, repo, finished=trial.outcome in FINISHED)
        self.hub.heal()
        if trial.outcome not in FINISHED:
            try:
                call()
            except Exception as error:
                trial.broken.append(f"lost: again, {type(error).__name__}: {error}"[:300])
            self.look(trial, repo, finished=True)
        return trial

    def look(self, trial: Trial, repo: str, finished: bool) -> None:
        """Note what is doubled, missing or bad in the repository."""
        from huggingface_hub import HfApi

        if trial.operation == "pull":
            return
        self.hub.heal()
        if not HfApi().repo_exists(repo):
            if finished:
                trial.broken.append("lost: there is no repository")
            return
        titles = Counter(commit.title for commit in HfApi().list_repo_commits(repo))
        threads = [one for one in HfApi().get_repo_discussions(repo) if one.is_pull_request and one.title == "New"]
        pulled = trial.operation == "pull request"
        if titles["New"] > 1 or len(threads) > 1:
            trial.broken.append(f"double: {titles['New']} commits, {len(threads)} pull requests")
        if finished and ((len(threads) if pulled else titles["New"]) != 1):
            trial.broken.append("lost: nothing was published")
        on_main = "new" if titles["New"] else "old" if titles["Old"] else None
        if on_main:
            folder = Path(HfApi().snapshot_download(repo, local_dir=self.place / "look" / repo.replace("/", "-")))
            expected = self.new if on_main == "new" else self.old
            if any((folder / file.name).read_bytes() != file.read_bytes() for file in expected.iterdir()):
                trial.broken.append("main is bad")
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
