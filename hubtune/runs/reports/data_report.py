"""The report of `hubtune check`: everything that is found in the data, and with a model, whether training would start."""

from __future__ import annotations

from typing import Any

from hubtune.callbacks import Callbacks, or_default
from hubtune.contract import registry
from hubtune.data.checks.findings import Finding, Report
from hubtune.data.checks.label_errors import require_cleanlab
from hubtune.errors import HubtuneError
from hubtune.recipe import Recipe
from hubtune.runs import functions, preparation
from hubtune.runs.prepared_data import cut_splits, examine_data
from hubtune.runs.reports import label_errors as labels


class Silent(Callbacks):
    """Show progress only: what would be said is in the report."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.on_progress_start = callbacks.on_progress_start  # type: ignore[method-assign]
        self.on_progress = callbacks.on_progress  # type: ignore[method-assign]
        self.on_progress_end = callbacks.on_progress_end  # type: ignore[method-assign]


def report_data(
    recipe: Recipe, source: Any = None, callbacks: Callbacks | None = None, *, label_errors: bool = False
) -> Report:
    """Examine the rows of a recipe; with a model, also their lengths and all that `train` checks.

    label_errors: also look for likely wrong labels, in rows that are not refused.

    Raises:
        HubtuneError: the recipe cannot be right, or the rows cannot be read.
        MissingExtra: `label_errors` without cleanlab.
    """
    if label_errors:
        require_cleanlab()
    silent = Silent(or_default(callbacks))
    plugins = registry.load()
    task = plugins.task(recipe.task)
    functions.choose(plugins, task, recipe, {})
    examined = examine_data(recipe, task, source, None)
    report = examined.report
    if report.refused:
        return report
    if not recipe.model:
        cut_splits(recipe, task, examined)
        if label_errors:
            report.label_errors = labels.judge(examined, task, None, recipe.train.seed, silent)
        return report
    try:
        prepared, record = preparation.prepare(recipe, silent, source, examined=examined)
    except HubtuneError as error:
        report.findings.append(Finding("refused", "error", error.message, hint=error.hint))
        return report
    report.lengths = record["lengths"]
    known = {found.text() for found in report.findings}
    report.findings += [Finding(**{**found, **{name: tuple(found[name]) for name in ("rows", "lines", "mend")}})
                        for found in record["data"]["checks"]["findings"] if found["kind"] == "base-labels"]
    report.findings += [Finding("training", "warning", text) for text in record["warnings"] if text not in known]
    if label_errors:
        report.label_errors = labels.judge(examined, prepared.task, prepared, recipe.train.seed, silent)
    return report
