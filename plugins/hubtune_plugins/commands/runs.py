"""`hubtune runs`: the runs in a folder, and the deletion of some."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubtune import Command, RecipeError, Table, hookimpl

COLUMNS = ("run", "state", "task", "model", "strategy", "metric", "score", "seconds", "size", "published")
ORDERS = ("date", "score", "seconds", "size")


class Runs(Command[Any]):
    """The runs in a folder, newest first: what they trained, their score with its 95% interval, what they cost and where they
    were published. Given filters keep the runs whose value contains the words. `--delete` deletes runs that nobody works on,
    once `--yes` says so; what was published stays on the Hub.
    """

    contract = 2
    name = "runs"
    summary = "list runs with their scores and costs, and delete some"

    def run(
        self,
        folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder with the runs.")] = "runs",
        task: Annotated[str | None, typer.Option(help="Only runs of this task.")] = None,
        model: Annotated[str | None, typer.Option(help="Only runs of such a base model.")] = None,
        strategy: Annotated[str | None, typer.Option(help="Only runs of this strategy.")] = None,
        state: Annotated[str | None, typer.Option(help="Only runs in this state: started, trained, published.")] = None,
        sort: Annotated[str, typer.Option(help=f"One of {', '.join(ORDERS)}.")] = "date",
        delete: Annotated[list[str] | None, typer.Option(metavar="RUN", help="Delete this run; can be repeated.")] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    ) -> dict[str, Any]:
        from hubtune import delete_runs, list_runs

        if sort not in ORDERS:
            raise RecipeError(f"--sort is one of {', '.join(ORDERS)}, not '{sort}'.")
        if delete:
            return {"folder": folder, "runs": [], "deleted": delete_runs(delete, look_only=not yes), "look_only": not yes}
        wanted = {"task": task, "model": model, "strategy": strategy, "state": state}
        runs = [run for run in list_runs(folder) if all(word is None or word in str(run[key]) for key, word in wanted.items())]
        return {"folder": folder, "runs": ordered(runs, sort), "deleted": [], "look_only": False}

    def table(self, document: dict[str, Any]) -> Table:
        if document["deleted"]:
            what = "would be deleted; add --yes to delete" if document["look_only"] else "deleted"
            return Table([], [], [f"{folder}: {what}" for folder in document["deleted"]])
        rows = [[run["run"], run["state"], run["task"], short(run["model"]), run["strategy"], run["metric"], score(run),
                 None if run["seconds"] is None else f"{run['seconds']:.0f}", megabytes(run["bytes"]),
                 run["published"] and run["published"].get("repo")] for run in document["runs"]]
        notes = [f"{run['run']}: {run['reason']}" for run in document["runs"] if run["reason"]]
        notes += ["", f"Scores are of the test rows, else of the validation rows. {len(rows)} runs in {document['folder']}."]
        if len(rows) > 1:
            notes.append("Beside each other: hubtune compare RUN RUN")
        return Table(COLUMNS, rows, notes)


def ordered(runs: list[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Return runs by date (as they come), score or cost, the highest first; those without a value last."""
    if by == "date":
        return runs
    key = {"score": "score", "seconds": "seconds", "size": "bytes"}[by]
    return sorted(runs, key=lambda run: (run[key] is None, -(run[key] or 0)))


def short(model: str | None) -> str | None:
    """Return the last part of a folder, or a name of the Hub whole."""
    return model.rstrip("/").split("/")[-1] if model and model.startswith(("/", "./", "../", "~")) else model


def score(run: dict[str, Any]) -> str | None:
    """Return a score with its interval, as `0.9312 (0.9120 to 0.9480)`; None where the run has none."""
    if run["score"] is None:
        return None
    return f"{run['score']:.4f}" + ("" if run["interval"] is None else " ({:.4f} to {:.4f})".format(*run["interval"]))


def megabytes(size: int) -> str:
    """Return a size in MB."""
    return f"{size / 1e6:.1f} MB"


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Runs]
