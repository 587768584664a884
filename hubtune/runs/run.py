"""From a recipe to a published model, one call a stage; and the finished run, with its figures and its model."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hubtune import guest, hub, recipe, temporary
from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, registry
from hubtune.devices import processes
from hubtune.errors import ProofError, ResumeError
from hubtune.files import sha256_of
from hubtune.hub import card
from hubtune.hub.origin import fetch, local_origin, read_run_record
from hubtune.recipe import PluginChoice, Recipe
from hubtune.record import new_folder, read_record, versions, write_record
from hubtune.runs import preparation, shared_preparation
from hubtune.runs.predictor import Model

if TYPE_CHECKING:
    from hubtune.evaluation import verification


def train(made: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
          callbacks: Callbacks | None = None) -> Run:
    """Train as the recipe says, prove the saved model, and push it where the recipe says so.

    Of several processes that a launcher started, the first returns the run; in the others it cannot be read.
    """
    if error := processes.nobody_to_share_with(made.train.fsdp):
        raise error
    if not processes.is_first():
        return followed(Path(out or "runs"), shared_preparation.prepare(made, Callbacks(), source), {}, resume=False)
    folder = new_folder(made, out, overwrite)
    prepared = shared_preparation.prepare(made, callbacks or Callbacks(), source)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(made.as_toml(), encoding="utf-8")
    record = {
        "name": folder.resolve().name, "state": "started", "contract": CONTRACT,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(), **prepared.described(),
    }
    write_record(folder, record)
    return finished(folder, prepared, record, callbacks or Callbacks(), resume=False)


def resume(folder: str | Path, *, source: Any = None, callbacks: Callbacks | None = None) -> Run:
    """Go on with a run that stopped, with the pins and the plan that it began with."""
    folder = Path(folder)
    record = read_record(folder)
    if record["state"] != "started":
        raise ResumeError(f"'{folder}' is already {record['state']}.", hint=f"Use it with: hubtune predict {folder} TEXT")
    made = recipe.build(record["recipe"])
    prepared = shared_preparation.prepare(made, callbacks or Callbacks() if processes.is_first() else Callbacks(), source, before=record)
    if not processes.is_first():
        return followed(folder, prepared, record, resume="compute" in record)
    return finished(folder, prepared, record, callbacks or Callbacks(), resume="compute" in record)


def check(made: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
          callbacks: Callbacks | None = None) -> dict[str, Any]:
    """Everything that `train` does before it fetches weights; returns what would happen."""
    new_folder(made, out, overwrite, look_only=True)
    return preparation.prepare(made, callbacks or Callbacks(), source).described()


def plan(made: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
         callbacks: Callbacks | None = None) -> dict[str, Any]:
    """Take some steps as `train` would, forget them, and return what all of them will cost."""
    new_folder(made, out, overwrite, look_only=True)
    prepared = preparation.prepare(made, callbacks or Callbacks(), source)
    from hubtune.runs import cost  # torch and accelerate are imported only when everything else is right

    return cost.measure(prepared)


def finished(
    folder: Path, prepared: preparation.Prepared, record: dict[str, Any], callbacks: Callbacks, *, resume: bool
) -> Run:
    """What costs compute, and then the push."""
    from hubtune.runs import stages  # torch and accelerate are imported only when everything else is right

    stages.finish(folder, prepared, record, callbacks, resume=resume)
    run = Run(folder)
    part = prepared.recipe.publish
    if part.repo:
        run.publish(part.repo, public=part.public, pr=part.pr, callbacks=callbacks)
    return run


def followed(folder: Path, prepared: preparation.Prepared, record: dict[str, Any], *, resume: bool) -> RunElsewhere:
    """Train in a process that is not the first: it computes its part and writes nothing."""
    from hubtune.runs import stages

    stages.finish(folder, prepared, record, Callbacks(), resume=resume)
    return RunElsewhere(folder)


class Run(Model):
    """A finished run: its figures, its model, and the way to the Hub."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_record(self.folder)
        if self.record["state"] == "started":
            raise ResumeError(f"'{folder}' was not finished.", hint=f"Go on with: hubtune train --resume {folder}")
        origin = local_origin(self.folder / "model")
        said = read_run_record(origin)
        task = registry.load().task(PluginChoice(said["task"]["name"], said["task"]["options"]), said["task"].get("plugin"))
        super().__init__(origin, said, task, str(folder), base=self.record["recipe"]["model"]["id"])

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the test rows; on the validation rows where there are none."""
        found: dict[str, dict[str, float]] = self.record["metrics"]
        return found.get("test") or found["validation"]

    @guest.leaves_no_trace
    def publish(
        self, repo: str, *, public: bool = False, pr: bool = False, dry_run: bool = False,
        callbacks: Callbacks | None = None,
    ) -> dict[str, Any]:
        """Push the model as one commit, and prove what the Hub gives back. `dry_run`: only say what would go."""
        from hubtune.evaluation import verification

        callbacks = callbacks or Callbacks()
        repo = hub.check_push(repo, pr) if not dry_run else repo
        with temporary.Folder() as place:
            stage = place / "stage"
            self._stage(stage, repo)
            files = [
                {"path": str(p.relative_to(stage)), "size": p.stat().st_size, "sha256": sha256_of(p)}
                for p in sorted(stage.rglob("*")) if p.is_file()
            ]
            if card.license_of(self.record) is None:
                callbacks.on_warning("the base model's licence is not known, so the card names none. Name it with --set publish.license=ID when training.")
            if public and self.record["base"]["gated"]:
                callbacks.on_warning("the base model is gated: its licence may not allow a public copy of its weights.")
            if dry_run:
                return {"repo": repo, "commit": None, "parent": None, "url": None, "pr": None, "dry_run": True, "files": files}
            callbacks.on_info(f"Publishing {len(files)} files to {repo}")
            pushed = hub.push(stage, repo, message=f"{self.record['task']['name']} with hubtune", public=public, pr=pr)
            callbacks.on_info("Verifying the published model: downloaded again, loaded in a clean process")
            back = hub.download_to(place / "back", pushed.repo, pushed.commit)
            try:
                again = verification.verify_model(self.saved(back))
            except ProofError as error:
                raise ProofError(error.message, where=f"{pushed.repo} at {pushed.commit}",
                                 hint=f"The commit is there ({pushed.url}); do not use it.") from error
        done = {"repo": pushed.repo, "commit": pushed.commit, "parent": pushed.parent, "url": pushed.url, "pr": pushed.pr}
        self.record |= {"published": {**done, "proof": again}, "state": "published"}
        write_record(self.folder, self.record)
        return {**done, "dry_run": False, "files": files}

    def saved(self, folder: Path) -> verification.SavedModel:
        """The files in a folder as a proof loads them."""
        from hubtune.evaluation import verification

        over = self.from_base()
        return verification.SavedModel(
            folder, self.record["task"]["model"], self.record["loads_with"], self.folder / "proof.safetensors",
            base=fetch(over, [*over.small, *over.weights]) if over else None, config=self.record["config"],
        )

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


class RunElsewhere(Run):
    """What `train` returns in a process that is not the first: the run is the first one's to read and to publish."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> NoReturn:
        raise ResumeError(f"process {processes.rank()} of {processes.world()} has no run: the first process writes it to '{self.folder}'.",
                          hint="Go on in the first process alone: if os.environ['RANK'] == '0'.")
