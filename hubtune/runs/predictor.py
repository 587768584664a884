"""A tuned model that predicts and is evaluated: of a run, a folder or the Hub, whichever tool tuned it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubtune import guest
from hubtune.callbacks import Callbacks
from hubtune.contract import GenerativeTask, Prediction, Row, registry
from hubtune.data import splits
from hubtune.data.columns import add_task_columns
from hubtune.data.row_batches import BatchedRows
from hubtune.hub.forms import require_loadable
from hubtune.hub.origin import locate, read_run_record
from hubtune.hub.trust import TrustCode, named_code, with_code
from hubtune.runs import functions
from hubtune.runs.predictions import computing, to_file
from hubtune.runs.predictions.opening import OpenedModel, choose_task


class Model(OpenedModel):
    """A tuned model that predicts and is evaluated, in exact fp32."""

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
        computing.check_precision(precision)
        callbacks = callbacks or Callbacks()
        found = splits.evaluation_split(
            computing.as_rows(data, self.task), split, self.task.columns,
            self.model_record.get("columns", {}), needs_labels=False, say=callbacks.on_info,
            chosen=columns)
        rows = computing.drop_labels(next(iter(found.splits.values())), self.task)
        return computing.shown(self, self._predict_rows(rows, "predicting", callbacks, precision))

    @guest.preserve_state
    def predict_rows(self, rows: Sequence[Row]) -> list[Prediction]:
        """Return one prediction per row, in order, as `predict` does, of rows under the task's roles.

        No columns are looked for and nothing is converted, which takes most of the time of a single
        row. For a program that checks its rows itself: a text in place of an image names a file.
        """
        labels = {column.role for column in self.task.columns if column.target}
        kept: list[Row] = [{role: value for role, value in row.items() if role not in labels} for row in rows]
        if isinstance(self.task, GenerativeTask):
            kept = [self.task.question(row) for row in kept]
        return computing.shown(self, self._predict_rows(kept, "predicting", Callbacks()))

    @guest.preserve_state
    def predict_file(
        self, data: Any, out: str | Path, *, keep: Sequence[str] | str = (),
        probabilities: bool = False, split: str | None = None,
        columns: Mapping[str, str] | None = None, precision: str = "fp32",
        callbacks: Callbacks | None = None,
    ) -> dict[str, Any]:
        """Write one prediction per row, in order, to a file, in memory that does not grow with the rows.

        Rows that are predicted are kept in `OUT.partial` until the file is whole, so that the same
        call goes on where it was stopped, even by a kill, and writes the same file.

        Args:
            data: as for `predict`; `"-"`: texts, one per line of standard input, or rows as JSON.
            out: the file, whose name says its format: .csv, .jsonl (both also with .gz), .parquet
                or .xlsx.
            keep: the columns of the data that are written, too; "all": all of them.
            probabilities: write a column for the probability of each label.

        Returns:
            `out`; the number of `rows`, and of those that were `resumed` from a stopped call; and
            `escaped`, the number of cells that began like a formula.

        Raises:
            ResumeError: another model, other data or other settings began the file.
        """
        return to_file.predict_file(
            self, data, Path(out), to_file.Settings(keep, probabilities, split, columns or {}, precision),
            callbacks or Callbacks())

    def _predict_rows(
        self, rows: Any, description: str, callbacks: Callbacks, precision: str = "fp32"
    ) -> list[Prediction]:
        """Encode and predict rows, with progress under `description`."""
        return computing.predict_rows(self, rows, description, callbacks, precision)

    def answer(self, rows: Any, callbacks: Callbacks) -> list[Prediction]:
        """Predict rows that are loaded and under the task's roles, with the decisions of training."""
        return computing.decided(self, self._predict_rows(rows, "predicting", callbacks))

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
        functions.choose_metrics(registry.load(), self.task, self.model_record.get("metrics", {}))
        facts = self.model_record.get("facts", {})
        found = splits.evaluation_split(
            data, split, self.task.columns, self.model_record.get("columns", {}), needs_labels=True,
            operations=self.model_record.get("recipe", {}).get("data", {}).get("clean", ()),
            known=list(facts.get("names") or facts.get("labels") or ()), say=callbacks.on_info,
            chosen=columns)
        name, rows = next(iter(found.splits.items()))
        rows = add_task_columns(rows, self.task)
        is_same_data = self.model_record.get("data") == found.fingerprint[:16]
        if name in ("train", found.name) and is_same_data:
            callbacks.on_warning("the model was trained on these rows: scores will be optimistic.")
        predictions = self._predict_rows(rows, "evaluating", callbacks)
        (_, base), rows = self.load_weights(), list(BatchedRows(rows))
        results = metrics.evaluate(self.task, predictions, rows, base, self.decisions)
        for warning in results["warnings"]:
            callbacks.on_warning(f"on {name}: {warning}")
        return {
            "model": self.name, "task": self.task.name, "split": name, "rows": len(rows),
            "metric": self.model_record.get("metric") or metrics.deciding(self.task, base).name,
            **results,
            "seconds": round(time.monotonic() - start, 3),
        }


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
