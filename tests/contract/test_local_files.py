"""A plugin in a loose file: `--plugin FILE` and HUBTUNE_PLUGIN_FILES, with faults set apart as those of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.cli import commands
from hubtune.contract import local_files, registry
from hubtune.errors import BrokenPlugin, UnknownPlugin
from hubtune.recipe import PluginChoice
from hubtune.runs import seal

WAY = '''
from dataclasses import dataclass
from hubtune import Strategy, hookimpl, option

@dataclass(frozen=True)
class Options:
    rank: int = option(8, "rank")

class Way(Strategy[Options]):
    contract = {contract}
    name, summary = "{name}", "a way"
    Options = Options

@hookimpl
def hubtune_strategies():
    return [Way]
'''


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the environment goes with it."""
    monkeypatch.setenv(local_files.VARIABLE, "")


def written(place: Path, name: str = "way", contract: int = 2, file: str = "loose.py") -> Path:
    path = place / file
    path.write_text(WAY.format(name=name, contract=contract), encoding="utf-8")
    return path


def found(name: str) -> registry.Found:
    return next(plugin for plugin in registry.load().plugins if plugin.name == name)


def test_a_file_is_a_plugin_with_its_options(tmp_path: Path) -> None:
    local_files.use([written(tmp_path)])
    plugins = registry.load()
    assert plugins.strategy(PluginChoice("way", {"rank": 4})).options.rank == 4
    said = found("loose")
    assert (said.status, said.source, said.brings["strategies"]) == ("ok", "loose.py", ["way"])
    assert said.version.startswith("sha256:")
    assert registry.load().strategies["way"] is plugins.strategies["way"], "a file is imported once"


def test_a_file_that_changed_is_imported_again(tmp_path: Path) -> None:
    local_files.use([written(tmp_path)])
    assert "way" in registry.load().strategies
    written(tmp_path, name="other")
    assert "other" in registry.load().strategies


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    local_files.use([written(tmp_path)])
    local_files.use([written(tmp_path / "a", name="other"), tmp_path / "loose.py"])
    assert len(local_files.named()) == 2
    assert {"way", "other"} <= set(registry.load().strategies)


@pytest.mark.parametrize(("code", "status", "reason"), [
    ("raise RuntimeError('boom')", "broken", "RuntimeError: boom"), ("x = (", "broken", "SyntaxError"),
    ("raise SystemExit(3)", "broken", "SystemExit: 3"), ("", "refused", "is a hook missing @hookimpl?"),
    (WAY.format(name="way", contract=3), "refused", "Way speaks contract 3; this hubtune speaks 2."),
    (WAY.format(name="full", contract=2), "refused", "Way claims the name 'full', which the plugin 'full' has."),
])
def test_a_faulty_file_is_set_apart_and_breaks_no_other(tmp_path: Path, code: str, status: str, reason: str) -> None:
    (tmp_path / "faulty.py").write_text(code, encoding="utf-8")
    local_files.use([tmp_path / "faulty.py", written(tmp_path)])
    said = found("faulty")
    assert (said.status, reason in str(said.reason)) == (status, True), said.reason
    assert {"way", "full"} <= set(registry.load().strategies)


def test_a_file_that_is_not_there_or_is_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no", encoding="utf-8")
    local_files.use([tmp_path / "nowhere.py", tmp_path / "notes.txt"])
    assert (found("nowhere").status, found("nowhere").reason) == ("refused", f"there is no file '{tmp_path / 'nowhere.py'}'.")
    assert found("notes").reason == "'notes.txt' is no Python file."


def test_who_asks_for_what_a_faulty_file_should_bring_is_told(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("raise RuntimeError('boom')", encoding="utf-8")
    local_files.use([tmp_path / "faulty.py"])
    with pytest.raises(UnknownPlugin) as caught:
        registry.load().strategy(PluginChoice("way"))
    assert "faulty.py is broken: RuntimeError: boom" in str(caught.value.hint)
    with pytest.raises(BrokenPlugin, match=r"the plugin 'faulty' of faulty\.py is broken"):
        registry.load().strategy(PluginChoice("faulty"))


@pytest.mark.parametrize("wanted", ["none", "own", "full"])
def test_a_named_file_is_wanted_whatever_else_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    local_files.use([written(tmp_path)])
    monkeypatch.setenv("HUBTUNE_PLUGINS", wanted)
    assert "way" in registry.load().strategies
    assert ("full" in registry.load().strategies) is (wanted != "none")


def test_no_file_is_named_without_the_option(tmp_path: Path) -> None:
    local_files.use(())
    assert local_files.named() == []
    assert os.environ[local_files.VARIABLE] == ""


@pytest.mark.parametrize("command", [["strategies", "--json"], ["plugins", "--json"], ["recipe", "sentiment", "--strategy", "way"]])
def test_commands_take_plugin_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert commands.main([*command, "--plugin", "loose.py"]) == 0
    assert "way" in capsys.readouterr().out
    assert os.environ[local_files.VARIABLE] == str(tmp_path / "loose.py"), "child processes find it wherever they are"


@pytest.mark.parametrize("command", ["tasks", "strategies"])
def test_a_list_says_what_it_lacks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("HUBTUNE_PLUGINS", "full, ful")
    assert commands.main([command, "--plugin", "nosuch.py"]) == 0
    said = capsys.readouterr().err
    assert "not listed: nosuch.py is refused: there is no file '" in said
    assert "not listed: ful is refused: HUBTUNE_PLUGINS names it, and it is not installed" in said
    with pytest.raises(UnknownPlugin) as caught:
        registry.load().task(PluginChoice("sentiment"))
    assert "ful is refused: HUBTUNE_PLUGINS names it" in str(caught.value.hint)


@pytest.mark.parametrize(("came", "way"), [
    ("hubtune-stars", "pip install hubtune-stars"), ("stars.py", "--plugin stars.py"), (None, "hubtune tasks"),
])
def test_a_model_of_a_task_that_is_gone_says_where_the_task_came_from(came: str | None, way: str) -> None:
    with pytest.raises(UnknownPlugin) as caught:
        registry.load().task(PluginChoice("stars"), {"plugin": "stars", "distribution": came, "version": "0.2"} if came else None)
    assert way in str(caught.value.hint)
    assert came is None or f"the task 'stars' of {came} 0.2, which is not installed" in caught.value.message


@pytest.mark.parametrize(("plugins", "came", "message", "way"), [
    ("none", {"plugin": "full", "version": "0.1"}, "of hubtune 0.1, which is off: HUBTUNE_PLUGINS=none", None),
    ("", {"plugin": "full", "version": "0.0.1"}, "of hubtune 0.0.1, which has none of that name in version", "pip install hubtune==0.0.1"),
    ("", {"plugin": "full", "version": ""}, "no strategy named 'fuller'. Did you mean 'full'?", None),  # of a class, by no plugin
])
def test_a_plugin_that_is_here_without_what_a_run_needs_is_told_apart(
    plugins: str, came: dict[str, str], message: str, way: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTUNE_PLUGINS", plugins)
    with pytest.raises(UnknownPlugin) as caught:
        registry.load().strategy(PluginChoice("fuller"), {**came, "distribution": "hubtune"})
    assert message in caught.value.message
    assert "pip install" not in str(caught.value.hint) if way is None else way in str(caught.value.hint)


def test_a_run_whose_plugin_is_gone_says_where_it_came_from(tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both a run that is to go on and one that has ended."""
    local_files.use([written(tmp_path)])
    rows = [{"text": f"{'good' if n % 2 else 'bad'} film {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
    folder = tmp_path / "run"
    run = hubtune.train("text-classification", model=str(tiny_model("bert")), data=rows, strategy="way", out=str(folder),
                        set=["train.epochs=1", "train.verify=false"])
    monkeypatch.setenv(local_files.VARIABLE, "")
    record = run.record
    (folder / "run.json").write_text(json.dumps({**record, "state": "started"}), encoding="utf-8")
    with pytest.raises(UnknownPlugin, match=r"made with the strategy 'way' of loose.py sha256:\w+, which is not installed") as caught:
        hubtune.resume(folder, data=rows)
    assert "--plugin loose.py" in str(caught.value.hint)
    came = {"plugin": "stars", "distribution": "hubtune-stars", "version": "0.2"}
    gone = {"recipe": {**record["recipe"], "task": {"name": "stars"}}, "plugins": {**record["plugins"], "task": came}}
    (folder / "run.json").write_text(json.dumps({**record, **gone, "state": "started"}), encoding="utf-8")
    with pytest.raises(UnknownPlugin, match=r"made with the task 'stars' of hubtune-stars 0\.2, which is not installed") as caught:
        hubtune.resume(folder, data=rows)
    assert "pip install hubtune-stars==0.2" in str(caught.value.hint)
    beside = json.loads((folder / "model" / "hubtune.json").read_text(encoding="utf-8"))
    (folder / "model" / "hubtune.json").write_text(json.dumps({**beside, "task": {"name": "stars", "options": {}, "plugin": came}}), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({**record, "seal": seal.make(folder, record)}), encoding="utf-8")
    for model in (folder, folder / "model"):
        with pytest.raises(UnknownPlugin, match=r"made with the task 'stars' of hubtune-stars 0\.2, which is not installed"):
            hubtune.load(model)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "show", "tasks", "strategies", "plugins", "recipe"])
def test_these_commands_have_the_option(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert commands.main([command, "--help"]) == 0
    assert "--plugin FILE" in capsys.readouterr().out


def test_a_child_process_finds_the_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "hubtune", "plugins", "--json"], capture_output=True, text=True, check=False,
                          env={**os.environ, local_files.VARIABLE: str(written(tmp_path))})
    assert done.returncode == 0, done.stderr
    said: list[dict[str, Any]] = [p for p in json.loads(done.stdout)["plugins"] if p["name"] == "loose"]
    assert [(p["status"], p["strategies"]) for p in said] == [("ok", ["way"])]


def test_a_class_of_a_test_takes_the_place_of_an_installed_one() -> None:
    plugins = registry.load()
    full = plugins.strategies["full"]
    own = type("Full", (full,), {"__doc__": "Another."})
    plugins.put(own)
    assert plugins.strategies["full"] is own
    assert plugins.origin(own).name == own.__module__
    plugins.put(own)
    with pytest.raises(BrokenPlugin):
        plugins.put(type("No", (full,), {"summary": None}))
