"""The command line: arguments in, calls of the public API, documents out. No logic, and nothing heavy at the top."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from hubtune.cli import plugin_commands
from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, screen, show_json
from hubtune.devices import host_lock
from hubtune.errors import HubtuneError, PluginError, RecipeError

app = typer.Typer(
    name="hubtune", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tune any open model of the Hugging Face Hub on your own data, prove it, and publish it.",
    epilog="Start with: hubtune train sentiment --model sentence-transformers/all-MiniLM-L6-v2 --data reviews.csv",
)

Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="Set train.*, data.*, task.*, strategy.* or publish.*; a TOML value, else a string.")]


@app.command()
def train(
    task: Annotated[str | None, typer.Argument(help="A task (see: hubtune tasks), or a recipe.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hub id org/name[@revision], or a folder.")] = None,
    data: Annotated[str | None, typer.Option(
        help="A file, a folder of train/validation/test files, or a Hub data set org/name[:config][@revision].")] = None,
    strategy: Annotated[str | None, typer.Option(help="How to tune (see: hubtune strategies).  [default: full]")] = None,
    out: Annotated[str | None, typer.Option(help="The run's folder.  [default: runs/TASK-MODEL-STRATEGY-N]")] = None,
    set: Set = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run that stopped.")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Publish there when done; permission is checked first.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: anyone may see it.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="With --push: propose it as a pull request.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check data, model and permission, and stop.")] = False,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Tune a model on your data."""
    import hubtune

    recipe_file = task if task and task.endswith(".toml") else None
    if resume is not None:
        if any((task, model, data, strategy, out, set, push, public, pr, overwrite, check)):
            raise typer.BadParameter("a run goes on as it began: --resume takes no other settings.")
        finish(hubtune.resume(resume, callbacks=screen()), as_json)
        return
    if task is None:
        raise typer.BadParameter("name a task or a recipe.toml. Tasks are listed by: hubtune tasks")
    arguments: dict[str, Any] = {
        "task": None if recipe_file else task, "model": model, "data": data, "strategy": strategy, "set": set or (), "out": out,
        "overwrite": overwrite, "push": push, "public": public, "pr": pr, "recipe": recipe_file, "callbacks": screen(),
    }
    if check:
        show_check(hubtune.check(**arguments), as_json)
    else:
        finish(hubtune.train(**arguments), as_json)


def finish(run: Any, as_json: bool) -> None:
    """What a finished training prints."""
    if as_json:
        show_json(run.summary())
        return
    from hubtune.cli import console

    console.finished(run)


def show_check(found: dict[str, Any], as_json: bool) -> None:
    """What `--check` prints."""
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.checked(found)


@app.command()
def plan(
    task: Annotated[str | None, typer.Argument(help="A task (see: hubtune tasks), or a recipe.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hub id org/name[@revision], or a folder.")] = None,
    data: Annotated[str | None, typer.Option(help="What to train on, as for train.")] = None,
    strategy: Annotated[str | None, typer.Option(help="How to tune (see: hubtune strategies).  [default: full]")] = None,
    set: Set = None, plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Say what a training will cost, from a few steps of it: time, memory, disk, upload."""
    import hubtune

    if task is None:
        raise typer.BadParameter("name a task or a recipe.toml. Tasks are listed by: hubtune tasks")
    recipe_file = task if task.endswith(".toml") else None
    found = hubtune.plan(None if recipe_file else task, model=model, data=data, strategy=strategy, set=set or (), recipe=recipe_file,
                         callbacks=screen())
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.costs(found)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub id.")],
    data: Annotated[str, typer.Option(help="Labelled rows: a file, a folder or a Hub data set.")],
    split: Annotated[str | None, typer.Option(help="Which split of it.  [default: test, else validation]")] = None,
    set: Set = None,
    task: Annotated[str | None, typer.Option(help="For a model that does not say which task it answers.")] = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Score a model on labelled rows, with intervals and a report per class."""
    import hubtune

    found = hubtune.load(model, task=task).evaluate(data, split=split, columns=columns_in(set), callbacks=screen())
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    console.report(found["report"])
    console.out()
    console.metrics({found["split"]: found["metrics"]}, {found["split"]: found["intervals"]})


def columns_in(sets: list[str] | None) -> dict[str, str]:
    """The `data.<role>` assignments among `--set`."""
    from hubtune.errors import RecipeError
    from hubtune.recipe import override

    tables = override({}, sets or ())
    if tables.keys() - {"data"}:
        raise RecipeError("here --set takes only data.<role>=COLUMN.")
    return {role: str(column) for role, column in tables.get("data", {}).items()}


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub id.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to answer.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows instead of texts: a file, a folder or a Hub data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split of the data.")] = None,
    out: Annotated[str | None, typer.Option(help="Write there: .jsonl or .csv.")] = None,
    precision: Annotated[str, typer.Option(help="fp32: exact; bf16: faster on newer devices; auto: bf16 where it is.")] = "fp32",
    task: Annotated[str | None, typer.Option(help="For a model that does not say which task it answers.")] = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Answer texts or rows."""
    import hubtune

    if bool(texts) == bool(data):
        raise typer.BadParameter("give texts, or --data SOURCE.")
    loaded = hubtune.load(model, task=task)
    answers = loaded.predict(texts or data, split=split, precision=precision, callbacks=screen())
    numbered = [{"row": n, **answer} for n, answer in enumerate(answers)]
    from hubtune.cli import output

    if out is not None:
        output.write(numbered, Path(out))
    if as_json:
        show_json({"model": loaded.name, "task": loaded.task.name, "predictions": numbered})
    elif out is None:
        for line in output.lines(numbered, texts):
            sys.stdout.write(line + "\n")


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="A finished run.")],
    repo: Annotated[str, typer.Argument(help="The repository: name, or namespace/name.")],
    public: Annotated[bool, typer.Option("--public", help="Anyone may see it; otherwise a new repository is private.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Propose it as a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be published.")] = False,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Publish a run's model to the Hub as one commit, and prove what the Hub gives back."""
    import hubtune

    done = hubtune.Run(run).publish(repo, public=public, pr=pr, dry_run=dry_run, callbacks=screen())
    if as_json:
        show_json(done)
        return
    from hubtune.cli import console

    console.table(["file", "bytes", "sha256"], [[f["path"], f["size"], f["sha256"][:16]] for f in done["files"]])
    console.out("\nNothing was published: this was a dry run." if dry_run else f"\npublished: {done['pr'] or done['url']}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A Hub id org/name[@revision], a folder, or a run.")],
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Say what a model is, and which tasks and strategies fit it; of a run, what it expected and what happened."""
    import hubtune

    found = hubtune.show(model)
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    if "run" in found:
        console.run(found)
    else:
        console.model(found)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="Words of the model's name.")],
    task: Annotated[str | None, typer.Option(help="Only models for this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Look for models on the Hub."""
    import hubtune

    found = hubtune.search(" ".join(words), task=task, limit=limit)
    if as_json:
        show_json({"models": found})
        return
    from hubtune.cli import console

    console.table(["model", "task", "downloads", "likes"],
                  [[m["id"], m["pipeline_tag"], m["downloads"], m["likes"]] for m in found])


for command in (plugin_commands.tasks, plugin_commands.strategies, plugin_commands.plugins, plugin_commands.plugin, plugin_commands.recipe):
    app.command()(command)


def show_version(wanted: bool) -> None:
    """The version, for `--version`."""
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"hubtune {version('hubtune')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. 0: done; 1: something the user can mend, told in one block; 2: wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    if "--debug" not in given:
        warnings.simplefilter("ignore", FutureWarning)  # said to the libraries' authors, not to our users
    try:
        app(given, standalone_mode=True)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except HubtuneError as error:
        if "--debug" in given:
            raise
        if isinstance(error, RecipeError | PluginError) and not host_lock.is_first():
            return 1  # all processes of a host have found the same, and the first one says it
        if "--json" in given:
            show_json(error.as_json())
        from hubtune.cli.console import show_error

        show_error(error)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 1
    return 0
