"""Processes of a distributed training: rank, launcher checks, and communication between them.

Processes are started by `torchrun` or `accelerate launch`, which set environment variables. Only
the first process writes files and prints; the others compute.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hubtune.errors import HubtuneError, RecipeError

Value = TypeVar("Value")

UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
    "FSDP_OFFLOAD_PARAMS": "offloading of parameters to the CPU",
    "FSDP_ACTIVATION_CHECKPOINTING": "activation checkpointing",
}
"""Variables by which `accelerate launch` asks for unsupported features, which are refused."""


def world_size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the rank of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Tell whether this process writes files and prints: rank 0, on whatever host."""
    return rank() == 0


def check_launcher() -> None:
    """Refuse processes that would each train a model of their own, without a process group."""
    request = launcher_request(parent_command(), os.environ)
    if world_size() == 1 and request is not None:
        launcher, count = request
        raise RecipeError(
            f"{launcher} was asked for {count} processes, but WORLD_SIZE is not set: each would "
            "train alone.",
            hint=f"On CPUs: torchrun --nproc-per-node {count} -m hubtune train ...\n"
            f"On GPUs: accelerate launch --multi_gpu --num_processes {count} -m hubtune train ...",
        )
    if world_size() > 1 and not os.environ.get("MASTER_ADDR"):
        raise RecipeError(f"WORLD_SIZE is {world_size()}, but MASTER_ADDR is not set.",
                          hint="Start them with: torchrun --nproc-per-node N -m hubtune train ...")


def use_fsdp(wanted: str) -> bool:
    """Tell whether to shard the weights over the processes.

    Args:
        wanted: `train.fsdp`; `accelerate launch` may ask for FSDP too.

    Raises:
        RecipeError: unsupported features of `accelerate launch`, or a contradiction.
    """
    requested = is_on("ACCELERATE_USE_FSDP")
    for name, what in UNSUPPORTED.items():
        if is_on(name) and (requested or not name.startswith("FSDP_")):
            raise RecipeError(
                f"accelerate launch was configured for {what}, which hubtune does not support.",
                hint="Disable it in: accelerate config")
    if requested and os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError(
            "accelerate launch was configured for FSDP 1, which flattens the weights of a block "
            "into one "
            "tensor: frozen parameters and parameter groups would be lost.", hint=
            "Set fsdp_version: 2 in accelerate's configuration, or: accelerate launch --use_fsdp "
            "--fsdp_version 2 ...",
        )
    if requested and wanted == "off":
        raise RecipeError(
            "accelerate launch was configured for FSDP, but the recipe has train.fsdp=off.",
            hint="Leave train.fsdp at auto, or launch without FSDP.")
    return world_size() > 1 and (requested or wanted == "on")


def single_process_error(wanted: str) -> RecipeError | None:
    """Return the error of train.fsdp=on in a single process; None if there are several."""
    if wanted != "on" or world_size() > 1:
        return None
    return RecipeError(
        "train.fsdp=on shards the weights over several processes, but there is only one.",
        hint="On CPUs: torchrun --nproc-per-node N -m hubtune train ...\n"
        "On GPUs: accelerate launch --multi_gpu --num_processes N -m hubtune train ...\n"
        "Or train in one process, without sharding: --set train.fsdp=auto",
    )


def is_on(name: str) -> bool:
    """Tell whether an environment variable is set to true."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def launcher_request(command: list[str], environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the launcher and the requested number of processes, if more than one."""
    words = " ".join(command)
    if "accelerate" in words and "launch" in command:
        found = re.search(r"--num[-_]processes[= ](\d+)", words)
        if found and int(found[1]) > 1:
            return "accelerate launch", int(found[1])
    launchers = (("SLURM_NTASKS", "srun"), ("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE",
                                                                                "mpirun"))
    in_slurm_step = "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment
    for name, launcher in launchers:
        is_started = launcher != "srun" or in_slurm_step
        if is_started and environment.get(name, "").isdigit() and int(environment[name]) > 1:
            return launcher, int(environment[name])
    return None


def parent_command() -> list[str]:
    """Return the command line of the parent process; empty where it cannot be read."""
    path = Path(f"/proc/{os.getppid()}/cmdline")
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []


def join(device: str) -> None:
    """Join the process group: gloo on CPUs, NCCL on GPUs. Returns when all processes have joined.

    The FSDP variable of the launcher has been read by `use_fsdp`, and is hidden from here on: on
    CPUs Accelerate would use DDP instead, and transformers would load weights in the first process
    only.
    """
    if is_on("ACCELERATE_USE_FSDP"):
        os.environ["ACCELERATE_USE_FSDP"] = "false"
    if world_size() == 1:
        return
    from accelerate import PartialState

    joined = PartialState(cpu=device == "cpu")
    if joined.num_processes != world_size():
        raise RecipeError(
            f"WORLD_SIZE is {world_size()}, but {joined.num_processes} processes joined.",
            hint="Start them with: torchrun --nproc-per-node N -m hubtune train ...")
    joined.wait_for_everyone()


def partial_state() -> Any:
    """Return Accelerate's state (`num_processes`, `process_index`); None for a single process."""
    if world_size() == 1:
        return None
    from accelerate import PartialState

    return PartialState()


def broadcast(value: Value) -> Value:
    """Return the first process's value, in all processes."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [value]
    broadcast_object_list(found, from_process=0)
    result: Value = found[0]
    return result


def any_process(*values: bool) -> tuple[bool, ...]:
    """Return for each value whether it is true in any process."""
    if world_size() == 1:
        return values
    import torch
    from accelerate.utils import reduce

    counts = torch.tensor(values, dtype=torch.float32, device=partial_state().device)
    return tuple(bool(count) for count in reduce(counts).tolist())


def collective_error(error: HubtuneError) -> HubtuneError:
    """Mark an error that all processes raise together, so that only the first one prints it."""
    error.is_shared = True
    return error


def destroy_group() -> None:
    """Leave the process group; a process that ends without doing so makes the others fail."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
