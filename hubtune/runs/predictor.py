"""A tuned model that predicts: of a run, a folder or the Hub, whichever tool tuned it."""

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
from hubtune.data.columns import add_task_columns
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import memory
from hubtune.errors import DataError, ModelError, RecipeError, listing
from hubtune.hub.forms import require_loadable
from hubtune.hub.origin import Origin, fetch, locate, read_run_record
from hubtune.hub.trust import TrustCode, has_own_head, named_code, with_code
from hubtune.models import configuration, loading
from hubtune.models.foreign import model_errors, processor_errors
from hubtune.models.heads import publishing
from hubtune.recipe import PluginChoice
from hubtune.record import RECORD
from hubtune.runs import functions

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.data.dataset import EncodedDataset
    from hubtune.devices.device import Compute

PRECISIONS = ("fp32", "bf16", "auto")
"""Number formats of the matrix products of a prediction."""


class Model:
    """A tuned model that predicts and is evaluated, in exact fp32."""

    def __init__(
        self, origin: Origin, record: Mapping[str, Any], task: Task[Any], name: str,
        base: str | None = None, trust_code: TrustCode = None,
    ) -> None:
        """Describe a model; its weights are loaded when they are needed.

        Args:
            record: its `hubtune.json`; empty for a model that another tool has tuned.
            name: as the user gave it.
            base: folder or id of the base model, for an adapter over a local one.
            trust_code: `REPO@COMMIT` or the folder whose code may run.
        """
        self.trust_code = trust_code
        self.origin, self.task, self.name = origin, task, name
        self._record, self._base = record, base
        self._loaded: tuple[Module, Base] | None = None

    @property
    def _decisions(self) -> Mapping[str, Any]:
        """Decisions that were fitted when the model was trained."""
        found = self._record.get("decisions")
        return found if isinstance(found, Mapping) else {}

    @property
    def model_record(self) -> Mapping[str, Any]:
        """The contents of `hubtune.json`; empty for a model that another tool has tuned."""
        return self._record

    def load_weights(self) -> tuple[Module, Base]:
        """Return the model and its base; weights are loaded at the first call."""
        if self._loaded is None:
            base = self.open_base()
            memory.resume_collection()
            model = self._load_module(base)
            limit = configuration.length_limit(base, model) if self.task.unit == "tokens" else None
            # A strategy may have taken some of the model's positions.
            limit = self._record.get("limit", limit)
            self._loaded = move_to_best_device(model), replace(base, max_length=limit)
        return self._loaded

    def open_base(self) -> Base:
        """Open configuration and processor, with the task's settings applied; without weights.

        Raises:
            ModelError: the task has no model of this architecture.
        """
        self.check_code()
        base = configuration.open_base(self.origin, self.task, self.locate_base())
        reason = configuration.unsupported_reason(base.config, self.task)
        if reason:
            raise ModelError(f"the task '{self.task.name}' does not fit: {reason}.",
                             where=self.origin.repo)
        with model_errors(f"its {RECORD} does not fit the task '{self.task.name}'",
                          self.origin.repo, "Fetch the model again, or name the task with --task."):
            setup = self.task.model_config(self._record.get("facts", {}), base)
        base = configuration.apply_setup(base, checked(self.task, "model_config", setup))
        return replace(base, max_length=self._record.get("limit"))

    def locate_base(self) -> Origin | None:
        """Locate the base model of a PEFT adapter that loads over it; None for a whole model.

        Raises:
            ModelError: it was a local folder that is not known here, or it has changed.
        """
        if self._record.get("loads_with") != "peft":
            return None
        base = self._record["base"]
        if self._base is None and base["local"]:
            raise ModelError(
                "it is an adapter over a model that was a local folder "
                f"({base['repo']}, {base['commit'][:19]}).", where=self.origin.repo,
                hint="Name the run's folder, which knows where that is.",
            )
        origin = locate(self._base or base["repo"], None if base["local"] else base["commit"])
        if origin.commit != base["commit"]:
            raise ModelError(
                f"its base model is at {origin.commit[:19]}, and it was made for "
                f"{base['commit'][:19]}.", where=self.origin.repo,
                hint="Put the old files of the base model back.",
            )
        return origin

    def _load_module(self, base: Base) -> Module:
        """Load the model: a whole one, or an adapter over its base."""
        base_origin = self.locate_base()
        if base_origin is not None:
            model = loading.load(base_origin, base, self.task, Strategy(), seed=0).model
            files = [*self.origin.small, "adapter_model.safetensors"]
            return loading.attach_adapter(model, fetch(self.origin, files), self.origin.repo)
        loaded = loading.load(self.origin, base, self.task, Strategy(), seed=0)
        if loaded.missing:
            raise ModelError(
                f"it has not been tuned for '{self.task.name}': "
                f"{listing(sorted(loaded.missing), 4)} would be random.", where=self.origin.repo,
                hint=f"Tune it with: hubtune train {self.task.name} --model {self.origin.repo} "
                "--data SOURCE",
            )
        return loaded.model

    def needs_code(self) -> bool:
        """Return whether the model loads with the code beside its weights.

        Without a record of hubtune, a configuration that names code (`auto_map`) means it.
        """
        if has_own_head(self.origin):
            return False
        if self._record:
            return bool(self._record.get("loads_with") == "code")
        return bool(named_code(self.origin))

    def check_code(self) -> None:
        """Let the code beside the weights run, if the model needs it.

        Raises:
            ModelError: it does, and the user did not name it (`trust_code`).
        """
        if self.needs_code():
            self.origin = self.trusted_origin()

    def trusted_origin(self) -> Origin:
        """Return the origin whose code may run. Raises ModelError unless the user trusts it."""
        return with_code(self.origin, self.trust_code)

    def check_code_of_proof(self) -> None:
        """As `check_code`, for a clean process: it runs our own head's copy, if it is this version's."""
        if has_own_head(self.origin) and not publishing.is_own_code(self.origin):
            self.trusted_origin()
        self.check_code()

    @guest.preserve_state
    def predict(
        self, data: Any, *, split: str | None = None, columns: Mapping[str, str] | None = None,
        precision: str = "fp32", callbacks: Callbacks | None = None,
    ) -> list[Prediction]:
        """Return one prediction per row, in order.

        Args:
            data: texts (a string or several), rows as dicts, or a source as `train` takes it.
            columns: columns by role; also `encoding`, of text files.
            precision: `fp32`, exact; `bf16`, faster on newer devices, with errors of about 0.3% in
                every product; `auto`, bf16 where it is that much faster.
        """
        if precision not in PRECISIONS:
            raise RecipeError(f"unknown precision '{precision}' of predictions.",
                              hint=f"Choose one of: {listing(PRECISIONS)}")
        callbacks = callbacks or Callbacks()
        rows = self._load_rows(data, split, columns or {}, callbacks)
        from hubtune.evaluation import decisions

        predictions = self._predict_rows(rows, "predicting", callbacks, precision)
        predictions = list(decisions.apply(self.task, predictions, self._decisions))
        return [checked(self.task, "show", self.task.show(found)) for found in predictions]

    def _load_rows(
        self, data: Any, split: str | None, columns: Mapping[str, str], callbacks: Callbacks
    ) -> Any:
        """Load rows without their labels; texts become rows with the task's input."""
        is_list = isinstance(data, Sequence) and not isinstance(data, str)
        if is_list and data and isinstance(data[0], str):
            always = [column.role for column in self.task.columns if column.needed == "always"]
            role = self.task.input or (always[0] if len(always) == 1 else None)
            if role is None:
                raise DataError(
                    f"'{self.task.name}' needs {listing(always)}: give rows, not texts.",
                    hint="With --data FILE, which has these columns.")
            data = [{role: text} for text in data]
        recorded = self._record.get("columns", {})
        found = splits.evaluation_split(
            data, split, self.task.columns, recorded, needs_labels=False, say=callbacks.on_info,
            chosen=columns)
        return drop_labels(next(iter(found.splits.values())), self.task)

    def _predict_rows(
        self, rows: Any, description: str, callbacks: Callbacks, precision: str = "fp32"
    ) -> list[Prediction]:
        """Encode and predict rows, with progress under `description`."""
        from hubtune.acceleration import kernels
        from hubtune.data import encoding
        from hubtune.devices import device
        from hubtune.evaluation.inference import Predictor
        from hubtune.evaluation.model_checks import depends_on_padding

        model, base = self.load_weights()
        with processor_errors(self.origin.repo):
            encoded = encoding.encode(self.task, rows, base, base.max_length)
        callbacks.on_progress_start(description, len(encoded.examples))
        uniform = len(encoded.examples) > 1 and depends_on_padding(model, self.task, base, encoded)
        compute = choose_compute(precision, encoded)
        if compute.precision != "fp32":
            callbacks.on_info(f"{description} in {compute.precision}")
        predictor = Predictor(model, self.task, base, uniform, on_progress=callbacks.on_progress)
        with (device.device_settings(compute), kernels.use_kernels(model, compute.kernels),
              device.autocast(compute)):
            predictions = predictor.predict(rows, encoded)
        callbacks.on_progress_end()
        return predictions

    def answer(self, rows: Any, callbacks: Callbacks) -> list[Prediction]:
        """Predict rows that are loaded and under the task's roles, with the decisions of training."""
        from hubtune.evaluation import decisions

        predictions = self._predict_rows(rows, "predicting", callbacks)
        return list(decisions.apply(self.task, predictions, self._decisions))

    @guest.preserve_state
    def evaluate(
        self, data: Any, *, split: str | None = None, columns: Mapping[str, str] | None = None,
        callbacks: Callbacks | None = None,
    ) -> dict[str, Any]:
        """Compute metrics with 95% intervals and a report, on the labelled rows of a source.

        Args:
            columns: columns by role; also `encoding`, of text files.
        """
        from hubtune.evaluation import metrics

        start, callbacks = time.monotonic(), callbacks or Callbacks()
        functions.choose_metrics(registry.load(), self.task, self._record.get("metrics", {}))
        facts = self._record.get("facts", {})
        found = splits.evaluation_split(
            data, split, self.task.columns, self._record.get("columns", {}), needs_labels=True,
            operations=self._record.get("recipe", {}).get("data", {}).get("clean", ()),
            known=list(facts.get("names") or facts.get("labels") or ()), say=callbacks.on_info,
            chosen=columns)
        name, rows = next(iter(found.splits.items()))
        rows = add_task_columns(rows, self.task)
        is_same_data = self._record.get("data") == found.fingerprint[:16]
        if name in ("train", found.name) and is_same_data:
            callbacks.on_warning("the model was trained on these rows: scores will be optimistic.")
        predictions = self._predict_rows(rows, "evaluating", callbacks)
        (_, base), rows = self.load_weights(), list(BatchedRows(rows))
        results = metrics.evaluate(self.task, predictions, rows, base, self._decisions)
        for warning in results["warnings"]:
            callbacks.on_warning(f"on {name}: {warning}")
        return {
            "model": self.name, "task": self.task.name, "split": name, "rows": len(rows),
            "metric": self._record.get("metric") or metrics.deciding(self.task, base).name,
            **results,
            "seconds": round(time.monotonic() - start, 3),
        }


def choose_compute(precision: str, encoded: EncodedDataset) -> Compute:
    """Choose how predictions are computed; for few examples without a look at the device."""
    from hubtune.devices import device
    from hubtune.evaluation.batches import MAX_EXAMPLES

    if len(encoded.examples) <= MAX_EXAMPLES and precision != "auto":
        return device.default_settings(precision)
    return device.choose(precision, allowed=("bf16",))


def drop_labels(rows: Any, task: Task[Any]) -> Any:
    """Remove what a prediction must not see, and may not know."""
    labels = [column.role for column in task.columns if column.target]
    rows = rows.remove_columns([role for role in labels if role in rows.column_names])
    if isinstance(task, GenerativeTask):
        return [task.question(row) for row in BatchedRows(rows)]
    return rows


def move_to_best_device(model: Module) -> Module:
    """Move a model to the device where it computes fastest."""
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load(
    model: str | Path, *, task: str | None = None, trust_code: TrustCode = None
) -> Model:
    """Return the model of a folder or of the Hub (`org/name[@revision]`).

    task: predicted by the model, where its files do not say which.
    trust_code: `REPO@COMMIT` or the folder whose code may run.
    """
    origin = locate(str(model))
    record = read_run_record(origin)
    if trust_code is not None and not record and named_code(origin):
        origin = with_code(origin, trust_code)  # its configuration says what task it is for
    if record.get("loads_with") != "peft" or "adapter_model.safetensors" not in origin.files:
        require_loadable(origin)
    return Model(origin, record, choose_task(origin, record, task), str(model),
                 trust_code=trust_code)


def choose_task(origin: Origin, record: Mapping[str, Any], wanted: str | None) -> Task[Any]:
    """Return the task that a model was tuned for; without a record, the one of its architecture."""
    plugins = registry.load()
    if wanted:
        return plugins.task(PluginChoice(wanted))
    if choice := record.get("task"):
        options = choice.get("options", {})
        return plugins.task(PluginChoice(choice["name"], options), choice.get("plugin"))
    config = configuration.open_config(fetch(origin, origin.small), origin)
    by_fit = sorted(plugins.tasks.items(), key=lambda item: item[0] != item[1].pipeline_tag)
    for name, kind in by_fit:
        if configuration.matches_architecture(config, kind):
            return plugins.task(PluginChoice(name))
    architectures = listing(config.architectures or ["(none named)"])
    raise ModelError(
        f"no task fits its architecture {architectures}: it has not been tuned for one.",
        where=origin.repo,
        hint=f"See which it can be tuned for with: hubtune show {origin.repo}",
    )
