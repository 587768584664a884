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

from hubtune.errors import HubtuneError, RecipeError

Value = TypeVar("Value")

UNKNOWN = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a layout of devices of its own", "FSDP_OFFLOAD_PARAMS": "weights that wait in the CPU's memory",
    "FSDP_ACTIVATION_CHECKPOINTING": "activations that are computed again",
}
"""Variables by which `accelerate launch` asks for what is not done here, and what that is: nobody shall believe that it was."""


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among those that train together, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process writes and speaks: the first of all, on whatever host."""
    return rank() == 0


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


def shards(wanted: str) -> bool:
    """Whether each process holds a part of the weights only. wanted: `train.fsdp`; `accelerate launch` may ask for it, too."""
    asked = is_on("ACCELERATE_USE_FSDP")
    for name, what in UNKNOWN.items():
        if is_on(name) and (asked or not name.startswith("FSDP_")):
            raise RecipeError(f"accelerate launch was configured for {what}, which hubtune does not do.",
                              hint="Answer no to it in: accelerate config")
    if asked and os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError(
            "accelerate launch was configured for FSDP 1, which makes one tensor of all weights of a block: what a strategy "
            "freezes, or gives a rate of its own, would be lost in it.",
            hint="Set fsdp_version: 2 in accelerate's configuration, or: accelerate launch --use_fsdp --fsdp_version 2 ...",
        )
    if asked and wanted == "off":
        raise RecipeError("accelerate launch was configured for FSDP, and the recipe says train.fsdp=off.",
                          hint="Leave train.fsdp at auto, or launch without FSDP.")
    return world() > 1 and (asked or wanted == "on")


def nobody_to_share_with(wanted: str) -> RecipeError | None:
    """What to say where one process is asked to share its weights out: it would hold all of them. None where there are others."""
    if wanted != "on" or world() > 1:
        return None
    return RecipeError(
        "train.fsdp=on shares the weights out over several processes, and this is one: it would hold all of them.",
        hint="On CPUs: torchrun --nproc-per-node N -m hubtune train ...\n"
        "On GPUs: accelerate launch --multi_gpu --num_processes N -m hubtune train ...\n"
        "Or train in one process, with whole weights: --set train.fsdp=auto",
    )


def is_on(name: str) -> bool:
    """Whether a launcher has set a variable to true."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


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
    """Be one of the processes: over gloo on CPUs, NCCL on GPUs. Returns when all are there.

    What a launcher says of FSDP has been read (`shards`), and is hidden from here on: on CPUs Accelerate would make DDP of
    it, and transformers would load weights in the first process alone.
    """
    if is_on("ACCELERATE_USE_FSDP"):
        os.environ["ACCELERATE_USE_FSDP"] = "false"
    if world() == 1:
        return
    from accelerate import PartialState

    joined = PartialState(cpu=device == "cpu")
    if joined.num_processes != world():
        raise RecipeError(f"{world()} processes were started, and {joined.num_processes} found each other.",
                          hint="Start them with: torchrun --nproc-per-node N -m hubtune train ...")
    joined.wait_for_everyone()


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


def any_of(*values: bool) -> tuple[bool, ...]:
    """Of each of these, whether it is so in any process."""
    if world() == 1:
        return values
    import torch
    from accelerate.utils import reduce

    counts = torch.tensor(values, dtype=torch.float32, device=state().device)
    return tuple(bool(count) for count in reduce(counts).tolist())


def once(error: HubtuneError) -> HubtuneError:
    """An error that all processes raise at the same place: the command line says it in the first one alone."""
    error.is_shared = True
    return error


def leave() -> None:
    """Let go of the others: a process that ends without it takes them along."""
    if world() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
