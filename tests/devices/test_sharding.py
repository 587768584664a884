"""Sharded weights are trained like whole ones, and weights that cannot be sharded are refused with the reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from spawn import Scored, forks, in_processes, losses
from torch import nn
from toy import Numbers, Penalised, Plain, make_context

import hubtune
from hubtune import Phase, Strategy
from hubtune.devices import processes, sharding
from hubtune.errors import RecipeError, TrainingError


class Block(nn.Module):
    """Two layers, and a weight that two processes cannot share evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 4))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Any) -> Any:
        return x + self.scale * self.inner(x)


class Stack(nn.Module):
    """A stack of blocks under a head; one weight is used twice."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.into = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.again = nn.Linear(4, 4)
        self.again.weight = self.into.weight
        self.head = nn.Linear(4, outputs)

    def forward(self, input: Any) -> Any:
        x = self.into(input)
        for block in self.blocks:
            x = block(x)
        return self.head(self.again(x))


class Frozen(Strategy[Any]):
    """Some of a block learns beside what does not."""

    contract, name, summary = 2, "frozen", "a part"

    def prepare(self, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.endswith("inner.0.weight") or name.startswith("head")
        return model


class TopDown(Strategy[Any]):
    """The head first, then the last block, then all."""

    contract, name, summary = 2, "top-down", "three phases"

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("head", 0.3, rate=2.0), Phase("blocks.2", 0.3), Phase("all", 0.4))

    def start_phase(self, model: Any, phase: Phase) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = phase.name == "all" or name.startswith(("head", phase.name))


class Holding(Strategy[Any]):
    """Keeps the weights that it saw first."""

    contract, name, summary = 2, "holding", "old weights"

    def prepare(self, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
        self.seen = list(model.parameters())
        return model

    def param_groups(self, model: Any, weight_decay: float) -> Any:
        return [{"params": self.seen}]


def trained(folder: Path, task: Any, strategy: Any, *, shard: bool = False, resume: bool = False, stop: int | None = None,
            model: Any = Stack) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = make_context(folder, task(), strategy(), model(3 if task is Scored else 1), resume=resume, shard=shard, batch_size=5, epochs=3.0,
                weight_decay=0.1, max_grad_norm=0.5)
    tiny.trained(made, stop)
    return {name: sharding.full_tensor(value.detach()) for name, value in made.model.state_dict().items()}


def assert_same(found: list[dict[str, torch.Tensor]], alone: dict[str, torch.Tensor]) -> None:
    for state in found:
        assert state.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-11, atol=1e-12)


@forks
@pytest.mark.parametrize(("task", "strategy", "count"), [
    (Numbers, Plain, 2), (Numbers, Plain, 4), (Scored, Plain, 2), (Numbers, Frozen, 2), (Numbers, TopDown, 2),
])
def test_parts_of_the_weights_train_as_whole_ones_do(task: Any, strategy: Any, count: int, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", task, strategy)
    assert_same(in_processes(count, tmp_path / "many", task, strategy, work=trained, shard=True), alone)
    for line, other in zip(losses(tmp_path / "one"), losses(tmp_path / "many"), strict=True):
        assert other == pytest.approx(line, rel=1e-11)


@forks
@pytest.mark.parametrize(("before", "after"), [((2, True), (1, False)), ((1, False), (2, True)), ((2, True), (4, True)), ((2, False), (2, True))])
def test_a_run_goes_on_on_other_processes_with_and_without_parts(before: Any, after: Any, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", Numbers, TopDown)
    in_processes(before[0], tmp_path / "many", Numbers, TopDown, work=trained, shard=before[1], stop=5)
    assert_same(in_processes(after[0], tmp_path / "many", Numbers, TopDown, work=trained, shard=after[1], resume=True), alone)


def published(folder: Path, model: Path, strategy: str, shard: str) -> None:
    """A whole run, from the recipe to the saved model. shard: `train.fsdp`; auto: as a launcher says that is configured for FSDP."""
    if shard == "auto":  # what Accelerate alone would make DDP of, on CPUs
        os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    rows = [{"text": f"{'good' if n % 2 else 'bad'} film {n}" + " and so on" * (n % 5), "label": "yes" if n % 2 else "no"} for n in range(24)]
    sets = [f"train.fsdp={shard}", "train.epochs=2", "train.batch_size=6", "train.precision=fp64", "train.learning_rate=1e-2", "train.verify=false"]
    hubtune.train("text-classification", model=str(model), data=rows, strategy=strategy, out=str(folder), set=sets)


@forks
@pytest.mark.parametrize(("strategy", "asked"), [("full", ["auto", "off"]), ("lora", ["on"])])
def test_a_model_that_was_trained_in_parts_is_saved_whole(strategy: str, asked: list[str], tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    published(tmp_path / "one", model, strategy, "off")
    alone = load_file(tmp_path / "one" / "model" / "model.safetensors")
    for name in asked:
        in_processes(2, tmp_path / name, model, strategy, name, work=published)
        said = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))["processes"]
        assert said == {"count": 2, "shard": "none" if name == "off" else "full"}
        found = load_file(tmp_path / name / "model" / "model.safetensors")
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-11)
        for line, other in zip(losses(tmp_path / "one"), losses(tmp_path / name), strict=True):
            assert other == pytest.approx(line, rel=1e-10)


def test_blocks_are_found_by_structure() -> None:
    stack = Stack(1)
    assert sharding.find_blocks(stack) == list(stack.blocks)
    stack.again.weight = stack.blocks[1].inner[2].weight = nn.Parameter(torch.ones(4, 7))  # type: ignore[index, union-attr, assignment]
    assert sharding.find_blocks(stack) == []


class Single(Stack):
    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        self.temperature = nn.Parameter(torch.tensor(1.0))


class Looking(Stack):
    """Reads a block's weight beside its forward pass."""

    def forward(self, input: Any) -> Any:
        return super().forward(input) + self.blocks[0].inner[0].weight.sum()  # type: ignore[index, union-attr]


def refused(folder: Path, strategy: Any, model: Any) -> str:
    with pytest.raises(TrainingError) as found:
        trained(folder, Numbers, strategy, shard=True, model=model)
    return str(found.value)


@forks
@pytest.mark.parametrize(("strategy", "model", "reason"), [
    (Plain, Single, "temperature is a scalar"), (Plain, Looking, "looks at weights beside"), (Holding, Stack, "keeps references to unsharded weights"),
])
def test_weights_that_cannot_be_sharded_are_refused(strategy: Any, model: Any, reason: str, tmp_path: Path) -> None:
    first, other = in_processes(2, tmp_path / "many", strategy, model, work=refused)
    assert reason in first
    assert other == first  # each raises it; the command line says it in the first one


def test_a_strategy_that_looks_at_the_weights_is_refused() -> None:
    assert "reads the weights" in str(sharding.strategy_refusal(Penalised()))
    assert sharding.strategy_refusal(Plain()) is None


def test_statistics_that_follow_the_data_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert "statistics of 1" in str(sharding.model_refusal(model))
    assert sharding.model_refusal(model, [model[1]]) is None


def test_fsdp_in_a_single_process_is_refused_for_training_and_warned_of_for_checks(tiny_model: Any, tmp_path: Path) -> None:
    rows = [{"text": f"film {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
    out = tmp_path / "run"
    arguments: dict[str, Any] = {"model": str(tiny_model("bert")), "data": rows, "out": str(out)}
    with pytest.raises(RecipeError, match="over several processes, but there is only one") as caught:
        hubtune.train("text-classification", set=["train.fsdp=on"], **arguments)
    assert "torchrun --nproc-per-node N -m hubtune train" in str(caught.value.hint)
    assert not out.exists()
    said = hubtune.check("text-classification", set=["train.fsdp=on"], **arguments)
    assert [line for line in said["warnings"] if "train.fsdp=on" in line]
    assert not hubtune.check("text-classification", set=["train.fsdp=auto"], **arguments)["warnings"]


@pytest.mark.parametrize(("said", "wanted", "shards"), [
    ({}, "auto", False), ({}, "on", True), ({}, "off", False),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "auto", True), ({"ACCELERATE_USE_FSDP": "false", "FSDP_VERSION": "1"}, "auto", False),
])
def test_the_recipe_or_the_launcher_asks_for_parts(said: dict[str, str], wanted: str, shards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert not processes.use_fsdp(wanted)  # one process has nobody to share with
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.use_fsdp(wanted) is shards


@pytest.mark.parametrize(("said", "wanted", "reason"), [
    ({"ACCELERATE_USE_FSDP": "true"}, "auto", "FSDP 1"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "off", "train.fsdp=off"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "auto", "offloading of parameters to the CPU"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "auto", "DeepSpeed"),
])
def test_unsupported_launcher_features_are_refused(
    said: dict[str, str], wanted: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=reason):
        processes.use_fsdp(wanted)
