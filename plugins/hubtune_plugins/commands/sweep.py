"""`hubtune sweep`: search settings, strategies and models, and train the best."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubtune import Callbacks, Command, RecipeError, Table, hookimpl

COLUMNS = ("trial", "state", "strategy", "model", "score", "epochs", "seconds", "settings")


class Progress(Callbacks):
    """Print a line for each trial to standard error, since the table is printed only at the end."""

    def on_info(self, text: str) -> None:
        typer.echo(text, err=True)

    def on_warning(self, text: str) -> None:
        typer.echo(f"warning: {text}", err=True)


class Sweep(Command[Any]):
    """Search settings, strategies and models within a budget, by scores on the validation rows alone, and train the best of them
    as a run in FOLDER/best, whose test rows are scored once, at the end. Without --trials, --budget, --search and --storage,
    each strategy is trained once on each model at default settings, and the best of them is the winner.

    A sweep that was stopped or killed goes on with the same command. Several processes that are given the same --out share
    the trials.
    """

    contract = 2
    name = "sweep"
    summary = "search settings, strategies and models, and train the best"

    def run(
        self,
        task: Annotated[str, typer.Argument(metavar="TASK", help="The task, as for hubtune train.")],
        model: Annotated[list[str] | None, typer.Option(help="A base model; can be repeated.")] = None,
        data: Annotated[str | None, typer.Option(help="The data, as for hubtune train.")] = None,
        strategies: Annotated[str | None, typer.Option(metavar="A,B", help="Strategies to try  [default: full,lora,head]")] = None,
        search: Annotated[list[str] | None, typer.Option(
            metavar="KEY=RANGE", help="Search this setting: KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B; can be repeated.")] = None,
        trials: Annotated[int | None, typer.Option(min=1, help="How many trials, in all.")] = None,
        budget: Annotated[str | None, typer.Option(metavar="TIME|MONEY", help="For trials and the winner's training: 90s, 30m, 2h; or 2usd, with --price.")] = None,
        price: Annotated[float | None, typer.Option(help="The price of an hour of this machine, for a budget of money.")] = None,
        set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all trials; can be repeated.")] = None,
        recipe: Annotated[str | None, typer.Option(help="A recipe, whose settings all trials have.")] = None,
        out: Annotated[str | None, typer.Option(metavar="FOLDER", help="The sweep's folder  [default: runs/sweep-TASK]")] = None,
        storage: Annotated[str | None, typer.Option(metavar="URL", help="A database for the trials  [default: a file in the folder]")] = None,
        sampler: Annotated[str, typer.Option(help="How settings are proposed: tpe or random.")] = "tpe",
        trust_code: Annotated[list[str] | None, typer.Option(metavar="REPO@COMMIT", help="Run the code beside this model's weights.")] = None,
    ) -> dict[str, Any]:
        from hubtune import sweep

        if sampler not in ("tpe", "random"):
            raise RecipeError(f"--sampler is tpe or random, not '{sampler}'.")
        names = [name.strip() for name in (strategies or "").split(",") if name.strip()]
        return sweep(task, models=model or (), data=data, strategies=names, search=search or (), trials=trials, budget=budget, price=price,
                     set=set or (), out=out, storage=storage, sampler=sampler, recipe=recipe, trust_code=trust_code,
                     callbacks=Progress())

    def table(self, document: dict[str, Any]) -> Table:
        ordered = sorted(document["trials"], key=lambda trial: place(trial, document["higher_is_better"]))
        rows = [[trial["number"], trial["state"], trial["strategy"], short(trial["model"]),
                 scored(trial), f"{trial['epochs']:.3g}", f"{trial['seconds']:.1f}",
                 trial["reason"] or described(trial["settings"])] for trial in ordered]
        return Table(COLUMNS, rows, ["", *document["notes"]])


def place(trial: dict[str, Any], higher_is_better: bool) -> tuple[bool, float, int]:
    """Return the key that sorts the best trial first, and those without a score last."""
    score = trial["score"]
    return score is None, 0.0 if score is None else -score if higher_is_better else score, trial["number"]


def scored(trial: dict[str, Any]) -> str | None:
    """Return a score with the standard deviation over the folds, if there are any."""
    if trial["score"] is None:
        return None
    return f"{trial['score']:.4f}" + ("" if trial["spread"] is None else f" ± {trial['spread']:.4f}")


def described(settings: dict[str, Any]) -> str:
    """Return settings in a cell."""
    return " ".join(f"{key.partition('.')[2]}={value}" for key, value in settings.items()) or "defaults"


def short(model: str) -> str:
    """Return the last two parts of a folder, or a name of the Hub whole."""
    return "/".join(model.rstrip("/").split("/")[-2:]) if model.startswith(("/", ".", "~")) else model


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Sweep]
