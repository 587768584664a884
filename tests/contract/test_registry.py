"""The registry: a plugin that cannot be used stays apart, says why, and never breaks another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hubtune import Column, ContrastiveTask, Metric, Strategy, Task, hookimpl, option
from hubtune.cli import listings
from hubtune.contract import registry
from hubtune.contract.registry import Registry, from_module, unavailable
from hubtune.errors import BrokenPlugin, ContractMismatch, MissingExtra, RecipeError, UnknownPlugin
from hubtune.recipe import PluginChoice

OWN_TASKS, OWN_STRATEGIES = ["sentiment", "text-classification"], ["full", "head", "lora"]


METHODS = {name: lambda self, *arguments: None for name in ("encode", "num_tokens", "collate", "loss", "postprocess", "score")}
"""What no task may lack."""


def a_task(**attributes: Any) -> type[Task[Any]]:
    """A whole task class; None takes an attribute away."""
    said = {"contract": 2, "name": "good", "summary": "it is good", "columns": (Column("text", ("text",)),),
            "metric": Metric("accuracy"), "model": "AutoModel", "pipeline_tag": "x", **METHODS, **attributes}
    base = said.pop("base", Task)
    return type("Made", (base,), {key: value for key, value in said.items() if value is not None})


def a_strategy(**attributes: Any) -> type[Strategy[Any]]:
    said = {"contract": 2, "name": "fine", "summary": "it is fine", **attributes}
    return type("Way", (Strategy,), {key: value for key, value in said.items() if value is not None})


def a_module(name: str = "stranger", hook: str = "hubtune_tasks", *kinds: Any) -> ModuleType:
    module = ModuleType(name)

    def give() -> list[Any]:
        return list(kinds)

    give.__name__ = hook
    setattr(module, hook, hookimpl(give))
    return module


def tasks_module(*kinds: Any, name: str = "stranger") -> ModuleType:
    return a_module(name, "hubtune_tasks", *kinds)


def raising(error: BaseException) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


@pytest.fixture
def plugins() -> Registry:
    """A registry with one good plugin."""
    made = Registry()
    assert from_module(tasks_module(a_task(), name="first"), made).status == "ok"
    return made


def still_works(plugins: Registry) -> None:
    assert plugins.task(PluginChoice("good")).name == "good"
    assert from_module(tasks_module(a_task(name="later"), name="last"), plugins).status == "ok"
    assert plugins.task(PluginChoice("later")).name == "later"


# ------------------------------------------------------------------------------------------- what is set apart


@pytest.mark.parametrize("error", [ImportError("no such module"), SyntaxError("bad"), RuntimeError("boom"), SystemExit(3)])
def test_a_plugin_that_does_not_import_is_set_apart(plugins: Registry, error: BaseException) -> None:
    found = plugins.add("stranger", raising(error), version="1.2", source="their-dist")
    assert (found.status, found.reason) == ("broken", f"{type(error).__name__}: {error}")
    assert not any(found.brings.values())
    still_works(plugins)


def test_a_plugin_that_claims_a_taken_name_is_set_apart(plugins: Registry) -> None:
    found = from_module(tasks_module(a_task(), a_task(name="other")), plugins)
    assert found.status == "refused"
    assert found.reason == "Made claims the name 'good', which the plugin 'first' has."
    assert "other" not in plugins.tasks, "a plugin is taken whole or not at all"
    still_works(plugins)


def test_two_classes_of_one_name_in_a_plugin_are_refused(plugins: Registry) -> None:
    assert from_module(tasks_module(a_task(name="twin"), a_task(name="twin")), plugins).status == "refused"


@pytest.mark.parametrize("speaks", [3, 0, "2", None])
def test_a_plugin_that_speaks_another_contract_is_set_apart(plugins: Registry, speaks: Any) -> None:
    found = from_module(tasks_module(a_task(contract=speaks, name="other")), plugins)
    assert (found.status, type(found.error)) == ("refused", ContractMismatch)
    assert found.reason == f"Made speaks contract {speaks}; this hubtune speaks 2."
    still_works(plugins)


@pytest.mark.parametrize("hook", ["hubtune_task", "hubtune_strategys", "hubtune_task_classes"])
def test_a_misspelt_hook_is_set_apart_and_not_silence(plugins: Registry, hook: str) -> None:
    found = from_module(a_module("stranger", hook, a_task(name="other")), plugins)
    assert (found.status, hook in str(found.reason)) == ("broken", True)
    still_works(plugins)


def test_a_hook_with_arguments_that_there_are_not_is_set_apart(plugins: Registry) -> None:
    module = ModuleType("stranger")

    @hookimpl
    def hubtune_tasks(config: Any) -> list[Any]:
        return []

    module.hubtune_tasks = hubtune_tasks  # type: ignore[attr-defined]
    assert from_module(module, plugins).status == "broken"
    still_works(plugins)


def test_a_hook_that_raises_is_set_apart(plugins: Registry) -> None:
    module = ModuleType("stranger")

    @hookimpl
    def hubtune_tasks() -> list[Any]:
        raise KeyError("inside")

    module.hubtune_tasks = hubtune_tasks  # type: ignore[attr-defined]
    found = from_module(module, plugins)
    assert (found.status, found.reason) == ("broken", "KeyError: 'inside'")
    still_works(plugins)


@pytest.mark.parametrize("module", [ModuleType("bare"), tasks_module()])
def test_a_plugin_that_gives_nothing_is_set_apart(plugins: Registry, module: ModuleType) -> None:
    found = from_module(module, plugins)
    assert (found.status, "is a hook missing @hookimpl?" in str(found.reason)) == ("refused", True)
    still_works(plugins)


@pytest.mark.parametrize(("kind", "reason"), [
    (a_strategy(), "Way is not a subclass of hubtune.Task."), (object(), "is not a subclass of hubtune.Task."),
    ("text", "'text' is not a subclass of hubtune.Task."),
    (a_task(metric=None, columns=None, name="other"), "Made lacks columns (a tuple), metric (a Metric)."),
    (a_task(postprocess=None, postproces=METHODS["postprocess"], name="other"),
     "Made lacks `postprocess`. It has a method `postproces`, which hubtune never calls. Did you mean 'postprocess'?"),
    (a_task(base=ContrastiveTask, name="other"), "Made lacks `contrastive_loss`, `embed`."),
    (a_task(name=None), "Made lacks name (a str)."), (a_task(summary=None, name="other"), "Made lacks summary (a str)."),
])
def test_a_class_that_is_no_task_is_set_apart(plugins: Registry, kind: Any, reason: str) -> None:
    found = from_module(tasks_module(kind), plugins)
    assert (found.status, str(found.reason).endswith(reason)) == ("refused", True)
    still_works(plugins)


def no_default() -> type:
    import dataclasses

    return dataclasses.make_dataclass("Needy", [("rank", int)], frozen=True)


@pytest.mark.parametrize("kind", [
    a_task(name="other", Options=no_default()), a_task(name="other", Options=dict), a_task(name="other", metric="accuracy"),
    a_task(name="other", columns=("text",)), a_task(name="other", requires=("not_there.inside",)), a_task(name=5),
], ids=["an option without a default", "options that are no dataclass", "a metric of text", "columns of text",
        "a needed module in a package that is missing", "a name that is a number"])
def test_a_task_with_attributes_of_a_wrong_kind_does_not_break_the_list(
    plugins: Registry, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_module(tasks_module(kind), plugins)
    monkeypatch.setattr(registry, "load", lambda: plugins)
    assert "good" in [task["name"] for task in listings.tasks()["tasks"]]


def unresolved() -> type:
    import dataclasses

    return dataclasses.make_dataclass("Unresolved", [("rank", "Nowhere", option(8, "rank"))], frozen=True)


@pytest.mark.parametrize("wrong", [
    {"defaults": 5}, {"defaults": {"train.lrr": 1e-3}}, {"requires": 5}, {"requires": "peft"}, {"requires": (None,)}, {"Options": unresolved()},
], ids=["defaults that are no mapping", "a default that no recipe has", "needs that are a number", "needs that are a text",
        "a needed package that is none", "an option of a type that there is not"])
def test_a_strategy_with_attributes_of_a_wrong_kind_is_set_apart(plugins: Registry, wrong: dict[str, Any]) -> None:
    found = from_module(a_module("stranger", "hubtune_strategies", a_strategy(**wrong)), plugins)
    assert found.status in ("refused", "broken")


# ------------------------------------------------------------------------------------------------ asking for one


def test_a_broken_plugin_is_an_error_only_for_who_asks_for_it(plugins: Registry) -> None:
    error = RuntimeError("boom")
    plugins.add("stranger", raising(error), source="their-dist")
    with pytest.raises(BrokenPlugin) as caught:
        plugins.task(PluginChoice("stranger"))
    assert caught.value.message == "the plugin 'stranger' of their-dist is broken: RuntimeError: boom"
    assert caught.value.__cause__ is error


def test_an_unknown_name_is_answered_with_the_near_one_and_all(plugins: Registry) -> None:
    with pytest.raises(UnknownPlugin) as caught:
        plugins.task(PluginChoice("goood"))
    assert caught.value.message == "no task named 'goood'. Did you mean 'good'? Installed: good."
    assert caught.value.hint == "See what each does with: hubtune tasks"
    with pytest.raises(UnknownPlugin, match=r"no strategy named 'x'\. Installed: none"):
        plugins.strategy(PluginChoice("x"))


def test_a_package_that_is_missing_is_named_with_what_installs_it() -> None:
    made = Registry()
    from_module(a_module("m", "hubtune_strategies", a_strategy(requires=("json", "not_there"), extra="hubtune[peft]")), made)
    with pytest.raises(MissingExtra) as caught:
        made.strategy(PluginChoice("fine"))
    assert caught.value.message == (
        "the strategy 'fine' cannot run here: it needs not_there. Install it with: pip install 'hubtune[peft]'"
    )
    assert unavailable(a_strategy(requires=("json",))) is None


@pytest.mark.parametrize(("extra", "command"), [
    ("their-dist", "pip install 'their-dist'"), ("their-dist[more]>=2", "pip install 'their-dist[more]>=2'"),
    (None, "pip install not_there nor_this"),
])
def test_a_stranger_s_package_is_installed_by_its_own_name(extra: str | None, command: str) -> None:
    said = str(unavailable(a_strategy(requires=("not_there", "json", "nor_this"), extra=extra)))
    assert said == f"it needs not_there, nor_this. Install it with: {command}"


def test_options_are_checked_against_the_plugin_s_own() -> None:
    import dataclasses

    options = dataclasses.make_dataclass("Options", [("rank", int, option(8, "rank", choices=(4, 8)))], frozen=True)
    made = Registry()
    from_module(a_module("m", "hubtune_strategies", a_strategy(Options=options)), made)
    assert made.strategy(PluginChoice("fine", {"rank": 4})).options.rank == 4
    assert made.strategy(PluginChoice("fine")).options.rank == 8
    with pytest.raises(RecipeError, match=r"no key strategy\.rnak\. Did you mean 'rank'\? Keys: rank"):
        made.strategy(PluginChoice("fine", {"rnak": 4}))
    with pytest.raises(RecipeError, match=r"strategy\.rank must be one of 4, 8, not 5"):
        made.strategy(PluginChoice("fine", {"rank": 5}))


def test_a_class_knows_the_plugin_it_came_from(plugins: Registry) -> None:
    assert plugins.origin(plugins.tasks["good"]).name == "first"


# --------------------------------------------------------------------------------------------- what is installed


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """stranger(code) installs a distribution with one plugin of that code for this test."""

    def install(code: str) -> None:
        (tmp_path / "stranger_plugin.py").write_text(code, encoding="utf-8")
        folder = tmp_path / "stranger-0.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.3\n", encoding="utf-8")
        (folder / "entry_points.txt").write_text("[hubtune]\nanother = stranger_plugin\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "stranger_plugin", raising=False)

    return install


def names_by_status() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for plugin in registry.load().plugins:
        found.setdefault(plugin.status, set()).add(plugin.name)
    return found


def test_the_plugins_of_hubtune_are_there() -> None:
    found = registry.load()
    assert set(OWN_TASKS) <= set(found.tasks)
    assert set(OWN_STRATEGIES) <= set(found.strategies)
    assert {plugin.source for plugin in found.plugins if plugin.name in OWN_STRATEGIES} == {"hubtune"}


WHOLE = """
from hubtune import Strategy, hookimpl

class Way(Strategy):
    contract = 2
    name = "{name}"
    summary = "another way"

@hookimpl
def hubtune_strategies():
    return [Way]
"""


def test_a_stranger_s_plugin_is_found_by_its_entry_point(stranger: Callable[[str], None]) -> None:
    stranger(WHOLE.format(name="way"))
    found = registry.load()
    assert found.strategies["way"].summary == "another way"
    assert [(p.version, p.source) for p in found.plugins if p.name == "another"] == [("0.3", "stranger")]


@pytest.mark.parametrize(("code", "status"), [
    ("raise RuntimeError('boom')", "broken"), ("import not_there", "broken"), ("def", "broken"), ("x = 1", "refused"),
    (WHOLE.format(name="full"), "refused"), (WHOLE.replace("contract = 2", "contract = 9").format(name="way"), "refused"),
])
def test_a_broken_stranger_leaves_all_others_working(stranger: Callable[[str], None], code: str, status: str) -> None:
    stranger(code)
    found = registry.load()
    assert [plugin.status for plugin in found.plugins if plugin.name == "another"] == [status]
    assert found.strategy(PluginChoice("full")).summary == "every weight learns"
    assert set(OWN_TASKS) <= set(found.tasks)


def test_a_distribution_without_metadata_leaves_all_others_working(
    stranger: Callable[[str], None], tmp_path: Path
) -> None:
    stranger(WHOLE.format(name="way"))
    (tmp_path / "stranger-0.3.dist-info" / "METADATA").unlink()
    assert set(OWN_TASKS) <= set(registry.load().tasks)


def test_none_of_the_plugins_may_be_wanted(stranger: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stranger(WHOLE.format(name="way"))
    monkeypatch.setenv("HUBTUNE_PLUGINS", "none")
    assert set(names_by_status()) == {"off"}
    assert not registry.load().tasks
    with pytest.raises(UnknownPlugin, match="Installed: none"):
        registry.load().task(PluginChoice("sentiment"))


def test_only_hubtune_s_own_may_be_wanted(stranger: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stranger(WHOLE.format(name="way"))
    monkeypatch.setenv("HUBTUNE_PLUGINS", "own")
    found = names_by_status()
    assert found["off"] == {"another"}
    assert set(OWN_STRATEGIES) <= found["ok"]


def test_plugins_may_be_wanted_by_name(stranger: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stranger(WHOLE.format(name="way"))
    monkeypatch.setenv("HUBTUNE_PLUGINS", "full, another")
    assert names_by_status()["ok"] == {"full", "another"}
    assert set(registry.load().strategies) == {"full", "way"}
    off = [plugin for plugin in registry.load().plugins if plugin.status == "off"]
    assert {plugin.reason for plugin in off} == {"HUBTUNE_PLUGINS=full, another"}


def test_a_plugin_that_is_wanted_and_not_installed_is_listed_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBTUNE_PLUGINS", "full, ful")
    missing = [(p.name, p.reason) for p in registry.load().plugins if p.status == "refused"]
    assert missing == [("ful", "HUBTUNE_PLUGINS names it, and it is not installed")]
    assert set(registry.load().strategies) == {"full"}


def test_a_plugin_that_is_off_is_not_imported(stranger: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    stranger("raise RuntimeError('boom')")
    monkeypatch.setenv("HUBTUNE_PLUGINS", "own")
    registry.load()
    assert "stranger_plugin" not in sys.modules
