"""Sweep: propose, train and score trials until the budget is used, then train the winner as an ordinary run."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hubtune import files
from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.files import locations
from hubtune.devices import processes
from hubtune.errors import (
    HubtuneError,
    ModelError,
    PluginError,
    RecipeError,
    TrainingError,
    listing,
)
from hubtune.evaluation import metrics
from hubtune.recipe import PluginChoice, Recipe
from hubtune.sweeps import report, space, winner
from hubtune.sweeps.attempts import Attempts
from hubtune.sweeps.bayesian import OptunaStudy
from hubtune.sweeps.budget import MISSES, Budget
from hubtune.sweeps.race import Race
from hubtune.sweeps.trainer import Trainer
from hubtune.sweeps.trials import DONE, Study, Trial, best_of

DEFAULT_STRATEGIES = ("full", "lora", "head")
RECORD = "sweep.json"


@dataclass(frozen=True)
class Request:
    """What a sweep is asked for. recipe: what trials have in common; fixed: keys that the user has set."""

    recipe: Recipe
    models: Sequence[str]
    strategies: Sequence[str]
    search: Sequence[str] = ()
    fixed: Sequence[str] = ()
    budget: Budget = field(default_factory=Budget)
    storage: str | None = None
    sampler: str = "tpe"

    @property
    def is_race(self) -> bool:
        """Whether each strategy is trained once, at default settings."""
        return not (self.search or self.storage or self.budget.trials or self.budget.seconds)


def sweep(
    request: Request, *, out: str | Path | None = None, source: Any = None, callbacks: Callbacks | None = None
) -> dict[str, Any]:
    """Search, train the winner into `best/`, and return what `sweep.json` holds.

    A sweep that stopped goes on where it is, and several processes may work on one.
    """
    if processes.world_size() > 1:
        raise RecipeError("a launcher started several processes; a sweep trains each trial in one.",
                          hint="Start hubtune sweep itself several times, with the same --out: they share the trials.")
    if locations.is_stdin(request.recipe.data.source) or request.recipe.data.stream:
        raise RecipeError("a sweep reads its rows several times, which standard input and streams do not allow.",
                          hint="Save the rows to a file, and give that: --data FILE")
    folder = Path(out or Path("runs", f"sweep-{request.recipe.task.name}"))
    folder.mkdir(parents=True, exist_ok=True)
    return Sweep(request, folder, source, callbacks or Callbacks()).run()


def default_strategies() -> list[str]:
    """Return the strategies that are tried where none is named: those that are installed with what they need."""
    known = registry.load().strategies
    return [name for name in DEFAULT_STRATEGIES if name in known and registry.unavailable(known[name]) is None]


class Sweep:
    """One process of a sweep."""

    def __init__(self, request: Request, folder: Path, source: Any, callbacks: Callbacks) -> None:
        self.request, self.folder, self.source, self.callbacks = request, folder, source, callbacks
        plugins = registry.load()
        self.strategies = {name: type(plugins.strategy(PluginChoice(name, {}))) for name in request.strategies}
        task = type(plugins.task(request.recipe.task))
        self.ranges = [] if request.is_race else space.build(
            task, self.strategies, request.search, request.fixed)
        self.pairs = [(model, strategy) for model in request.models for strategy in request.strategies]
        self.trainer = Trainer(request.recipe, source, self.strategies, self.ranges)
        self.metric, self.higher_is_better = self.first_preparation()
        self.shared = {
            "task": request.recipe.task.name, "models": list(request.models), "strategies": list(request.strategies),
            "metric": self.metric, "higher_is_better": self.higher_is_better,
            "search": [str(one) for one in self.ranges], "common": report.choices(request.recipe),
            "fingerprint": self.fingerprint, "storage": request.storage,
        }
        self.check_same()
        self.study = self.open_study()
        self.shared["method"] = self.study.method
        self.attempts = Attempts(self.trainer, self.study, request.budget, self.pairs, self.metric, self.higher_is_better)

    def first_preparation(self) -> tuple[str, bool]:
        """Read the data with the first pair that fits; return the metric, and whether higher is better.

        Raises:
            HubtuneError: the data is not right, or no pair fits.
        """
        reasons = []
        for model, strategy in self.pairs:
            try:
                prepared, record = self.trainer.prepare(Trial(0, model, strategy))
            except (ModelError, PluginError, RecipeError) as error:
                reasons.append(error)
                continue
            self.fingerprint = record["data"]["fingerprint"]
            metric = metrics.deciding(prepared.task, prepared.base)
            return metric.name, metric.higher_is_better
        raise reasons[0]

    def check_same(self) -> None:
        """Refuse to go on with another sweep than the folder holds."""
        path = self.folder / RECORD
        if not path.exists():
            others = [one.name for one in self.folder.iterdir() if not one.name.startswith(".")]
            if others and not (self.folder / "workers").exists():
                raise RecipeError(f"the folder '{self.folder}' is not empty, and holds no sweep.",
                                  hint="Choose another folder: --out FOLDER")
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in self.shared if json.loads(json.dumps(self.shared[name])) != before.get(name)]
        if differ:
            raise RecipeError(
                f"'{self.folder}' holds another sweep: {listing(differ)} differ"
                f"{'s' if len(differ) == 1 else ''}.",
                hint=f"Go on with the same command as before, or begin anew: --out {shlex.quote(f'{self.folder}-2')}")

    def open_study(self) -> Study:
        """Open the study of the folder, or begin it."""
        request = self.request
        if request.is_race:
            return Race(self.folder, request.models, request.strategies)
        return OptunaStudy(
            self.folder, request.storage, self.pairs, self.ranges, space.defaults(self.ranges, self.strategies),
            self.higher_is_better, request.recipe.train.seed, request.sampler)

    # -------------------------------------------------------------------------------- trials

    def run(self) -> dict[str, Any]:
        """Train trials until the budget is used, then the winner."""
        with self.explained():
            self.write()
            self.callbacks.on_info(report.header())
            misses = 0
            while misses < MISSES and not self.request.budget.is_used_up(self.study.trials(), self.best()):
                trial = self.study.ask()
                if trial is None:
                    break
                self.attempts.attempt(trial)
                misses = misses + 1 if trial.state in ("too-long", "refused") else 0
                self.callbacks.on_info(report.line(trial, best.score if (best := self.best()) else None))
                self.write()
                self.attempts.check_some_work()
            if misses >= MISSES:
                self.callbacks.on_info(f"{MISSES} proposals in a row could not be tried: the search ends.")
            self.attempts.check_any_fits()
            return self.finish()

    def best(self) -> Trial | None:
        """Return the best trial so far."""
        return best_of(self.study.trials(), self.higher_is_better)

    # -------------------------------------------------------------------------------- winner

    def finish(self) -> dict[str, Any]:
        """Train the winner, if no other process is still at work; return what `sweep.json` holds."""
        best = self.best()
        if best is None or any(trial.state == "running" for trial in self.study.trials()):
            if best is not None:
                self.callbacks.on_info("other processes are still at work; the last of them trains the winner.")
            return self.write()
        try:
            with FileLock(self.folder / "best.lock", timeout=0):
                return self.train_winner(best)
        except Timeout:
            self.callbacks.on_info("another process trains the winner.")
            return self.write()

    def train_winner(self, best: Trial) -> dict[str, Any]:
        """Train the winner as a run, and return what `sweep.json` holds."""
        run = winner.train(self.winner(best), self.folder, best, self.metric, self.source, self.callbacks)
        tried = sum(trial.state in DONE for trial in self.study.trials())
        return self.write(report.of_winner(run.record, self.metric, tried, best), str(run.folder))

    def winner(self, best: Trial) -> Recipe:
        """Return the recipe of a trial, with all settings in plain."""
        return replace(self.trainer.recipe_of(best), publish=self.request.recipe.publish)

    def write(self, scores: dict[str, Any] | None = None, run: str | None = None) -> dict[str, Any]:
        """Write `sweep.json`, and return it."""
        best = self.best()
        limits = {"max_trials": self.request.budget.trials, "budget_seconds": self.request.budget.seconds}
        found = report.document({**self.shared, **limits}, self.study.trials(), best,
                                self.winner(best) if best else None, scores, run)
        files.write_atomically(self.folder / RECORD, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return found

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Name the command that goes on, where the sweep is stopped."""
        again = f"The trials so far are kept in {shlex.quote(str(self.folder))}. The same command goes on."
        try:
            yield
        except HubtuneError as error:
            if isinstance(error, TrainingError) and error.exit_code >= 128:
                stopped = TrainingError("stopped: a trial in the middle begins again, and the winner's training goes on.", hint=again)
                stopped.exit_code = error.exit_code
                raise stopped from None
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal, which no other message explains
                error.add_note(again)
            raise
        finally:
            if isinstance(self.study, OptunaStudy):
                self.study.close()
            self.trainer.scratch.remove()
