"""A model that can answer: from a run, a folder or the Hub, whoever tuned it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest
from hubtune.callbacks import Callbacks
from hubtune.contract import Base, GenerativeTask, Prediction, Strategy, Task, registry
from hubtune.contract.validation import checked
from hubtune.data import splits
from hubtune.data.columns import with_added_columns
from hubtune.data.row_batches import BatchedRows
from hubtune.errors import DataError, ModelError, RecipeError, listing
from hubtune.hub.origin import Origin, fetch, locate, read_run_record, require_safetensors
from hubtune.models import configuration, loading
from hubtune.recipe import PluginChoice

if TYPE_CHECKING:
    from torch.nn import Module

PRECISIONS = ("fp32", "bf16", "auto")
"""Formats of the matrix products of a prediction."""


class Model:
    """A tuned model: predicts and is evaluated, in exact fp32."""

    def __init__(
        self, origin: Origin, record: Mapping[str, Any], task: Task[Any], name: str, base: str | None = None
    ) -> None:
        """base: where the base model is, of an adapter over a local one."""
        self.origin, self.task, self.name = origin, task, name
        self._asked, self._base = name, base
        self._record = record
        self._ready: tuple[Module, Base] | None = None

    def ready(self) -> tuple[Module, Base]:
        """The weights in memory and what goes with them; loaded at the first call."""
        if self._ready is None:
            base = configuration.open_base(self.origin, self.task, self.from_base())
            reason = configuration.unsupported_reason(base.config, self.task)
            if reason:
                raise ModelError(f"{reason}, which the task '{self.task.name}' needs.", where=self.origin.repo)
            base = configuration.apply_setup(base, checked(self.task, "model_config", self.task.model_config(self._record.get("facts", {}), base)))
            model = self.with_weights(base)
            limit = configuration.length_limit(base, model) if self.task.unit == "tokens" else None
            limit = self._record.get("limit", limit)  # a method may have taken some of the model's positions
            self._ready = (on_best_device(model), replace(base, max_length=limit))
        return self._ready

    def from_base(self) -> Origin | None:
        """Where the base model is, of an adapter that loads over it; None for a whole model."""
        if self._record.get("loads_with") != "peft":
            return None
        said = self._record["base"]
        if self._base is None and said["local"]:
            raise ModelError(
                f"it is an adapter over a model that was a local folder ({said['repo']}, {said['commit'][:19]}).",
                where=self.origin.repo, hint="Name the run's folder, which knows where that is.",
            )
        found = locate(self._base or said["repo"], None if said["local"] else said["commit"])
        if found.commit != said["commit"]:
            raise ModelError(f"its base model is at {found.commit[:19]}, and it was made for {said['commit'][:19]}.",
                             where=self.origin.repo, hint="Put the old files of the base model back.")
        return found

    def with_weights(self, base: Base) -> Module:
        """The model itself: whole, or an adapter over its base."""
        over = self.from_base()
        if over is not None:
            model = loading.load(over, base, self.task, Strategy(), seed=0).model
            return loading.attach_adapter(model, fetch(self.origin, [*self.origin.small, "adapter_model.safetensors"]))
        loaded = loading.load(self.origin, base, self.task, Strategy(), seed=0, code=self.runs_code())
        if loaded.missing:
            raise ModelError(
                f"it has not been tuned for '{self.task.name}': {listing(sorted(loaded.missing), 4)} would be random.",
                where=self.origin.repo, hint=f"Tune it with: hubtune train {self.task.name} --model "
                f"{self.origin.repo} --data SOURCE",
            )
        return loaded.model

    def runs_code(self) -> bool:
        """Whether code beside the weights is needed, and may run: from a local folder, or at a commit that was named."""
        if self._record.get("loads_with") != "code":
            return False
        if self.origin.pinned is not None and self.origin.commit not in self._asked:
            raise ModelError(
                "it loads with code that lies beside its weights, which hubtune runs only at a commit that you name.",
                where=self.origin.repo, hint="Read its code on the Hub; if you trust it, name the model as "
                f"{self.origin.repo}@{self.origin.commit}",
            )
        return True

    @guest.leaves_no_trace
    def predict(
        self, data: Any, *, split: str | None = None, precision: str = "fp32", callbacks: Callbacks | None = None
    ) -> list[Prediction]:
        """One prediction per row, in order.

        data: texts (a string or several), rows as dicts, or a source as `train` takes it. precision: `fp32`, exact; `bf16`,
        faster on newer devices, with errors of about 0.3% in every product; `auto`, bf16 where it is that much faster.
        """
        if precision not in PRECISIONS:
            raise RecipeError(f"'{precision}' is no precision of predictions.", hint=f"Choose one of: {listing(PRECISIONS)}")
        found = self._rows(data, split)
        model, base = self.ready()
        return [checked(self.task, "show", self.task.show(found)) for found in self._answer(model, base, found, "predicting", callbacks, precision)]

    def _rows(self, data: Any, split: str | None) -> Any:
        if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], str):
            always = [column.role for column in self.task.columns if column.needed == "always"]
            role = self.task.input or (always[0] if len(always) == 1 else None)
            if role is None:
                raise DataError(f"'{self.task.name}' needs {listing(always)}: give rows, not texts.",
                                hint="With --data FILE, which has these columns.")
            data = [{role: text} for text in data]
        chosen = self._record.get("columns", {})
        data = splits.evaluation_split(data, split, self.task.columns, chosen, needs_labels=False)
        return unlabelled(next(iter(data.splits.values())), self.task)

    def _answer(
        self, model: Module, base: Base, found: Any, what: str, callbacks: Callbacks | None, precision: str = "fp32"
    ) -> list[Prediction]:
        from hubtune.acceleration import kernels
        from hubtune.data import encoding
        from hubtune.devices import device
        from hubtune.evaluation.batches import MAX_EXAMPLES
        from hubtune.evaluation.inference import Predictor
        from hubtune.evaluation.model_checks import depends_on_padding

        encoded = encoding.encode(self.task, found, base, base.max_length)
        callbacks = callbacks or Callbacks()
        callbacks.on_progress_start(what, len(encoded.examples))
        uniform = len(encoded.examples) > 1 and depends_on_padding(model, self.task, base, encoded)
        few = len(encoded.examples) <= MAX_EXAMPLES  # looking at the device would take longer than they do
        compute = device.plain(precision) if few and precision != "auto" else device.choose(precision, allowed=("bf16",))
        if compute.precision != "fp32":
            callbacks.on_info(f"{what} in {compute.precision}")
        with device.computing(compute), kernels.applied(model, compute.kernels), device.autocast(compute):
            predictor = Predictor(model, self.task, base, uniform, on_progress=callbacks.on_progress)
            predictions = predictor.predict(found, encoded)
        callbacks.on_progress_end()
        return predictions

    @guest.leaves_no_trace
    def evaluate(
        self, data: Any, *, split: str | None = None, columns: Mapping[str, str] | None = None,
        callbacks: Callbacks | None = None,
    ) -> dict[str, Any]:
        """Metrics with 95% intervals and a report, on the labelled rows of a source."""
        from hubtune.evaluation import metrics

        start = time.monotonic()
        chosen = {**self._record.get("columns", {}), **(columns or {})}
        found = splits.evaluation_split(data, split, self.task.columns, chosen, needs_labels=True)
        name, labelled = next((name, with_added_columns(rows, self.task)) for name, rows in found.splits.items())
        if callbacks and name in ("train", found.name) and self._record.get("data") == found.fingerprint[:16]:
            callbacks.on_warning("the model was trained on these rows: scores will be optimistic.")
        model, base = self.ready()
        predictions = self._answer(model, base, labelled, "evaluating", callbacks)
        listed = list(BatchedRows(labelled))
        return {
            "model": self.name, "task": self.task.name, "split": name, "rows": len(listed),
            "metric": self.task.select_metric(base).name, **metrics.evaluate(self.task, predictions, listed, base),
            "seconds": round(time.monotonic() - start, 3),
        }


def unlabelled(found: Any, task: Task[Any]) -> Any:
    """Rows without what a prediction must not see (and may not know)."""
    found = found.remove_columns([c.role for c in task.columns if c.target and c.role in found.column_names])
    return [task.question(row) for row in BatchedRows(found)] if isinstance(task, GenerativeTask) else found


def on_best_device(model: Module) -> Module:
    """The model where it computes fastest."""
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load(model: str | Path, *, task: str | None = None) -> Model:
    """A model folder, or a model of the Hub (`org/name[@revision]`), ready to predict.

    task: which one it answers, where the model does not say.
    """
    origin = locate(str(model))
    record = read_run_record(origin)
    if record.get("loads_with") != "peft" or "adapter_model.safetensors" not in origin.files:
        require_safetensors(origin)
    return Model(origin, record, choose_task(origin, record, task), str(model))


def choose_task(origin: Origin, record: Mapping[str, Any], wanted: str | None) -> Task[Any]:
    """The task that the model was tuned for; for a stranger's, the one whose class made it."""
    plugins = registry.load()
    if wanted:
        return plugins.task(PluginChoice(wanted))
    if said := record.get("task"):
        return plugins.task(PluginChoice(said["name"], said.get("options", {})), said.get("plugin"))
    config = configuration.open_config(fetch(origin, origin.small), origin)
    for name, kind in sorted(plugins.tasks.items(), key=lambda item: item[0] != item[1].pipeline_tag):
        if configuration.matches_architecture(config, kind):
            return plugins.task(PluginChoice(name))
    raise ModelError(
        f"no task fits its architecture {listing(config.architectures or ['(none named)'])}: it has not been tuned for one.",
        where=origin.repo, hint=f"See which it can be tuned for with: hubtune show {origin.repo}",
    )
