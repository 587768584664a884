"""Runs: train from a recipe, resume, and a finished run with its figures and its model."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from hubtune import environment, guest
from hubtune.callbacks import Callbacks, or_default
from hubtune.contract import CONTRACT, registry
from hubtune.data.files import locations
from hubtune.devices import processes
from hubtune.devices.clean_python import CleanPython
from hubtune.errors import HubError, HubtuneError, ProofError, RecipeError, ResumeError, SealError
from hubtune.evaluation import clean_process
from hubtune.hub.origin import Origin, local_origin, read_run_record
from hubtune.hub.trust import TrustCode, needs_no_code, with_code
from hubtune.recipe import PluginChoice, PublishConfig, Recipe, build
from hubtune.record import (
    Timings,
    choose_folder,
    clear_folder,
    delete_working_files,
    read_finished,
    read_record,
    versions,
    write_record,
)
from hubtune.runs import main_process_first, preparation, publishing, run_lock, seal
from hubtune.runs.page.kept import PAGE
from hubtune.runs.predictor import Model


def train(
    recipe: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
    callbacks: Callbacks | None = None, known: Mapping[str, Any] | None = None,
) -> Run:
    """Train as the recipe says, verify the saved model, and publish it where the recipe says so.

    known: entries of `run.json` that stood before the training, such as its `cross_validation`.

    Of several processes that a launcher started, the first returns the run; in the others it cannot
    be read.
    """
    if error := processes.single_process_error(recipe.train.fsdp):
        raise error
    if locations.is_stdin(recipe.data.source) and processes.world_size() > 1:
        raise RecipeError("several processes cannot share standard input.",
                          hint="Save the rows to a file, and give that: --data FILE")
    if not processes.is_first():
        prepared = main_process_first.follow(recipe, source)
        return run_follower(Path(out or "runs"), prepared, {}, resume=False)
    timings = Timings()
    folder, callbacks = choose_folder(recipe, out), or_default(callbacks)
    if folder.is_file():
        clear_folder(folder, overwrite)  # which refuses it
    with run_lock.hold(folder), publishing.clean_python() as clean:
        clear_folder(folder, overwrite)
        recipe = keep_stdin(recipe, folder)
        try:
            prepared, described = main_process_first.prepare(
                recipe, callbacks, source, data_loaded=starting(clean, recipe))
        except BaseException:
            if kept := locations.kept_stdin(folder):
                kept.unlink()  # with it alone, the folder could not be used again
            raise
        record = {
            "name": folder.resolve().name, "state": "started", "contract": CONTRACT,
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(), **described, **(known or {}), "timings": timings,
        }
        timings.mark("preparation")
        write_record(folder, record)  # from here on, the run can be resumed
        return complete(folder, recipe, prepared, record, callbacks, clean, resume=False,
                        source=source)


def resume(
    folder: str | Path, *, source: Any = None, trusted: tuple[str, ...] = (),
    callbacks: Callbacks | None = None,
) -> Run:
    """Resume a run that stopped, with the pins and the plan that it began with.

    trusted: the base model, if the code beside its weights may run.
    """
    timings = Timings()
    folder, callbacks = Path(folder), or_default(callbacks)
    record = read_record(folder)
    recipe = replace(build(record["recipe"]), trusted=trusted)
    if kept := locations.kept_stdin(folder):  # wherever the folder lies now
        recipe = with_source(recipe, kept)
    if record["state"] == "trained" and recipe.publish.repo:
        if not processes.is_first():
            return FollowerRun(folder)
        return publish(Run(folder), recipe.publish, callbacks, source)
    if record["state"] != "started":
        delete_working_files(folder)  # of a run that was killed before it could
        raise ResumeError(f"'{folder}' is already {record['state']}.",
                          hint=f"Use it with: hubtune predict {quote(folder)} TEXT")
    has_begun = "compute" in record  # else it stopped before step 0
    if not processes.is_first():
        prepared = main_process_first.follow(recipe, source, record)
        return run_follower(folder, prepared, record, resume=has_begun)
    with run_lock.hold(folder), publishing.clean_python() as clean:
        prepared, _ = main_process_first.prepare(
            recipe, callbacks, source, record, starting(clean, recipe))
        record["timings"] = timings
        timings.mark("preparation")
        return complete(folder, recipe, prepared, record, callbacks, clean, resume=has_begun,
                        source=source)


def starting(clean: CleanPython, recipe: Recipe) -> Callable[[], None]:
    """Return what starts the process of the proof early, while this process imports libraries, too."""
    def start() -> None:
        if recipe.train.verify:
            clean.start_early(clean_process.IMPORTED_EARLY)

    return start


def keep_stdin(recipe: Recipe, folder: Path) -> Recipe:
    """Keep rows from standard input in the run's folder, so that the run can be resumed."""
    if not locations.is_stdin(recipe.data.source):
        return recipe
    return with_source(recipe, locations.save_stdin(recipe.data.source, folder.resolve()))


def with_source(recipe: Recipe, path: Path) -> Recipe:
    """Return the recipe with its rows in another file."""
    return replace(recipe, data=replace(recipe.data, source=str(path)))


def check(
    recipe: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Do all that `train` does before it fetches weights; returns what `run.json` would hold."""
    clear_folder(choose_folder(recipe, out), overwrite, look_only=True)
    return preparation.prepare(recipe, or_default(callbacks), source)[1]


def plan(
    recipe: Recipe, *, out: str | Path | None = None, overwrite: bool = False, source: Any = None,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Estimate the cost of `train` from some of its steps, and forget these."""
    clear_folder(choose_folder(recipe, out), overwrite, look_only=True)
    prepared, _ = preparation.prepare(recipe, or_default(callbacks), source)
    from hubtune.runs import cost  # with torch and accelerate, only for a recipe that is right

    return cost.estimate(prepared)


def complete(
    folder: Path, recipe: Recipe, prepared: preparation.Prepared, record: dict[str, Any],
    callbacks: Callbacks, clean: CleanPython, *, resume: bool, source: Any = None,
) -> Run:
    """Run the stages in the first process, and publish where the recipe says so."""
    from hubtune.runs import stages  # with torch and accelerate, only for a recipe that is right

    command = f"Go on with: hubtune train --resume {quote(folder)}"
    try:
        with environment.explained(command):
            (folder / "recipe.toml").write_text(recipe.as_toml(), encoding="utf-8")
            stages.run_stages(folder, prepared, record, callbacks, clean, resume=resume)
    except BaseException as error:
        if not isinstance(error, Exception):  # a signal, which no other message explains
            error.add_note(command)
        raise
    run = Run(folder, trust_code=folder)  # its code was written by this training
    return publish(run, recipe.publish, callbacks, source) if recipe.publish.repo else run


def publish(
    run: Run, settings: PublishConfig, callbacks: Callbacks, source: Any = None
) -> Run:
    """Publish a finished run as its recipe says. source: its rows, where they came from memory.

    Raises:
        HubError: with the command that publishes the run, which is kept.
    """
    assert settings.repo is not None
    scores = ", ".join(f"{name} {value:.4f}" for name, value in run.metrics.items())
    callbacks.on_info(f"The run is finished: {run.folder} ({scores})")
    try:
        run.publish(settings.repo, public=settings.public, pr=settings.pr,
                    replace=settings.replace, data=source, callbacks=callbacks)
    except (HubError, ProofError, SealError) as error:
        command = publishing.command(run, run.folder, settings.repo, public=settings.public,
                                     pr=settings.pr, replace=settings.replace)
        hint = f"The run is kept in {run.folder}. Publish it with: {command}"
        raise type(error)(error.message, where=error.where,
                          hint="\n".join(filter(None, [error.hint, hint]))) from error
    return run


def run_follower(
    folder: Path, prepared: preparation.Prepared, record: dict[str, Any], *, resume: bool
) -> FollowerRun:
    """Run the stages in a process that is not the first: it computes, and does not write."""
    from hubtune.runs import stages

    with publishing.clean_python() as clean:  # which this process does not start
        stages.run_stages(folder, prepared, {**record, "timings": Timings()}, Callbacks(), clean,
                          resume=resume)
    return FollowerRun(folder)


def quote(folder: Path) -> str:
    """Quote a folder for a shell."""
    return shlex.quote(str(folder))


class Run(Model):
    """A finished run: its figures, its model, and the way to the Hub."""

    def __init__(self, folder: str | Path, *, trust_code: TrustCode = None) -> None:
        """Open the run in a folder. trust_code: that folder, if code that lies in it may run."""
        self.folder = Path(folder)
        self.record = read_finished(self.folder)
        try:
            origin = local_origin(self.folder / "model")
            model_record = read_run_record(origin)
            choice = model_record["task"]
            task = registry.load().task(
                PluginChoice(choice["name"], choice["options"]), choice.get("plugin"))
            base = self.record["recipe"]["model"]["id"]
        except Exception as error:
            # The seal says best what was changed; without one, the run is incomplete.
            seal.check(self.folder, publishing.read_raw(self.folder))
            if isinstance(error, HubtuneError):
                raise
            raise ResumeError(f"'{folder}' is incomplete: {type(error).__name__}: {error}",
                              hint="Restore it from a copy, or train again.") from error
        super().__init__(origin, model_record, task, str(folder), base, trust_code)

    def needs_code(self) -> bool:
        """Return whether the model loads with the code beside its weights, by either record."""
        return super().needs_code() or (
            self.record.get("loads_with") == "code" and not needs_no_code(self.origin))

    def trusted_origin(self) -> Origin:
        """Return the origin whose code may run; the user may name the run's folder, too."""
        return with_code(self.origin, self.trust_code, self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        from hubtune.runs.page import page

        return page.short_html(self.folder, self.record)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the test rows, or on the validation rows if there are none."""
        found: dict[str, dict[str, float]] = self.record["metrics"]
        return found.get("test") or found["validation"]

    @property
    def report(self) -> Path:
        """The page of the run, `report.html`."""
        return self.folder / PAGE

    @guest.preserve_state
    def publish(
        self, repo: str, *, public: bool = False, pr: bool = False, replace: bool = False,
        dry_run: bool = False, data: Any = None, callbacks: Callbacks | None = None,
    ) -> dict[str, Any]:
        """Publish the model as one commit, after verifying the files that will be sent.

        Where main has a model, both are compared on the run's test rows (or else its validation
        rows), and unless the new one is better, a pull request is opened.

        Args:
            replace: commit to main in any case, without comparing.
            dry_run: only compare, and return the files that would be published.
            data: the run's rows, where they came from memory; without them, nothing is compared.

        Raises:
            SealError: the run was changed since its training ended; nothing was sent.
            ProofError: its files do not give the trained model's answers; nothing was sent.
        """
        if not dry_run:
            self.check_code_of_proof()
        self.record, done = publishing.publish(
            self, self.folder, repo, public=public, pr=pr, replace=replace, dry_run=dry_run,
            data=data, callbacks=or_default(callbacks))
        return done

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run, as `hubtune train --json` prints them."""
        record = self.record
        published = record.get("published")
        return {
            "run": str(self.folder), "model": str(self.folder / "model"),
            "report": str(self.report) if self.report.is_file() else None,
            "task": record["task"]["name"], "strategy": record["strategy"]["name"],
            "base": {"repo": record["base"]["repo"], "commit": record["base"]["commit"]},
            "rows": record["data"]["rows"],
            "unused_columns": record["data"].get("unused_columns", []), "steps": record["steps"], "epochs": record["epochs"],
            "metrics": record["metrics"], "score_warnings": record.get("score_warnings", {}),
            "precision": record["compute"]["precision"],
            "seconds": record["seconds"], "peak_memory_bytes": record["peak_memory_bytes"],
            "parameters": record["parameters"],
            "published": {name: published[name] for name in ("repo", "commit", "url", "pr")}
            if published else None,
        }


class FollowerRun(Run):
    """The run as other processes than the first see it: the first reads and publishes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> NoReturn:
        raise ResumeError(
            f"process {processes.rank()} of {processes.world_size()} has no run: the first process "
            f"writes it to '{self.folder}'.",
            hint="Go on in the first process alone: if os.environ['RANK'] == '0'.")
