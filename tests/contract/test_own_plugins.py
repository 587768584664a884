"""Every task and strategy that comes with hubtune passes the conformance kit; whole runs are in the tests of each family.

`hubtune plugins --check` tries them with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiny import skip_where_versions_disagree

from hubtune.contract import registry
from hubtune.testing import StrategyConformance, TaskConformance

OWN = [found for found in registry.load().plugins if found.source == "hubtune"]
PLUGINS = registry.load()
WHOLE = ("test_it_trains_publishes_and_loads_without_hubtune", "test_a_resumed_run_is_the_uninterrupted_one")
"""Checks that train through the public API: seconds each, and made by the families' own tests."""
TASKS = {name: PLUGINS.tasks[name] for found in OWN for name in found.brings["tasks"]}
STRATEGIES = {name: PLUGINS.strategies[name] for found in OWN for name in found.brings["strategies"]}
KITS = [*((TaskConformance, kind) for kind in TASKS.values()), *((StrategyConformance, kind) for kind in STRATEGIES.values())]
SETTINGS: dict[str, dict[str, Any]] = {}
"""What a plugin's kit is told beyond its class."""


def kits() -> Iterator[Any]:
    for kit, kind in KITS:
        yield pytest.param(type("Kit", (kit,), {"plugin": kind, **SETTINGS.get(kind.name, {})}), id=kind.name)


@pytest.mark.parametrize("kit", list(kits()))
def test_it_conforms(kit: Any) -> None:
    kit.setup_class()
    try:
        made = kit()
        if isinstance(made, StrategyConformance):
            bench = kit.bench()
            skip_where_versions_disagree(kit.made().refuse(bench.task, bench.base.config))
        checks = sorted(name for name in dir(kit) if name.startswith("test_") and name not in (*WHOLE, *kit.skips))
        assert len(checks) >= 8
        faults = []
        for name in checks:
            try:
                getattr(made, name)()
            except Exception as error:
                faults.append(f"{name}: {type(error).__name__}: {error}")
        assert faults == [], "\n".join(faults)
    finally:
        kit.teardown_class()


def test_there_is_a_plugin_behind_every_entry_point() -> None:
    assert OWN
    assert [(found.name, found.reason) for found in OWN if found.status != "ok"] == []
