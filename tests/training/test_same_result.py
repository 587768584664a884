"""A run with dropout on ends with the same weights on any number of processes, after an out-of-memory error, and under load."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from spawn import forks, in_processes
from toy import Numbers, Plain, Tight, make_context

import hubtune

ROWS = [{"text": "good " * (1 + n % 9) if n % 2 else "bad " * (2 + n % 7), "label": "yes" if n % 2 else "no"} for n in range(40)]


def train_with_dropout(folder: Path, task: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of the steps and the weights at the end."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    made = make_context(folder, task(), Plain(), model, keep="last")
    tiny.trained(made)
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "grad_norm" in line], dict(made.model.state_dict())


def assert_same(found: tuple[list[float], dict[str, torch.Tensor]], expected: tuple[list[float], dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-11)


class WithoutDropout(Numbers):
    def forward(self, model: Any, batch: Any) -> Any:
        model.eval()
        return super().forward(model, batch)


@forks
@pytest.mark.parametrize("count", [2, 4])
def test_losses_with_dropout_are_those_of_one_process(count: int, tmp_path: Path) -> None:
    alone = train_with_dropout(tmp_path / "one", Numbers)
    for found in in_processes(count, tmp_path / "many", Numbers, work=train_with_dropout):
        assert_same(found, alone)


def test_dropout_matters_here(tmp_path: Path) -> None:
    one, other = (train_with_dropout(tmp_path / task.__name__, task)[0] for task in (Numbers, WithoutDropout))
    assert one != pytest.approx(other, rel=1e-3)


def test_losses_with_dropout_are_the_same_after_an_out_of_memory_error(tmp_path: Path) -> None:
    roomy, tight = (train_with_dropout(tmp_path / task.__name__, task) for task in (Numbers, Tight))
    assert_same(tight, roomy)
    counts = [json.loads(line).get("micro_batches") for line in (tmp_path / "Tight" / "log.jsonl").read_text().splitlines()]
    assert {1, 2} <= set(counts)


def test_runs_beside_a_busy_loop_have_one_hash(tiny_model: Any, tmp_path: Path) -> None:
    settings = {"train.epochs": 1.0, "train.batch_size": 8, "train.precision": "bf16", "train.verify": False}
    hashes = set()
    for number in range(4):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (number % 2))]
        try:
            run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / str(number), set=settings)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        hashes.add(hashlib.sha256((run.folder / "model" / "model.safetensors").read_bytes()).hexdigest())
    assert len(hashes) == 1
