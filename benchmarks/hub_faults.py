"""Inject faults into requests to a Hub on loopback, and count what they break.

    python -m benchmarks.hub_faults      # 300 faults over pull, publish, publish again and pull request, by Xet and by LFS
    python -m benchmarks.hub_faults --faults 60 --seed 1 --json

Each fault hits a request drawn from those that the operation makes: an answer of 429, 500, 502, 503 or 504, or a cut connection,
once to three times or until the operation ends, before the request is carried out or after; of downloads, damaged bytes too. An
operation that failed is repeated without a fault. By LFS, one file is sent whole and one in parts. Waits between attempts are
shortened.
"""

from __future__ import annotations

import argparse
import itertools
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
ALONE, BLOCK, UNMET = "rode it out", "one block", "no request was hit"
OPERATIONS = ("pull", "publish", "publish again", "pull request")
MODES = ("Xet", "LFS")
BROKEN = ("lost", "double", "main is bad", "foreign traceback", "no next command")
UNNEEDED = ("/api/agent-harnesses", "/v1/telemetry")
"""Paths of requests that the clients make aside, whose answers they do not use."""
PARTS_ABOVE = 100_000
"""Bytes from which on a file is sent in parts by LFS."""


@dataclass
class Trial:
    """One fault: of which request of which operation, and what came of it."""

    operation: str
    mode: str
    request: str
    status: int | None
    times: int | None
    after: bool
    corrupts: bool
    outcome: str = ""
    message: str = ""
    broken: list[str] = field(default_factory=list)


def main() -> int:
    """Inject the faults, and print a table of what came of them. 1: something was lost, doubled or left bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each fault instead")
    given = parser.parse_args()
    with LoopbackHub(user="me", xet=True, multipart_above=PARTS_ABOVE) as hub, tempfile.TemporaryDirectory() as place:
        # The clients read it when they are imported; Xet's waits by itself.
        os.environ |= hub.env() | {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"}
        shorten_waits()
        trials = Trials(hub, Path(place), random.Random(given.seed))
        start = time.monotonic()
        found = [trials.run(number) for number in range(given.faults)]
    print("\n".join(json.dumps(vars(trial)) for trial in found) if given.json else table(found))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    broken = [trial for trial in found if trial.broken]
    for trial in broken:
        print(json.dumps(vars(trial)), file=sys.stderr)
    return 1 if broken else 0


def table(found: list[Trial]) -> str:
    """Return a Markdown table of what came of the faults, by operation and mode."""
    lines = [" | ".join(("| operation", "mode", "injected", "of these, until the end", ALONE, f"{BLOCK}, then the same command", UNMET, *BROKEN)) + " |",
             "|---" * (7 + len(BROKEN)) + "|"]
    for operation, mode in [*itertools.product(OPERATIONS, MODES), ("all", "")]:
        mine = [trial for trial in found if (trial.operation, trial.mode) == (operation, mode) or operation == "all"]
        counts = [sum(trial.outcome == outcome for trial in mine) for outcome in (ALONE, BLOCK, UNMET)]
        counts += [sum(any(one.startswith(kind) for one in trial.broken) for trial in mine) for kind in BROKEN]
        lines.append(f"| {operation} | {mode} | {len(mine)} | {sum(trial.times is None for trial in mine)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def shorten_waits() -> None:
    """Sleep a thousandth of what is asked for."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 1000)


class Trials:
    """Operations on repositories of their own, with a fault in each."""

    def __init__(self, hub: LoopbackHub, place: Path, rng: random.Random) -> None:
        self.hub, self.place, self.rng = hub, place, rng
        self.old, self.new = (self.files(name) for name in ("old", "new"))
        self.requests = {(operation, mode): self.requests_of(operation, mode)
                         for operation, mode in itertools.product(OPERATIONS, MODES)}

    def files(self, name: str) -> Path:
        """Write the small files of a folder to publish."""
        folder = self.place / name
        folder.mkdir()
        (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# {name}\n", encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"name": name}), encoding="utf-8")
        return folder

    def requests_of(self, operation: str, mode: str) -> list[tuple[str, str]]:
        """Return the method and the path pattern of every request that an undisturbed operation makes."""
        repo = f"me/clean-{OPERATIONS.index(operation)}-{mode.lower()}"
        call = self.operation(operation, mode, repo)
        before = len(self.hub.requests)
        call()
        made = [(one.method, one.path) for one in self.hub.requests[before:] if not one.path.startswith(UNNEEDED)]
        return sorted({(method, self.pattern(path, repo)) for method, path in made})

    @staticmethod
    def pattern(path: str, repo: str) -> str:
        """Return a pattern of a request's path, whatever the repository, commit, blob and storage ticket."""
        path = re.escape(path).replace(re.escape(repo.split("/")[1]), r"[\w-]+")
        path = re.sub(r"load\\-[\w\\-]+", r"load-[\\w-]+", path)
        return re.sub(r"[0-9a-f]{40,}", "[0-9a-f]{40,}", path) + "$"

    def operation(self, operation: str, mode: str, repo: str) -> Callable[[], Any]:
        """Prepare the repository of an operation; return the operation."""
        from huggingface_hub import HfApi, constants

        from hubtune import hub

        constants.HF_HUB_DISABLE_XET = mode != "Xet"
        for folder in (self.old, self.new):  # content that the Hub does not have yet
            (folder / "model.safetensors").write_bytes(f"{folder.name} {repo} ".encode() * 10_000)
            (folder / "tokenizer.model").write_bytes(f"tokenizer of {folder.name} {repo} ".encode() * 1_000)
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
        for file in self.new.iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes(), "other bytes"

    def run(self, number: int) -> Trial:
        """Run an operation with a fault, and again without one if it failed; look at what is there then."""
        from hubtune.errors import HubtuneError

        operation, mode = list(itertools.product(OPERATIONS, MODES))[number % (len(OPERATIONS) * len(MODES))]
        method, path = self.rng.choice(self.requests[operation, mode])
        corrupts = operation == "pull" and method == "GET" and re.search("resolve|/xorbs/|storage", path) and self.rng.random() < 0.3
        trial = Trial(operation, mode, f"{method} {path}", self.rng.choice(STATUSES), self.rng.choice((1, 1, 2, 3, None)),
                      self.rng.random() < 0.5, bool(corrupts))
        repo = f"me/trial-{number}"
        call = self.operation(operation, mode, repo)
        if corrupts:
            self.hub.corrupt_next(path, times=trial.times)
        else:
            self.hub.fail_next(method, path, status=trial.status, times=trial.times, after=trial.after)
        before = len(self.hub.requests)
        try:
            call()
            met = corrupts or any(one.status == (trial.status or 0) for one in self.hub.requests[before:])
            trial.outcome = ALONE if met else UNMET
        except HubtuneError as error:
            trial.outcome, trial.message = BLOCK, f"{type(error).__name__}: {error}"
            if not error.hint:
                trial.broken.append("no next command")
        except Exception as error:
            trial.outcome = "foreign"
            trial.broken.append(f"foreign traceback: {type(error).__name__}: {error}"[:300])
        finished = trial.outcome in (ALONE, UNMET)
        self.look(trial, repo, finished)
        self.hub.heal()
        if not finished:
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
