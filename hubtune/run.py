"""From a recipe to a published model: the pipeline, one call a stage, and the folder that it leaves."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import card, device, engine, evaluate, hub, models, preparation, proof, recipe, registry
from hubtune.contract import CONTRACT
from hubtune.engine import Outcome, Work
from hubtune.errors import RecipeError, ResumeError
from hubtune.fingerprint import sha256_of
from hubtune.loaded import RECORD, Model
from hubtune.origin import in_folder
from hubtune.preparation import Prepared
from hubtune.recipe import Chosen, Recipe
from hubtune.watch import Watcher

if TYPE_CHECKING:
    from torch.nn import Module

PACKAGES = ("hubtune", "torch", "transformers", "accelerate", "huggingface-hub", "datasets", "peft", "safetensors")


def train(made: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
          watcher: Watcher | None = None) -> Run:
    """Train as the recipe says, prove the saved model, and push it where the recipe says so."""
    folder = new_folder(made, out, overwrite)
    prepared = preparation.prepare(made, watcher or Watcher(), source)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(made.as_toml(), encoding="utf-8")
    record = {
        "name": folder.resolve().name, "state": "started", "contract": CONTRACT,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(), **prepared.described(), "compute": device.choose(prepared.settings.precision).as_dict(),
    }
    write_record(folder, record)
    return finish(folder, prepared, record, watcher or Watcher(), resume=False)


def resume(folder: str | Path, *, source: Any = None, watcher: Watcher | None = None) -> Run:
    """Go on with a run that stopped, with the pins and the plan that it began with."""
    folder = Path(folder)
    record = read_record(folder)
    if record["state"] != "started":
        raise ResumeError(f"'{folder}' is already {record['state']}.", hint=f"Use it with: hubtune predict {folder} TEXT")
    made = recipe.build(record["recipe"])
    prepared = preparation.prepare(made, watcher or Watcher(), source, before=record)
    return finish(folder, prepared, record, watcher or Watcher(), resume=True)


def check(made: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
          watcher: Watcher | None = None) -> dict[str, Any]:
    """Everything that `train` does before it fetches weights; returns what would happen."""
    new_folder(made, out, overwrite, look_only=True)
    described = preparation.prepare(made, watcher or Watcher(), source).described()
    return {**described, "would": "train"}


def finish(folder: Path, prepared: Prepared, record: dict[str, Any], watcher: Watcher, *, resume: bool) -> Run:
    """Train, score, save, prove, and push."""
    compute = device.Compute(**record["compute"])
    if compute.threads:
        import torch

        torch.set_num_threads(compute.threads)
    loaded = models.load(prepared.origin, prepared.base, prepared.task, prepared.strategy, prepared.settings.seed)
    if not resume:
        compute = dataclasses.replace(compute, uniform=evaluate.padding_matters(
            loaded.model, prepared.task, prepared.base, prepared.encoded["train"]))
        record["compute"] = compute.as_dict()
        if compute.uniform:
            watcher.warn("this model's answers change with padding, so only rows of one length meet in a batch.")
        write_record(folder, record)
    outcome = engine.fit(Work(
        prepared.task, prepared.strategy, prepared.base, loaded.model, loaded.fresh, prepared.encoded["train"],
        prepared.encoded["validation"], prepared.data.splits["validation"], prepared.settings, compute, folder, resume,
    ), watcher)
    record |= {
        "steps": outcome.steps, "epochs": round(outcome.epochs, 4), "best_step": outcome.best_step,
        "stopped_early": outcome.early, "seconds": round(outcome.seconds, 3),
        "parameters": {"total": prepared.parameters, "trainable": outcome.trainable},
        **scored(prepared, outcome.model, compute, watcher),
    }
    record |= saved_and_proven(folder, prepared, outcome, record, compute, watcher)
    record["peak_memory_bytes"] = device.peak_memory(compute.device)
    record["state"] = "trained"
    write_record(folder, record)
    (folder / "model" / "README.md").write_text(card.render(record), encoding="utf-8")
    run = Run(folder)
    part = prepared.recipe.publish
    if part.repo:
        run.publish(part.repo, public=part.public, pr=part.pr, watcher=watcher)
    return run


def scored(prepared: Prepared, model: Module, compute: device.Compute, watcher: Watcher) -> dict[str, Any]:
    """Metrics, intervals and reports on every split but train."""
    task, base = prepared.task, prepared.base
    found: dict[str, dict[str, Any]] = {"metrics": {}, "intervals": {}, "reports": {}}
    for split, encoded in prepared.encoded.items():
        if split == "train":
            continue
        watcher.begin(f"evaluating {split}", len(encoded.examples))
        listed = list(prepared.data.splits[split])
        answers = evaluate.answer(model, task, base, listed, encoded, advance=watcher.advance, uniform=compute.uniform)
        watcher.end()
        found["metrics"][split] = task.score(answers.predictions, listed, base)
        found["intervals"][split] = evaluate.intervals(task, answers.predictions, listed, base)
        found["reports"][split] = task.report(answers.predictions, listed, base)
    return found


def saved_and_proven(
    folder: Path, prepared: Prepared, outcome: Outcome, record: Mapping[str, Any], compute: device.Compute,
    watcher: Watcher,
) -> dict[str, Any]:
    """Write the plain model for the Hub, and compare it in a fresh process with the one that was trained."""
    seen = proof.witness(outcome.model, prepared.task, prepared.base, prepared.encoded["validation"],
                         folder / "proof.safetensors", compute.uniform)
    export = prepared.strategy.export(outcome.model)
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    models.save(export.root, prepared.base, place, export.beside, prepared.origin)
    (place / RECORD).write_text(json.dumps({
        "hubtune": version("hubtune"), "contract": CONTRACT,
        "task": {"name": prepared.task.name, "options": dict(prepared.recipe.task.options)},
        "strategy": {"name": prepared.strategy.name, "options": dict(prepared.recipe.strategy.options)},
        "facts": record["facts"], "columns": record["data"]["columns"],
        "max_length": prepared.settings.max_length,
    }, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    watcher.note("proving: the saved model, in a fresh process without hubtune")
    return {
        "proof": proof.check(place, prepared.task.model, seen), "loads_with": export.loads_with,
        "base_model_relation": "finetune" if export.loads_with == "transformers" else "adapter",
    }


class Run(Model):
    """A finished run: its figures, its model, and the way to the Hub."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_record(self.folder)
        if self.record["state"] == "started":
            raise ResumeError(f"'{folder}' was not finished.", hint=f"Go on with: hubtune train --resume {folder}")
        origin = in_folder(self.folder / "model")
        said = json.loads((self.folder / "model" / RECORD).read_text(encoding="utf-8"))
        task = registry.load().task(Chosen(said["task"]["name"], said["task"]["options"]))
        super().__init__(origin, said, task, str(folder))

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the test rows; on the validation rows where there are none."""
        found: dict[str, dict[str, float]] = self.record["metrics"]
        return found.get("test") or found["validation"]

    def publish(
        self, repo: str, *, public: bool = False, pr: bool = False, dry_run: bool = False,
        watcher: Watcher | None = None,
    ) -> dict[str, Any]:
        """Push the model as one commit, and prove what the Hub gives back. `dry_run`: only say what would go."""
        watcher = watcher or Watcher()
        repo = hub.check_push(repo, pr) if not dry_run else repo
        with tempfile.TemporaryDirectory() as temporary:
            stage = Path(temporary) / "stage"
            self._stage(stage, repo)
            files = [
                {"path": str(p.relative_to(stage)), "size": p.stat().st_size, "sha256": sha256_of(p)}
                for p in sorted(stage.rglob("*")) if p.is_file()
            ]
            if card.license_of(self.record) is None:
                watcher.warn("the base model's licence is not known, so the card names none: set publish.license.")
            if dry_run:
                return {"repo": repo, "commit": None, "parent": None, "url": None, "pr": None, "dry_run": True, "files": files}
            watcher.note(f"publishing {len(files)} files to {repo}")
            pushed = hub.push(stage, repo, message=f"{self.record['task']['name']} with hubtune", public=public, pr=pr)
            watcher.note("proving: the model as the Hub gives it back")
            back = hub.fetch_into(Path(temporary) / "back", pushed.repo, pushed.commit)
            witness = proof.Witness(self.folder / "proof.safetensors", self.record["proof"]["examples"])
            again = proof.check(back, self.record["task"]["model"], witness)
        done = {"repo": pushed.repo, "commit": pushed.commit, "parent": pushed.parent, "url": pushed.url, "pr": pushed.pr}
        self.record |= {"published": {**done, "proof": again}, "state": "published"}
        write_record(self.folder, self.record)
        return {**done, "dry_run": False, "files": files}

    def _stage(self, stage: Path, repo: str) -> None:
        """The files that go to the Hub, with the card under its final name."""
        for path in (self.folder / "model").rglob("*"):
            if path.is_file() and path.name != "README.md":
                place = stage / path.relative_to(self.folder / "model")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path.resolve())
        (stage / "README.md").write_text(card.render(self.record, repo), encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """What `hubtune train --json` prints."""
        record = self.record
        published = record.get("published")
        return {
            "run": str(self.folder), "model": str(self.folder / "model"), "task": record["task"]["name"],
            "strategy": record["strategy"]["name"],
            "base": {"repo": record["base"]["repo"], "commit": record["base"]["commit"]},
            "rows": record["data"]["rows"], "steps": record["steps"], "epochs": record["epochs"],
            "metrics": record["metrics"], "precision": record["compute"]["precision"], "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"], "parameters": record["parameters"],
            "published": {k: published[k] for k in ("repo", "commit", "url", "pr")} if published else None,
        }


def new_folder(made: Recipe, out: str | Path | None, overwrite: bool, look_only: bool = False) -> Path:
    """Where a run goes. A folder with something in it is refused, or emptied if it is a run and the user says so."""
    if out is None:
        name = f"{made.task.name}-{made.model.partition('@')[0].rstrip('/').split('/')[-1]}-{made.strategy.name}"
        number = next(n for n in range(1, 10**6) if not Path("runs", f"{name}-{n}").exists())
        return Path("runs", f"{name}-{number}")
    folder = Path(out)
    if folder.is_file():
        raise RecipeError(f"'{out}' is a file; --out names a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    is_run = (folder / "run.json").is_file()
    if not overwrite:
        unfinished = is_run and read_record(folder)["state"] == "started"
        raise RecipeError(
            f"the folder '{out}' is not empty" + (": it holds a run that stopped." if unfinished else "."),
            hint=f"Go on with it: hubtune train --resume {out}\nReplace it: the same command with --overwrite\n"
            "Or choose another --out.",
        )
    if not is_run:
        raise RecipeError(f"'{out}' is no run, so --overwrite does not delete it.", hint="Choose another --out.")
    if not look_only:
        shutil.rmtree(folder)
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """The contents of a run's `run.json`."""
    path = Path(folder) / "run.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ResumeError(f"'{folder}' is no run: it has no run.json.", hint="Runs are made by: hubtune train") from None
    except ValueError:
        raise ResumeError("it cannot be read as JSON.", where=str(path), hint="Train anew with --overwrite.") from None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json` whole or not at all."""
    aside = folder / f".run.json.{os.getpid()}"
    aside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(folder / "run.json")


def versions() -> dict[str, str]:
    """The packages that a result depends on."""
    from importlib.metadata import PackageNotFoundError

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
