"""Train every architecture that the makers of tiny models know, reload it by transformers alone, and write docs/coverage.md.

    python -m benchmarks.coverage                                     # all tasks, all architectures; goes on where it stopped
    python -m benchmarks.coverage --task text-classification --only mamba longt5
    python -m benchmarks.coverage --sample 60                         # so many architectures of a task, drawn at random
    python -m benchmarks.coverage --page-only                         # docs/coverage.md, and the data of `hubtune models`

Tiny models are made by `zoo.py`, which is not a part of this repository: --zoo FOLDER says where it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.coverage import extractors, image_processors, listing, page, trial
from benchmarks.coverage.rows import MAPPINGS, TASKS

REPO = Path(__file__).resolve().parents[2]
STRATEGIES = ("full", "lora")
CHUNK = 12
"""Trials whose models are reloaded together, in one process without hubtune."""
LIMIT = 150
"""Seconds of a trial."""
FITTED = {"audio-classification": extractors.fitted, "image-classification": image_processors.fitted}
"""Corrections of what zoo.py writes beside a model, by the task."""


def main() -> int:
    """Try what is asked for, and write the page."""
    given = asked()
    if not given.page_only:
        sys.path.insert(0, str(given.zoo))
        for name in ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
            os.environ.setdefault(name, {"HF_HUB_OFFLINE": "1"}.get(name, "false"))
        with tempfile.TemporaryDirectory() as scratch:
            for task in given.task:
                try_all(task, given, Path(scratch))
    if given.page or given.page_only:
        import transformers

        place, lines = given.page or REPO / "docs" / "coverage.md", read(given.out)
        drawn = f". {given.drawn}" if given.drawn else ""
        for path, text in ((place, page.render(lines, drawn, transformers.__version__)),
                           (listing.DATA, listing.render(lines, transformers.__version__))):
            path.write_text(text, encoding="utf-8")
            print(f"written: {path}")
    return 0


def asked() -> argparse.Namespace:
    """Return what the user wants."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--only", nargs="+", default=[], help="architectures, by model type")
    parser.add_argument("--sample", type=int, help="so many architectures of each task, drawn at random")
    parser.add_argument("--limit", type=int, help="at most so many that were not tried before")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--zoo", type=Path, default=REPO.parent / "shared" / "zoo", help="the folder of zoo.py")
    parser.add_argument("--made", type=Path, help="a folder of models that zoo.py made before")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results" / "coverage.jsonl")
    parser.add_argument("--again", action="store_true", help="try again what was not passed before")
    parser.add_argument("--page", type=Path, default=None, help="docs/coverage.md; the data of `hubtune models` is written with it")
    parser.add_argument("--drawn", help="for the page: how architectures were chosen, where not all were tried")
    parser.add_argument("--page-only", action="store_true")
    return parser.parse_args()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the newest result of every trial."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({(line["task"], line["strategy"], line["model_type"]): line for line in lines}.values())


def try_all(task: str, given: argparse.Namespace, scratch: Path) -> None:
    """Try a task on the architectures that were not tried before."""
    import zoo

    names = architectures(task, zoo)
    if given.sample:
        names = random.Random(0).sample(names, given.sample)
    names = [name for name in given.only or names if name in zoo.ALL_TYPES]
    done = {(line["strategy"], line["model_type"]) for line in read(given.out)
            if line["task"] == task and not (given.again and line["state"] != "passed")}
    wanted = [(name, strategy) for name in names for strategy in given.strategies if (strategy, name) not in done]
    wanted = wanted[: given.limit]
    for start in range(0, len(wanted), CHUNK):
        chunk = [(name, strategy, alone(task, name, strategy, given.made, scratch)) for name, strategy in wanted[start: start + CHUNK]]
        with given.out.open("a", encoding="utf-8") as file:
            for line in reloaded(task, chunk, scratch):
                file.write(json.dumps(line) + "\n")
                print(f"{line['state']:8} {task} {line['strategy']} {line['model_type']} {line.get('reason') or ''}"[:240], flush=True)
        for name, strategy, _ in chunk:
            shutil.rmtree(scratch / f"{name}-{strategy}", ignore_errors=True)
            shutil.rmtree(scratch / name, ignore_errors=True)


def architectures(task: str, zoo: Any) -> list[str]:
    """Return the architectures that a task is tried on."""
    from transformers.models.auto import modeling_auto

    known = getattr(modeling_auto, MAPPINGS[task]) if task in MAPPINGS else zoo.ALL_TYPES
    return [name for name in zoo.ALL_TYPES if name in known and zoo.modality(name) in TASKS[task][0]]


def alone(task: str, name: str, strategy: str, made: Path | None, scratch: Path) -> dict[str, Any]:
    """Run a trial in a process of its own, within a limit of time."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender, task, name, strategy, made, scratch))
    process.start()
    sender.close()
    found: dict[str, Any] = {"state": "failed", "reason": f"no result within {LIMIT} seconds"}
    if receiver.poll(LIMIT):
        try:
            found = receiver.recv()
        except EOFError:
            found["reason"] = "its process died"
    process.kill()
    process.join()
    return found


def child(sender: Any, task: str, name: str, strategy: str, made: Path | None, scratch: Path) -> None:
    """Make a model unless it is there, try it, and send what happened."""
    import zoo

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        folder = made / name if made and (made / name / "config.json").is_file() else scratch / name
        if not (folder / "config.json").is_file():
            built = zoo.build(name, folder, check=False)
            if built["status"] != "ok":
                reason = f"zoo.py cannot make it: {built['stage']}: {built['error'][:150]}"
                sender.send({"state": "not built", "reason": " ".join(reason.split())})
                return
        if task in FITTED:
            folder = FITTED[task](folder, scratch)
        sender.send(trial.run(task, strategy, folder, scratch / f"{name}-{strategy}"))


def reloaded(task: str, chunk: list[tuple[str, str, dict[str, Any]]], scratch: Path) -> list[dict[str, Any]]:
    """Load the trained models in a process without hubtune, and compare outputs and answers; returns all results."""
    from hubtune.errors import ProofError
    from hubtune.evaluation import verification
    from hubtune.runs import publishing

    trained = [(name, strategy) for name, strategy, found in chunk if found["state"] == "trained"]
    saved = []
    for name, strategy in trained:
        folder = scratch / f"{name}-{strategy}"
        saved.append(publishing.saved_model(folder, publishing.read_raw(folder), None, folder / "model"))
    proofs = dict(zip(trained, verification.verify_models(saved) if saved else (), strict=True))
    lines = []
    for name, strategy, found in chunk:
        proof = proofs.get((name, strategy))
        if isinstance(proof, ProofError):
            found = {**found, "state": "failed", "reason": f"after reload: {proof.message}"}
        elif proof is not None:
            found = {**found, **verdict(found), "difference": proof["largest_difference"], "asked": bool(proof["asked"])}
        lines.append({"task": task, "strategy": strategy, "model_type": name, **found})
    return lines


def verdict(found: dict[str, Any]) -> dict[str, Any]:
    """Return whether a trained and reloaded model passed, or what is wrong with it."""
    wrong = [what for what, fine in {
        "the loss does not fall": found["falls"], "no gradient reaches the embedding": found["gradients"]["embedding"],
        "no gradient reaches the head": found["gradients"]["head"]}.items() if not fine]
    return {"state": "failed", "reason": "; ".join(wrong)} if wrong else {"state": "passed"}


if __name__ == "__main__":
    sys.exit(main())
