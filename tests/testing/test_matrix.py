"""`hubtune plugins --check`: every task with every strategy, and what became of each pair."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from hubtune import Export, Strategy
from hubtune.cli import commands
from hubtune.contract import registry
from hubtune.contract.registry import Registry
from hubtune.errors import DataError, ModelError
from hubtune.testing import matrix


def way(name: str, **attributes: Any) -> type[Strategy[Any]]:
    return type("Way", (Strategy,), {"__doc__": "A way.", "contract": 2, "name": name, "summary": name, **attributes})


def raising(self: Any, *rest: Any) -> Any:
    raise KeyError("encoder")


def another(self: Any, model: Any) -> Export:
    import torch

    with torch.no_grad():
        next(p for n, p in model.named_parameters() if n == "classifier.weight").add_(1.0)
    return Export(root=model)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """One real task, and strategies of which some cannot work."""
    own = registry.load()
    made = Registry()
    for kind in (own.tasks["text-classification"], own.strategies["full"], way("raises", prepare=raising), way("exports", export=another),
                 way("lacks", requires=("not_there",)), way("refuses", refuse=lambda self, task, config: "it has no wings")):
        made.put(kind)
    monkeypatch.setattr(registry, "load", lambda: made)
    return made


def test_a_pair_passes_fails_or_does_not_apply(
    plugins: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.main(["plugins", "--check", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert out.count("\n") == 1
    assert list(found) == ["contract", "cells", "counts"]
    assert found["counts"] == {"pass": 1, "fail": 2, "not-applicable": 2}
    assert all(list(cell) == ["task", "strategy", "model", "result", "reason", "seconds"] for cell in found["cells"])
    said = {cell["strategy"]: (cell["model"], cell["result"], cell["reason"]) for cell in found["cells"]}
    assert said["full"] == ("bert", "pass", None)
    assert said["raises"] == ("bert", "fail", "KeyError: 'encoder'")
    assert said["exports"][:2] == ("bert", "fail")
    assert "differs from the trained one" in said["exports"][2]
    assert said["lacks"] == (None, "not-applicable", "it needs not_there. Install it with: pip install not_there")
    assert said["refuses"] == ("bert", "not-applicable", "it has no wings")
    assert "text-classification: 2 pass, 1 fail, 2 not-applicable" in err

    monkeypatch.setattr(matrix, "check", lambda *rest: found)
    assert commands.main(["plugins", "--check"]) == 1
    table = capsys.readouterr().out
    assert "FAIL" in table
    assert "it has no wings" in table
    assert table.endswith("1 pass, 2 fail, 2 do not apply\n")


def test_a_task_that_cannot_be_set_up_fails_with_every_strategy(plugins: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubtune_plugins.text.fixtures.Classification.sample", raising)
    found = matrix.check(plugins, names=["full", "refuses"])
    assert [(cell["result"], cell["reason"]) for cell in found["cells"]] == [("fail", "KeyError: 'encoder'")] * 2


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["plugins", "fulll", "--check"], 1, "no task or strategy named 'fulll'. Did you mean 'full'?"),
    (["plugins", "full"], 2, "without it, all plugins are listed"),
])
def test_names_are_checked(
    capsys: pytest.CaptureFixture[str], plugins: Registry, arguments: list[str], status: int, message: str
) -> None:
    assert commands.main(arguments) == status
    assert message in " ".join(capsys.readouterr().err.split())


def test_only_named_pairs_are_tried(plugins: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, str]] = []
    look: Callable[..., list[Any]] = lambda plugins, cells, *rest: tried.extend((c.task, c.strategy) for c in cells) or []  # noqa: E731
    monkeypatch.setattr(matrix, "check_task", look)
    matrix.check(plugins, names=["full", "raises"])
    assert tried == [("text-classification", "full"), ("text-classification", "raises")]


def test_a_loss_that_is_no_sum_fails_with_every_strategy(plugins: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = plugins.tasks["text-classification"]
    real = kind.loss
    monkeypatch.setattr(kind, "loss", lambda self, outputs, batch: dataclasses.replace(
        made := real(self, outputs, batch), total=made.total / batch.size))  # type: ignore[arg-type, union-attr]
    [cell] = matrix.check(plugins, names=["full"])["cells"]
    assert (cell["result"], "in two halves" in str(cell["reason"])) == ("fail", True)


def test_a_task_that_needs_options_and_a_model_that_is_declined_do_not_apply(plugins: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def declining(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
        raise ModelError("it has no batch norms")

    def asking(self: Any, splits: Any) -> Any:
        raise DataError("task.order names the levels.")

    monkeypatch.setattr(plugins.strategies["raises"], "prepare", declining)
    [cell] = matrix.check(plugins, names=["raises"])["cells"]
    assert (cell["result"], cell["reason"]) == ("not-applicable", "it has no batch norms")
    monkeypatch.setattr(plugins.tasks["text-classification"], "validate_data", asking)
    [cell] = matrix.check(plugins, names=["full"])["cells"]
    assert (cell["result"], cell["reason"]) == ("not-applicable", "task.order names the levels.")
