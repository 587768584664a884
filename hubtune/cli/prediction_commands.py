"""The commands that use a tuned model: evaluate and predict."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, TrustCode, screen, show_json

Columns = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="A column, data.ROLE=COLUMN, or data.encoding=NAME; repeatable.")]


def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub model org/name.")],
    data: Annotated[str, typer.Option(help="Labelled rows: a file, a folder or a Hub data set.")],
    split: Annotated[str | None, typer.Option(help="The split to score  [default: test, else validation]")] = None,
    set: Columns = None,
    task: Annotated[str | None, typer.Option(help="The task, for a model that hubtune did not tune.")] = None,
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Score a model on labelled rows, with 95% intervals."""
    import hubtune

    found = hubtune.load(model, task=task, trust_code=trust_code).evaluate(
        data, split=split, columns=columns_in(set, "evaluate"), callbacks=screen())
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.report(found["report"])
    console.out()
    console.metrics({key: {found["split"]: found[key]} for key in ("metrics", "intervals", "no_intervals", "baselines")})


def columns_in(sets: list[str] | None, command: str) -> dict[str, str]:
    """Parse the `data.<role>` and `data.encoding` assignments of `--set`."""
    from hubtune.errors import RecipeError
    from hubtune.recipe import override

    tables = override({}, sets or ())
    if tables.keys() - {"data"}:
        named = ", ".join(sorted(tables.keys() - {"data"}))
        raise RecipeError(f"{command} takes --set data.ROLE=COLUMN and data.encoding=NAME only, not {named}.*.",
                          hint="For example: --set data.text=review")
    return {role: str(column) for role, column in tables.get("data", {}).items()}


def predict(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub model org/name.")],
    texts: Annotated[list[str] | None, typer.Argument(
        metavar="[TEXT]...", help="Texts to predict; - reads them from standard input: a text per line, or a row per line as JSON.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows instead of texts: a file, a folder or a Hub data set.")] = None,
    split: Annotated[str | None, typer.Option(help="The split of the data to predict.")] = None,
    out: Annotated[str | None, typer.Option(
        metavar="FILE", help="Write the predictions to a .csv, .jsonl, .parquet or .xlsx file (.csv.gz, .jsonl.gz); "
        "the same command goes on where it was stopped.")] = None,
    keep: Annotated[str | None, typer.Option(
        metavar="all|NAME,NAME", help="With --out: write these columns of the data, too.")] = None,
    probabilities: Annotated[bool, typer.Option(
        "--probabilities", help="With --out: write a column with the probability of each label.")] = False,
    set: Columns = None,
    precision: Annotated[str, typer.Option(help="fp32 (exact), bf16, or auto (bf16 if faster).")] = "fp32",
    task: Annotated[str | None, typer.Option(help="The task, for a model that hubtune did not tune.")] = None,
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Predict labels or answers for texts or rows."""
    import hubtune

    if bool(texts) == bool(data):
        raise typer.BadParameter("give either texts or --data SOURCE.")
    if out is None and (keep or probabilities):
        raise typer.BadParameter("--keep and --probabilities need --out FILE.")
    is_stream = texts == ["-"]
    loaded = hubtune.load(model, task=task, trust_code=trust_code)
    callbacks, columns = screen(), columns_in(set, "predict")
    for warning in file_warnings(texts or (), loaded.task, model):
        callbacks.on_warning(warning)
    if out is not None:
        kept = keep.split(",") if keep and keep != "all" else keep or ()
        # Standard input with a format, such as a header of CSV, is read as a whole: "-" reads lines.
        source = "-" if is_stream else texts or ("/dev/stdin" if data == "-" else data)
        done = loaded.predict_file(source, out, keep=kept, probabilities=probabilities, split=split, columns=columns,
                                   precision=precision, callbacks=callbacks)
        show_written(done, loaded, callbacks, as_json)
        return
    if is_stream and not as_json:
        show_stream(stream(loaded, columns, precision, callbacks))
        return
    answers = (chain.from_iterable(stream(loaded, columns, precision, callbacks)) if is_stream
               else loaded.predict(texts or data, split=split, columns=columns, precision=precision, callbacks=callbacks))
    numbered = [{"row": n, **answer} for n, answer in enumerate(answers)]
    if as_json:
        show_json({"model": loaded.name, "task": loaded.task.name, "predictions": numbered})
        return
    from hubtune.cli import output

    for line in output.lines(numbered, texts):
        sys.stdout.write(line + "\n")


def file_warnings(texts: Sequence[str], task: Any, model: str) -> list[str]:
    """Return a warning for each text that looks like the name of a file of rows."""
    kinds = {column.role: column.kind for column in task.columns}
    if kinds.get(task.input, "text") != "text":  # such as an image, which is given by its name
        return []
    from hubtune.data.files.packed import SUFFIXES
    from hubtune.data.formats.lookup import supported_suffixes

    suffixes = (*supported_suffixes(), *SUFFIXES)
    found = [text for text in texts if text != "-" and is_file_name(text, suffixes)]
    return [f"'{text}' looks like the name of a file, but is predicted as a text. For the rows in it: "
            f"hubtune predict {shlex.quote(model)} --data {shlex.quote(text)}" for text in found]


def is_file_name(text: str, suffixes: Sequence[str]) -> bool:
    """Tell whether a text names a file that is there, or is one word with the suffix of a file of rows."""
    if len(text) > 255 or "\n" in text or not text.strip():
        return False
    try:
        return Path(text).exists() or (len(text.split()) == 1 and text.lower().endswith(tuple(suffixes)))
    except (OSError, ValueError):
        return False


def stream(model: Any, columns: dict[str, str], precision: str, callbacks: Any) -> Any:
    """Yield the predictions of the rows of standard input, some at a time."""
    from hubtune.runs.predictions import to_file

    return to_file.predict_stream(model, "-", to_file.Settings(columns=columns, precision=precision), callbacks)


def show_stream(batches: Any) -> None:
    """Print predictions as they come."""
    from hubtune.cli import output

    first = 0
    for answers in batches:
        numbered = [{"row": first + n, **answer} for n, answer in enumerate(answers)]
        first += len(answers)
        sys.stdout.write("".join(line + "\n" for line in output.lines(numbered, None)))
        sys.stdout.flush()


def show_written(done: dict[str, Any], model: Any, callbacks: Any, as_json: bool) -> None:
    """Print what was written to a file of predictions."""
    if done["escaped"]:
        callbacks.on_info(f"{done['escaped']} cells of {done['out']} begin like a formula, which a spreadsheet would run: "
                          "they have a ' before them. A .jsonl file has them without.")
    callbacks.on_info(f"{done['rows']:,} rows are in {done['out']}")
    if as_json:
        show_json({"model": model.name, "task": model.task.name, **done})
