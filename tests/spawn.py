"""Several processes that train together, forked from one that has imported what each needs."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from toy import Contrast, make_context

from hubtune.devices import processes

forks = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are not forked on this system")


PRELOADED = ("torch.distributed.fsdp", "hubtune.runs.stages", "datasets", "sklearn.metrics", "peft", "transformers.models.bert.modeling_bert")
"""What processes would each wait for, if they were not forked from one that has it."""


SETTINGS: dict[str, Any] = {"batch_size": 5, "keep": "best", "epochs": 3.0, "batch_norm": "frozen"}


class Scored(Contrast):
    """With an answer that can be scored."""

    def postprocess(self, outputs: Any, batch: Any, base: Any) -> Any:
        return super().postprocess(outputs[:, :1], batch, base)


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def trained(
    folder: Path, task: Any, strategy: Any, *, resume: bool = False, stop: int | None = None, shard: bool = False
) -> dict[str, torch.Tensor]:
    made = make_context(folder, task(), strategy(), resume=resume, shard=shard, **SETTINGS)
    tiny.trained(made, stop)
    return dict(made.model.state_dict())


def process(rank: int, count: int, there: int, place: Path, work: Any, arguments: Any, more: Any) -> None:
    """One process of several, which says what it ends with: what `work` returns."""
    os.environ.update(WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(there), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    try:
        if count > 1:
            processes.join("cpu")
        torch.save(work(*arguments, **more), place / f"{rank}.pt")
        processes.destroy_group()
    except BaseException:
        (place / f"{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def in_processes(count: int, folder: Path, *arguments: Any, work: Any = trained, **more: Any) -> list[Any]:
    """What each of so many processes ends with: what `work` returns for the folder and further arguments."""
    there, place = port(), folder.parent / f"{folder.name}-{count}-said"
    place.mkdir(exist_ok=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["toy", "spawn", *PRELOADED])
    children = [server.Process(target=process, args=(rank, count, there, place, work, (folder, *arguments), more)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        child.kill()
    said = "\n".join(path.read_text(encoding="utf-8") for path in sorted(place.glob("*.txt")))
    assert [child.exitcode for child in children] == [0] * count, said
    return [torch.load(place / f"{rank}.pt") for rank in range(count)]


def losses(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: line[name] for name in line if "loss" in name or name in ("step", "error", "validation_error", "penalty")}
            for line in lines]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
