"""The command line: help that is cheap, lists in the documented shape, and errors as one block or one document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from hubtune import CONTRACT
from hubtune.cli import commands, console, output
from hubtune.cli.extra_commands import restore_help
from hubtune.cli.plugin_commands import show_json
from hubtune.contract import registry
from hubtune.contract.class_checks import CORE_COMMANDS, KINDS
from hubtune.errors import UnknownPlugin
from hubtune.options import fill
from hubtune.recipe import DataConfig, Recipe, build, override

COMMANDS = sorted(typer.main.get_command(commands.app).list_commands(None))  # type: ignore[attr-defined]
TASKS, STRATEGIES = sorted(registry.load().tasks), sorted(registry.load().strategies)
HEAVY = {"torch", "transformers", "datasets", "huggingface_hub", "accelerate", "sklearn", "numpy", "pandas"}


def every_command() -> dict[str, Any]:
    """All commands by name, those of hubtune's own plugins too."""
    program: Any = typer.main.get_command(commands.app)
    program.list_commands(None)
    return dict(program.commands)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command in this process."""
    status = commands.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints with --json, which is one document on one line and nothing else."""
    status, out, _ = said(capsys, *arguments, "--json")
    assert status == 0
    assert out.count("\n") == 1
    return json.loads(out)


def started(*arguments: str, before: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, *before, "-m", "hubtune", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "NO_COLOR": "1", **more},
    )


# ------------------------------------------------------------------------------------------------------- help


def test_these_are_the_commands() -> None:
    assert COMMANDS == [
        "check", "compare", "evaluate", "export", "losses", "metrics", "models", "plan", "plugin",
        "plugins", "predict", "publish", "recipe", "report", "reproduce", "runs", "search",
        "serve", "show", "strategies", "sweep", "tasks", "train", "verify",
    ]


def test_no_plugin_may_take_the_name_of_a_command() -> None:
    assert set(CORE_COMMANDS) == set(typer.main.get_command(commands.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("command", "flag"), [*((command, "--help") for command in COMMANDS), ("train", "-h")])
def test_every_command_helps(capsys: pytest.CaptureFixture[str], command: str, flag: str) -> None:
    status, out, err = said(capsys, command, flag)
    assert (status, err) == (0, "")
    assert "--json" in out
    assert f"hubtune {command}" in out or "Usage" in out


def test_the_program_itself_helps_and_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "--help")
    assert status == 0
    assert all(command in out for command in COMMANDS)
    assert said(capsys, "--version") == (0, f"hubtune {version('hubtune')}\n", "")


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{name} {option.name}" for name, command in every_command().items()
        for option in command.params if not getattr(option, "help", None)
    ]
    assert silent == []


def test_help_of_arguments_that_click_clears_is_set_again() -> None:
    program: Any = typer.main.get_command(commands.app)
    for command in program.commands.values():
        before = {option.name: option.help for option in command.params}
        for option in command.params:
            if option.param_type_name == "argument":
                option.help = None  # as click 8.5 does with arguments of typer before 0.26
        assert {option.name: option.help for option in restore_help(command).params} == before


def test_help_imports_nothing_heavy() -> None:
    done = started("--help", before=("-X", "importtime"))
    assert done.returncode == 0
    found = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "typer" in found, "this is how importtime looks"
    assert found & HEAVY == set()


# ------------------------------------------------------------------------------------------------------ lists


def test_tasks_have_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "tasks")
    assert list(found) == ["tasks"]
    assert [task["name"] for task in found["tasks"]] == TASKS
    for task in found["tasks"]:
        assert set(task) == {"name", "summary", "plugin", "model", "pipeline_tag", "metric", "columns", "options",
                             "available", "reason"}
        assert set(task["metric"]) == {"name", "higher_is_better"}
        assert task["columns"]
        for column in task["columns"]:
            assert set(column) == {"role", "names", "needed"}
            assert column["needed"] in ("always", "train", "never")
        check_common(task)


def test_strategies_have_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "strategies")
    assert list(found) == ["strategies"]
    assert [strategy["name"] for strategy in found["strategies"]] == STRATEGIES
    for strategy in found["strategies"]:
        assert set(strategy) == {"name", "summary", "plugin", "paper", "options", "defaults", "loads_with", "available",
                                 "reason"}
        assert strategy["loads_with"] in ("transformers", "peft", "code")
        assert all(key.startswith("train.") for key in strategy["defaults"])
        check_common(strategy)


@pytest.mark.parametrize(("command", "more"), [("losses", {"paper", "kinds"}), ("metrics", {"higher_is_better", "kinds"})])
def test_losses_and_metrics_have_the_documented_shape(capsys: pytest.CaptureFixture[str], command: str, more: set[str]) -> None:
    found = document(capsys, command)[command]
    assert [item["name"] for item in found] == sorted(getattr(registry.load(), command))
    for item in found:
        assert set(item) == {"name", "summary", "plugin", "options", "available", "reason"} | more
        check_common(item)


def check_common(item: dict[str, Any]) -> None:
    assert item["available"] is (item["reason"] is None)
    for option in item["options"].values():
        assert {"type", "default", "help"} <= set(option) <= {"type", "default", "help", "choices"}
        assert option["help"]


def test_plugins_have_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "plugins")
    assert list(found) == ["contract", "plugins"]
    assert found["contract"] == CONTRACT
    for plugin in found["plugins"]:
        assert list(plugin) == ["name", "version", "source", "status", "reason", *KINDS]
        assert plugin["status"] in ("ok", "broken", "refused", "off")
    assert {"sentiment", "full", "lora"} <= {plugin["name"] for plugin in found["plugins"] if plugin["status"] == "ok"}


@pytest.mark.parametrize("command", ["tasks", "strategies", "plugins"])
def test_lists_are_tables_for_people(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, err = said(capsys, command)
    assert (status, err) == (0, "")
    for name in {"tasks": TASKS, "strategies": STRATEGIES, "plugins": [*TASKS, *STRATEGIES]}[command]:
        assert f"\n{name} " in out


# ----------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("task", TASKS)
def test_a_written_recipe_is_a_recipe_with_every_default(
    capsys: pytest.CaptureFixture[str], task: str, strategy: str
) -> None:
    status, out, _ = said(capsys, "recipe", task, "--strategy", strategy, "--model", "me/base", "--data", "rows.csv")
    assert status == 0
    made = build(tomllib.loads(out))
    assert made == Recipe(made.task, "me/base", DataConfig("rows.csv"), made.strategy)
    plugins = registry.load()
    for chosen, kind in ((made.task, plugins.tasks[task]), (made.strategy, plugins.strategies[strategy])):
        assert fill(kind.Options, chosen.options, "options") == kind.Options()


def test_a_written_recipe_names_every_role_and_takes_settings_over_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "recipe", "text-classification")
    assert all(f'# {role} = "' in out for role in ("text", "text_pair", "label"))
    assert document(capsys, "recipe", "text-classification") == {"recipe": out}
    assert build(override(tomllib.loads(out), ["train.learning_rate=3e-5"])).train.learning_rate == 3e-5


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(("arguments", "kind", "message"), [
    (["recipe", "sentimnet"], "unknown-plugin", "no task named 'sentimnet'. Did you mean 'sentiment'?"),
    (["recipe", "sentiment", "--strategy", "lroa"], "unknown-plugin", "no strategy named 'lroa'. Did you mean 'lora'?"),
    (["train", "sentiment"], "recipe-error", "no model: name one with --model"),
    (["train", "sentimnet", "--model", "x", "--data", "x"], "unknown-plugin", "no task named 'sentimnet'."),
    (["train", "sentiment", "--model", "x", "--set", "train.epoch=3"], "recipe-error", "no key train.epoch. Did you mean"),
    (["train", "sentiment", "--model", "x", "--data", "./nowhere.csv"], "data-error", "there is no file or folder"),
    (["train", "nowhere.toml"], "recipe-error", "there is no recipe 'nowhere.toml'"),
    (["train", "--resume", "./nowhere"], "resume-error", "is not a run: it has no run.json"),
    (["publish", "./nowhere", "me/x"], "resume-error", "is not a run: it has no run.json"),
    (["predict", "./nowhere", "text"], "model-error", "there is no folder './nowhere'"),
    (["show", "./nowhere"], "model-error", "there is no folder './nowhere'"),
])
def test_an_error_is_a_document_on_stdout_and_a_block_on_stderr(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kind: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = said(capsys, *arguments, "--json")
    assert status == 1
    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(found) == ["error"]
    assert list(found["error"]) == ["kind", "message", "hint", "where"]
    assert found["error"]["kind"] == kind
    assert message in found["error"]["message"]
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"

    status, out, err = said(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err.removeprefix("Reading ./nowhere.csv\n").startswith("error: ")
    assert message in err


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(UnknownPlugin):
        commands.main(["recipe", "sentimnet", "--debug"])


@pytest.mark.parametrize("arguments", [
    ["--nothing"], ["nothing"], ["train"], ["train", "--lr", "3"], ["recipe"], ["predict", "x"],
    ["predict", "x", "text", "--data", "y"], ["train", "sentiment", "--resume", "x"], ["search", "x", "--limit", "0"],
    ["search", "x", "--limit", "many"], ["evaluate", "x"], ["publish", "x"],
])
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str], arguments: list[str], as_json: bool) -> None:
    status, out, err = said(capsys, *arguments, *(["--json"] if as_json else []))
    assert status == 2
    assert out == ""
    assert "Usage" in err


# --------------------------------------------------------------------------------------- a stranger who is broken


def test_a_broken_plugin_breaks_no_command(tmp_path: Path) -> None:
    folder = tmp_path / "stranger-0.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.3\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text("[hubtune]\nanother = stranger_plugin\n", encoding="utf-8")
    (tmp_path / "stranger_plugin.py").write_text("raise RuntimeError('boom')", encoding="utf-8")
    answers = {
        command: started(*command.split(), PYTHONPATH=str(tmp_path))
        for command in ("--help", "tasks --json", "plugins --json", "recipe another --json")
    }
    assert [done.returncode for done in answers.values()] == [0, 0, 0, 1]
    assert [task["name"] for task in json.loads(answers["tasks --json"].stdout)["tasks"]] == TASKS
    listed = {plugin["name"]: plugin for plugin in json.loads(answers["plugins --json"].stdout)["plugins"]}
    assert (listed["another"]["status"], listed["another"]["source"]) == ("broken", "stranger")
    assert listed["sentiment"]["status"] == "ok"
    error = json.loads(answers["recipe another --json"].stdout)["error"]
    assert error["kind"] == "broken-plugin"
    assert error["message"] == "the plugin 'another' of stranger is broken: RuntimeError: boom"


def in_80_columns(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-m", "hubtune", *arguments], env=environment, capture_output=True, text=True, check=True).stdout


def test_every_command_has_a_summary_that_fits_its_line() -> None:
    page = in_80_columns("--help")
    listed = page.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) == len(COMMANDS)
    for line in listed:
        assert len(line) <= 80
        assert line[2] != " ", f"wrapped: {line}"
        assert not line.endswith("..."), f"cut: {line}"


def test_help_is_a_command_too() -> None:
    assert in_80_columns("help") == in_80_columns("--help")
    assert in_80_columns("help", "publish") == in_80_columns("publish", "--help")


def test_commands_that_are_printed_are_quoted_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"run": "runs/a b", "model": "runs/a b/model", "steps": 1, "seconds": 1.0, "metrics": {}, "published": None}
    record = {"intervals": {}, "proof": None, "happened": {"tokens_per_second": 6008.2, "padding": 0.09}}
    console.finished(SimpleNamespace(summary=lambda: summary, record=record, task=SimpleNamespace(unit="tokens"),
                                     needs_code=lambda: False))
    printed = capsys.readouterr().out
    assert "hubtune predict 'runs/a b' 'some text'" in printed
    assert "6,008 tokens/s (9% padding)" in printed
    assert "not verified: train.verify=false" in printed


def test_a_plan_is_described_in_the_words_of_the_field() -> None:
    assert console.steps_text(95, 16, 19) == "95 steps, batch size 16, 19 steps per epoch"


def test_a_terminal_gets_no_control_characters() -> None:
    assert output.lines([{"row": 0, "label": "\x1b[31mham\x07"}], None) == [r"0  \x1b[31mham\x07"]


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"metrics": {"pearson": float("nan"), "mae": 1.5}, "bounds": [float("inf")]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"metrics": {"pearson": None, "mae": 1.5}, "bounds": [None]}


def test_scores_are_printed_with_intervals_reasons_and_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    console.metrics({
        "metrics": {"test": {"accuracy": 0.9, "f1_macro": 0.8}}, "intervals": {"test": {"accuracy": [0.7, 0.95]}},
        "no_intervals": {"test": {"f1_macro": "4 different rows are too few"}},
        "baselines": {"test": {"accuracy": {"value": 0.6, "answer": "'ham'"}}}})
    printed = capsys.readouterr().out
    assert "0.7000 to 0.9500" in printed
    assert "none: 4 different rows are too few" in printed
    assert "0.6000 (always 'ham')" in printed


def test_names_with_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.out("labels: \x1b]0;title\x07ham")
    console.table(["label"], [["\x1b[2Jham"]])
    console.ConsoleCallbacks().on_warning("the label '\x1b[31m[b]ham'")
    console.show_error(UnknownPlugin("no '\x9b31m'", hint="see \x1b[0m"))
    printed = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    assert r"\x1b[31m[b]ham" in printed


# ------------------------------------------------------------------------------------------------ hubtune check


def test_check_reports_the_data_without_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "good film,a\n,b\n" + "".join(f"film {n},{'ab'[n % 2]}\n" for n in range(20)), encoding="utf-8")
    status, out, _ = said(capsys, "check", str(path), "--task", "text-classification")
    assert status == 1
    assert "error     1 of 22 rows have an empty text: row 2 (line 3) of train." in out
    assert 'data.clean=["drop-empty"]' in out
    status, out, _ = said(capsys, "check", str(path), "--task", "text-classification", "--set", 'data.clean=["drop-empty"]', "--json")
    found = json.loads(out)
    assert (status, found["refused"], found["rows"]) == (0, False, {"train": 19, "validation": 2})
    assert found["cleaned"][0]["operation"] == "drop-empty"


def test_check_with_a_model_says_the_lengths_and_whether_training_would_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Any
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {n},{'ab'[n % 2]}\n" for n in range(20)), encoding="utf-8")
    found = document(capsys, "check", str(path), "--task", "text-classification", "--model", str(tiny_model("bert")))
    assert found["lengths"]["rows"] == 18
    status, out, _ = said(capsys, "check", str(path), "--task", "text-classification", "--model", str(tmp_path / "none"))
    assert (status, "Training would be refused: 1 problem." in out) == (1, True)


def test_check_needs_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, "check", "rows.csv")
    assert status == 2
    assert "--task" in err
