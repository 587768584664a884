"""What a sweep says: a line for each trial, `sweep.json`, and the command that trains the winner."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hubtune.recipe import Recipe, field_values
from hubtune.sweeps import optimism
from hubtune.sweeps.trials import DONE, Trial

COLUMNS = ("trial", "state", "strategy", "model", "score", "best", "epochs", "seconds", "settings")
FORMAT = "{:>5}  {:<11}  {:<10}  {:<24}  {:>7}  {:>7}  {:>6}  {:>7}  {}"


def header() -> str:
    """Return the line above the trials."""
    return FORMAT.format(*COLUMNS)


def line(trial: Trial, best: float | None) -> str:
    """Return the line of a trial. best: the best score so far."""
    last = trial.score if trial.score is not None else (trial.curve[-1] if trial.curve else None)
    settings = describe(trial.settings) if not trial.reason else trial.reason
    return FORMAT.format(
        trial.number, trial.state, trial.strategy, short(trial.model), number(last), number(best),
        f"{trial.epochs:.3g}", f"{trial.seconds:.1f}", settings)


def describe(settings: Mapping[str, Any]) -> str:
    """Return settings in a line: `learning_rate=3e-05 rank=8`."""
    return " ".join(f"{key.partition('.')[2]}={value}" for key, value in settings.items()) or "defaults"


def number(score: float | None) -> str:
    """Return a score with four digits, or a dash."""
    return "-" if score is None else f"{score:.4f}"


def short(model: str) -> str:
    """Return a model's name, or the end of its path, in 24 characters."""
    name = model if not model.startswith(("/", ".", "~")) else "/".join(model.rstrip("/").split("/")[-2:])
    return name if len(name) <= 24 else "..." + name[-21:]


def literal(value: Any) -> str:
    """Return a value as `--set` reads it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else str(value)


def command(recipe: Recipe) -> str:
    """Return the `hubtune train` command line of a recipe."""
    plain = Recipe(task=type(recipe.task)(recipe.task.name), model=recipe.model).as_dict()
    words = ["hubtune", "train", recipe.task.name, "--model", recipe.model, "--data", recipe.data.source or "DATA",
             "--strategy", recipe.strategy.name]
    for table, values in recipe.as_dict().items():
        for key, value in values.items():
            named = (table, key) in (("task", "name"), ("strategy", "name"), ("model", "id"), ("data", "source"))
            if table == "publish" or named or value is None or plain.get(table, {}).get(key) == value:
                continue
            words += ["--set", f"{table}.{key}={literal(value)}"]
    for name in recipe.trusted:
        words += ["--trust-code", name]
    return shlex.join(words)


def choices(recipe: Recipe) -> dict[str, Any]:
    """Return what all trials of a sweep have in common."""
    tables = recipe.as_dict()
    return {"task": tables["task"], "data": tables["data"], "train": tables["train"], "loss": tables.get("loss"),
            "options": {key: value for key, value in tables["strategy"].items() if key != "name"},
            "model": field_values(recipe.model_config)}


def cross_validation(trial: Trial, metric: str) -> dict[str, Any]:
    """Return the entry of a run for the folds of its trial; none without folds."""
    if not trial.folds:
        return {}
    return {"cross_validation": {"metric": metric, "mean": trial.score, "standard_deviation": trial.spread, "folds": trial.folds}}


def of_winner(record: Mapping[str, Any], metric: str, tried: int, best: Trial) -> dict[str, Any]:
    """Return the scores of the winner's run, beside what the best of so many trials gains by chance alone."""
    intervals = record.get("intervals", {})
    validation = intervals.get("validation", {}).get(metric)
    test = record["metrics"].get("test")
    return {
        "validation": record["metrics"]["validation"][metric], "validation_interval": validation,
        "test": test and test[metric], "test_interval": intervals.get("test", {}).get(metric),
        "tried": tried,
        "gain_by_chance": optimism.of_folds(best.folds, tried) if best.folds else optimism.of_best(validation, tried),
    }


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table of a finished sweep."""
    best, scores, metric = document["best"], document["scores"], document["metric"]
    states = document["states"]
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    found = [f"trials: {counted}; {document['seconds']:.0f} s of training"]
    if best is None:
        return [*found, "no trial was completed."]
    folds = best["folds"]
    where = f"the mean of {len(folds)} folds (standard deviation {number(best['spread'])})" if folds else "on the validation rows"
    found.append(f"best: trial {best['number']}, {metric} {number(best['score'])}, {where}")
    if scores:
        interval = "" if not scores["validation_interval"] else " ({:.4f} to {:.4f})".format(*scores["validation_interval"])
        chance, tried = scores["gain_by_chance"], scores["tried"]
        by_chance = f": {tried} equally good trials would reach up to {chance:.4f} too much by chance" if chance else ""
        found.append(
            f"validation {metric} {number(best['score'])}, the best of {tried} trials on these folds{by_chance}" if folds else
            f"validation {metric} {number(scores['validation'])}{interval}, the best of {tried} trials on these rows{by_chance}")
        if scores["test"] is not None:
            interval = "" if not scores["test_interval"] else " ({:.4f} to {:.4f})".format(*scores["test_interval"])
            found.append(f"test       {metric} {number(scores['test'])}{interval}, scored once, after the choice")
        else:
            found.append("no test rows: score the winner on rows that no trial has seen, before you rely on it.")
    found += [f"train it:  {document['command']}"]
    if document["run"]:
        found += [f"run:       {document['run']}", f"next:      hubtune publish {shlex.quote(document['run'])} NAMESPACE/NAME --dry-run"]
    return found


def document(
    shared: Mapping[str, Any], trials: Sequence[Trial], best: Trial | None, winner: Recipe | None,
    scores: dict[str, Any] | None, run: str | None,
) -> dict[str, Any]:
    """Return what `sweep.json` holds. shared: task, metric, search, limits and more that the sweep began with."""
    states: dict[str, int] = {}
    for trial in trials:
        states[trial.state] = states.get(trial.state, 0) + 1
    found = {
        **shared, "states": states, "tried": sum(trial.state in DONE for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 1),
        "trials": [trial.as_dict() for trial in trials], "best": best and best.as_dict(),
        "command": winner and command(winner), "scores": scores, "run": run,
    }
    return {**found, "notes": notes(found)}
