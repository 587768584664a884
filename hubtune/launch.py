"""Several processes that train one model: which of them this is, what they tell each other, and launchers that lost some.

Processes are started by `torchrun` or `accelerate launch`, which say so in the environment. The first process alone
writes files and speaks; the others compute.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hubtune.errors import RecipeError

Value = TypeVar("Value")


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes and speaks: the first of all, on whatever host."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse_lonely() -> None:
    """Refuse processes that would each train a model of their own: a launcher asked for several, and gave one."""
    said = asked_of(parent(), os.environ)
    if world() == 1 and said is not None:
        launcher, asked = said
        raise RecipeError(
            f"{launcher} was asked for {asked} processes, and this one is alone: nothing says that there are others.",
            hint=f"On CPUs: torchrun --nproc-per-node {asked} -m hubtune train ...\n"
            f"On GPUs: accelerate launch --multi_gpu --num_processes {asked} -m hubtune train ...",
        )
    if world() > 1 and not os.environ.get("MASTER_ADDR"):
        raise RecipeError(f"WORLD_SIZE={world()} says that there are other processes, and nothing says where.",
                          hint="Start them with: torchrun --nproc-per-node N -m hubtune train ...")


def asked_of(command: list[str], environment: Mapping[str, str]) -> tuple[str, int] | None:
    """The launcher that started this process and how many it was asked for, where that is more than one."""
    words = " ".join(command)
    if "accelerate" in words and "launch" in command:
        found = re.search(r"--num[-_]processes[= ](\d+)", words)
        if found and int(found[1]) > 1:
            return "accelerate launch", int(found[1])
    for name, launcher in (("SLURM_NTASKS", "srun"), ("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpirun")):
        is_started = launcher != "srun" or ("SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment)
        if is_started and environment.get(name, "").isdigit() and int(environment[name]) > 1:
            return launcher, int(environment[name])
    return None


def parent() -> list[str]:
    """The command line of the process that started this one; empty where it cannot be read."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []


def join(device: str) -> None:
    """Be one of the processes: over gloo on CPUs, NCCL on GPUs."""
    from accelerate import PartialState

    found = PartialState(cpu=device == "cpu").num_processes
    if found != world():
        raise RecipeError(f"{world()} processes were started, and {found} found each other.",
                          hint="Start them with: torchrun --nproc-per-node N -m hubtune train ...")


def state() -> Any:
    """What shares work among the processes: `num_processes` and `process_index`; None where there is one."""
    if world() == 1:
        return None
    from accelerate import PartialState

    return PartialState()


def together(value: Value) -> Value:
    """The first process' value, in all of them."""
    if world() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [value]
    broadcast_object_list(found, from_process=0)
    said: Value = found[0]
    return said


def any_of(value: bool) -> bool:
    """Whether it is so in any process."""
    if world() == 1:
        return value
    from accelerate.utils import gather_object

    return any(gather_object([value]))


def leave() -> None:
    """Let go of the others: a process that ends without it takes them along."""
    if world() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()
