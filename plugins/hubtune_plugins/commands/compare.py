"""`hubtune compare`: finished runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from hubtune import Callbacks, Command, RecipeError, Table, hookimpl


class Progress(Callbacks):
    """Print to standard error which model predicts, since a table is printed only at the end."""

    def on_info(self, text: str) -> None:
        typer.echo(text, err=True)


class Compare(Command[Any]):
    """Finished runs beside each other: the settings in which they differ, their scores with intervals, and each
    run against the first on the same held-out rows: the paired difference, and which rows changed sides.
    """

    contract = 2
    name = "compare"
    summary = "compare finished runs: settings, and scores on the same rows"

    def run(
        self,
        runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Folders of finished runs.")],
        split: Annotated[str | None, typer.Option(help="The split of the scores  [default: test, else validation]")] = None,
        scores_only: Annotated[bool, typer.Option("--scores-only", help="Load no model and predict nothing.")] = False,
        html: Annotated[str | None, typer.Option(metavar="FILE", help="Also write a page with overlaid curves.")] = None,
    ) -> dict[str, Any]:
        from hubtune import Run, write_comparison
        from hubtune import compare as compare_runs

        records = [Run(folder).record for folder in runs]
        chosen = split or ("test" if all("test" in record["metrics"] for record in records) else "validation")
        for folder, record in zip(runs, records, strict=True):
            if chosen not in record["metrics"]:
                raise RecipeError(f"'{folder}' has no scores of the split '{chosen}'; it has {', '.join(record['metrics'])}.",
                                  hint="Leave --split out, or name one that all runs have.")
        settings = [flat(record["recipe"]) for record in records]
        document: dict[str, Any] = {
            "split": chosen, "same_rows": len({record["data"]["fingerprint"] for record in records}) == 1,
            "differing": differing(settings),
            "runs": [{
                "run": folder, "task": record["task"]["name"], "strategy": record["strategy"]["name"],
                "settings": {key: values.get(key) for key in differing(settings)},
                "metrics": record["metrics"][chosen], "intervals": record["intervals"].get(chosen, {}),
                "no_intervals": record.get("no_intervals", {}).get(chosen, {}),
                "warnings": record.get("score_warnings", {}).get(chosen, []),
                "seconds": record["seconds"],
            } for folder, record, values in zip(runs, records, settings, strict=True)],
            "pairs": [] if scores_only or len(runs) < 2 else compare_runs(runs, callbacks=Progress()),
            "html": html,
        }
        if html is not None:
            write_comparison(document, html)
        return document

    def table(self, document: dict[str, Any]) -> Table:
        runs = document["runs"]
        metrics = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
        rows = [[run["run"], *(run["settings"][key] for key in document["differing"]),
                 *(score(run, name) for name in metrics), f"{run['seconds']:.0f}"] for run in runs]
        notes = ["", f"Scores of the split {document['split']}, with 95% intervals."]
        notes += dict.fromkeys(f"{run['run']}: no interval of {name}: {reason}." for run in runs
                               for name, reason in run["no_intervals"].items())
        notes += [f"{run['run']}: {warning}." for run in runs for warning in run["warnings"]]
        if not document["same_rows"]:
            notes.append("The runs have other data: their scores are of other rows.")
        for pair in document["pairs"]:
            notes += ["", pair["text"]]
            notes += [f"  {name}: row{'s' * (len(found['numbers']) > 1)} {', '.join(map(str, found['numbers']))}"
                      + (f" and {more} more" if (more := found["count"] - len(found["numbers"])) else "")
                      for name, found in (pair.get("changed") or {}).items() if found["count"]]
        if document["html"]:
            notes += ["", f"page: {document['html']}"]
        return Table(["run", *document["differing"], *metrics, "seconds"], rows, notes)


def flat(recipe: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys of a recipe as `--set` writes them, but for those of publishing."""
    return {f"{table}.{key}": value for table, values in recipe.items() if table != "publish"
            for key, value in values.items()}


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that two of the recipes have different values for."""
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if any(values.get(key) != settings[0].get(key) for values in settings)]


def score(run: Mapping[str, Any], name: str) -> str | None:
    """Return a score with its interval, as `0.9312 (0.9120 to 0.9480)`; None where the run has none of this name."""
    if name not in run["metrics"]:
        return None
    interval = run["intervals"].get(name)
    return f"{run['metrics'][name]:.4f}" + ("" if interval is None else " ({:.4f} to {:.4f})".format(*interval))


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Compare]
