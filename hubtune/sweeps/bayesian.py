"""The study of a sweep by Optuna: TPE proposes, successive halving prunes, any number of processes share it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hubtune.errors import HubtuneError, MissingExtra, RecipeError
from hubtune.sweeps.space import Range
from hubtune.sweeps.trials import Pruned, Trial

JOURNAL = "study.journal"
"""The file of the study in the sweep's folder."""
FIRST_RUNG, REDUCTION = 250, 3
"""Successive halving: of the trials that reach a quarter of their training, then three quarters, the best third goes on (Li et al.,
arXiv:1810.05934). In thousandths of the planned epochs, since trials of other lengths are at other learning rates after as many."""
AT_END = 0.999
"""Share of its planned training from which a trial is at its end: epochs are rounded to four digits."""
RANDOM_TRIALS = 6
"""Trials at random, the defaults among them, before TPE has enough to go by."""


def require() -> Any:
    """Return the module of Optuna.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtra(
            "a search (--trials, --budget, --search or --storage) needs the package optuna.",
            hint="Install it with: pip install 'hubtune[sweep]'\n"
            "Without it, a race at default settings: hubtune sweep TASK ... --strategies full,lora,head",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class OptunaStudy:
    """Trials that Optuna proposes, kept in a journal file or a database.

    A process holds a lock while it lives, so that others see which running trials were left by one that was killed.
    """

    def __init__(
        self, folder: Path, storage: str | None, pairs: Sequence[tuple[str, str]],
        ranges: Sequence[Range], defaults: Mapping[str, Any], higher_is_better: bool,
        seed: int, sampler: str = "tpe",
    ) -> None:
        self.optuna = require()
        self.pairs, self.ranges, self.method = pairs, ranges, sampler
        self.models = list(dict.fromkeys(model for model, _ in pairs))
        self.strategies = list(dict.fromkeys(strategy for _, strategy in pairs))
        self.locks = folder / "workers"
        self.locks.mkdir(parents=True, exist_ok=True)
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.lock = FileLock(self.locks / self.worker)
        self.lock.acquire()
        with self.readable(storage), FileLock(folder / "study.lock"):
            self.study = self.optuna.create_study(
                study_name=folder.name, storage=self.storage(folder, storage), load_if_exists=True,
                direction="maximize" if higher_is_better else "minimize",
                sampler=self.sampler(sampler, seed),
                pruner=self.optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=FIRST_RUNG, reduction_factor=REDUCTION))
            self.begin(defaults)
            self.take_back()

    def storage(self, folder: Path, url: str | None) -> Any:
        """Return the storage: a database by its URL, else the journal file in the folder."""
        if url is not None:
            return url
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))

    @contextlib.contextmanager
    def readable(self, storage: str | None) -> Iterator[None]:
        """Turn errors of a storage that cannot be opened into one that says which."""
        try:
            yield
        except HubtuneError:
            raise
        except Exception as error:
            raise RecipeError(
                f"the study in '{storage or JOURNAL}' cannot be opened: {str(error).splitlines()[0][:200]}",
                hint="--storage takes the URL of a database, such as sqlite:///sweep.db; without it, "
                "the study is a file in the sweep's folder.") from error

    def sampler(self, name: str, seed: int) -> Any:
        """Return the sampler; each process draws from its own sequence."""
        own = None if any(self.locks.glob("*-begun")) else seed
        (self.locks / f"{self.worker}-begun").touch()
        if name == "random":
            return self.optuna.samplers.RandomSampler(seed=own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `group` is called experimental
            # group: settings of one strategy are modelled by the trials that have them.
            return self.optuna.samplers.TPESampler(
                n_startup_trials=RANDOM_TRIALS, multivariate=True, group=True, seed=own)

    # ---------------------------------------------------------------------------- one trial

    def ask(self) -> Trial:
        """Return the next trial: the default settings of each pair first, then what the sampler proposes."""
        handle = self.study.ask()
        handle.set_user_attr("worker", self.worker)
        only = handle.user_attrs.get("only")  # of one that was put into the queue
        trial = Trial(handle.number, handle.suggest_categorical("model", self.models),
                      handle.suggest_categorical("strategy", self.strategies), handle=handle)
        for one in self.ranges:
            is_of_pair = one.owner in (None, trial.strategy)
            if is_of_pair and (only is None or one.name in only):
                trial.values[one.name] = suggest(handle, one)
        return trial

    def report(self, trial: Trial, score: float) -> None:
        """Keep the score of a validation. Trials of defaults are never pruned: others are compared with them.

        Nor are trials at their end, where nothing is spared.
        """
        share = trial.epochs / trial.planned_epochs
        trial.handle.report(score, round(1000 * share))
        if share < AT_END and trial.handle.should_prune() and not trial.handle.user_attrs.get("is_default"):
            raise Pruned

    def tell(self, trial: Trial) -> None:
        """Keep a trial. One without a score counts as the worst, so that its like is proposed less often."""
        states = self.optuna.trial.TrialState
        trial.handle.set_user_attr("trial", json.dumps(trial.as_dict()))
        if trial.state == "complete":
            self.study.tell(trial.handle, trial.score)
        elif trial.state == "interrupted":
            self.study.tell(trial.handle, state=states.FAIL)
            self.repeat(trial.handle.params, trial.handle.user_attrs.get("is_default", False))
        else:
            self.study.tell(trial.handle, state=states.PRUNED)

    def repeat(self, params: Mapping[str, Any], is_default: bool = False) -> None:
        """Put values into the queue; settings that are not among them stay at their defaults."""
        self.study.enqueue_trial(dict(params), user_attrs={"only": list(params), "is_default": is_default})

    # --------------------------------------------------------------------------- all trials

    def begin(self, defaults: Mapping[str, Any]) -> None:
        """Put the default settings of each pair first, in a study without trials.

        defaults: values by the name of the range, where the range has the default.
        """
        if self.study.get_trials(deepcopy=False):
            return
        for model, strategy in self.pairs:
            own = {one.name: encode(one, defaults[one.name]) for one in self.ranges
                   if one.owner in (None, strategy) and one.name in defaults}
            self.repeat({"model": model, "strategy": strategy, **own}, is_default=True)

    def take_back(self) -> None:
        """Put trials that killed processes have left back into the queue."""
        for found in self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,)):
            if not self.is_alive(found.user_attrs.get("worker")):
                with contextlib.suppress(ValueError, RuntimeError):  # another process was first
                    self.study.tell(found.number, state=self.optuna.trial.TrialState.FAIL)
                    if "model" in found.params and "strategy" in found.params:
                        self.repeat(found.params, found.user_attrs.get("is_default", False))

    def is_alive(self, worker: str | None) -> bool:
        """Tell whether the process of a running trial lives; of those on other machines, nothing is known."""
        if worker is None or not (self.locks / worker).exists():
            return worker is not None
        lock = FileLock(self.locks / worker)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def trials(self) -> list[Trial]:
        states, found = self.optuna.trial.TrialState, []
        for frozen in self.study.get_trials(deepcopy=False):
            if "trial" in frozen.user_attrs:
                found.append(Trial.of_dict(json.loads(frozen.user_attrs["trial"])))
            elif frozen.state == states.RUNNING and {"model", "strategy"} <= set(frozen.params):
                found.append(Trial(frozen.number, frozen.params["model"], frozen.params["strategy"]))
        return found

    def close(self) -> None:
        """Let other processes know that this one has ended."""
        self.lock.release()
        (self.locks / self.worker).unlink(missing_ok=True)


def encode(one: Range, value: Any) -> Any:
    """Return a value as Optuna keeps it: choices as JSON, since it takes no lists."""
    return json.dumps(value) if one.is_choice else value


def suggest(handle: Any, one: Range) -> Any:
    """Let the sampler propose a value of a range."""
    if one.is_choice:
        return json.loads(handle.suggest_categorical(one.name, [json.dumps(value) for value in one.values]))
    low, high = one.values
    if one.is_whole:
        return handle.suggest_int(one.name, low, high, log=one.log)
    return handle.suggest_float(one.name, float(low), float(high), log=one.log)
