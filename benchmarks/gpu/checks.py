"""Checks of everything that has to work on a GPU, each in a process of its own: `python -m benchmarks.gpu.checks NAME FOLDER`.

A check returns words on what was seen, raises `Skipped` with the reason, or fails by any other exception.
They run on whatever device hubtune chooses, so that they can be tried on a CPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import made


class Skipped(Exception):
    """The check needs what this machine lacks."""


def on_cuda() -> bool:
    """Return whether there is an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def train(folder: Path, name: str, callbacks: Any = None, count: int = 64, **sets: Any) -> Any:
    """Train a tiny BERT on made texts; keys of `sets` have two underscores for the dot."""
    import hubtune

    base = made.base("bert-tiny", folder)
    data = made.write(made.labelled(20, 510, count), folder / f"data-{count}")
    keys = {"train.batch_size": 16, "train.epochs": 2, "train.learning_rate": 1e-3,
            **{key.replace("__", "."): value for key, value in sets.items()}}
    return hubtune.train("text-classification", model=base, data=data, set=keys, out=folder / name, callbacks=callbacks)


def losses(folder: Path) -> list[float]:
    """Return the loss of every step of a run."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "grad_norm" in line]


def weights(folder: Path) -> str:
    """Return the hash of a run's weights."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()[:16]


def learns(folder: Path, name: str, **sets: Any) -> str:
    """Train, and require that the loss falls and that the saved model is verified."""
    run = train(folder, name, count=256, train__epochs=4, train__learning_rate=3e-3, **sets)
    found = losses(folder / name)
    first, last = sum(found[:8]) / 8, sum(found[-8:]) / 8
    assert last < 0.8 * first, f"the loss went from {first:.3f} to {last:.3f}"
    compute = run.record["compute"]
    return f"{compute['device']}, {compute['precision']}: loss {first:.3f} to {last:.3f}"


def bf16(folder: Path) -> str:
    """Train in bf16."""
    return learns(folder, "bf16", train__precision="bf16")


def fp16(folder: Path) -> str:
    """Train in fp16, whose gradients have to be scaled."""
    if not on_cuda():
        raise Skipped("fp16 needs a GPU")
    return learns(folder, "fp16", train__precision="fp16")


def fp32(folder: Path) -> str:
    """Train in fp32, and compare the losses of the first steps with those of the CPU."""
    import subprocess

    train(folder, "fp32", train__precision="fp32", train__epochs=1)
    script = ("from pathlib import Path; from benchmarks.gpu.checks import train; "
              f"train(Path({str(folder)!r}), 'fp32-cpu', train__precision='fp32', train__epochs=1)")
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    here, there = losses(folder / "fp32"), losses(folder / "fp32-cpu")
    largest = max(abs(one - other) for one, other in zip(here, there, strict=True))
    assert largest < 2e-3, f"losses differ by {largest:.2g} from the CPU's"
    return f"losses differ by at most {largest:.1g} from the CPU's"


def adamw_8bit(folder: Path) -> str:
    """Train with the optimizer's state in 8 bits."""
    if not on_cuda() or importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("needs a GPU and the package bitsandbytes")
    return learns(folder, "adamw-8bit", train__optimizer="adamw-8bit")


def lora(folder: Path) -> str:
    """Train with LoRA, in peft's layers where it is installed."""
    if importlib.util.find_spec("peft") is None:
        raise Skipped("needs the package peft")
    import hubtune

    data = made.write(made.answered(64), folder / "answers")
    run = hubtune.train("text-generation", model=made.base("llama-tiny", folder), data=data, strategy="lora", out=folder / "lora",
                        set={"train.batch_size": 8, "train.epochs": 2, "train.learning_rate": 1e-2})
    found = losses(folder / "lora")
    assert found[-1] < found[0], f"the loss went from {found[0]:.3f} to {found[-1]:.3f}"
    return f"{run.record['compute']['device']}: loss {found[0]:.3f} to {found[-1]:.3f}"


def gradient_checkpointing(folder: Path) -> str:
    """Recompute activations: the same losses as without."""
    train(folder, "plain", train__precision="fp32", train__kernels="plain")
    train(folder, "recomputed", train__precision="fp32", train__kernels="plain", train__gradient_checkpointing="on")
    pairs = list(zip(losses(folder / "plain"), losses(folder / "recomputed"), strict=True))
    largest = max(abs(one - other) for one, other in pairs)
    assert largest < 1e-4, f"losses differ by {largest:.2g}"
    return f"losses differ by at most {largest:.1g} in {len(pairs)} steps"


def out_of_memory(folder: Path) -> str:
    """Raise the error of a full GPU within a step: the run goes on with smaller micro-batches and the same losses."""
    import torch
    from transformers import BertModel

    train(folder, "roomy", train__precision="fp32")
    plain, calls = BertModel.forward, [0]

    def forward(self: Any, input_ids: Any = None, **words: Any) -> Any:
        calls[0] += self.training
        if self.training and calls[0] > 4 and len(input_ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(self, input_ids=input_ids, **words)

    BertModel.forward = forward  # type: ignore[method-assign]
    try:
        train(folder, "tight", train__precision="fp32")
    finally:
        BertModel.forward = plain  # type: ignore[method-assign]
    pairs = list(zip(losses(folder / "roomy"), losses(folder / "tight"), strict=True))
    largest = max(abs(one - other) for one, other in pairs)
    assert largest < 1e-3, f"losses differ by {largest:.2g}"
    return f"went on; losses differ by at most {largest:.1g} in {len(pairs)} steps"


def resume(folder: Path) -> str:
    """Stop after some steps and resume: the same bits as a run that did not stop."""
    import hubtune

    class Stop(hubtune.Callbacks):
        steps = 0

        def on_progress(self, units: int, **metrics: float) -> None:
            self.steps += "loss" in metrics
            if self.steps == 6:
                raise KeyboardInterrupt

    train(folder, "whole", train__epochs=3)
    try:
        train(folder, "stopped", callbacks=Stop(), train__epochs=3)
    except BaseException as stopped:
        if not isinstance(stopped, KeyboardInterrupt):
            raise
    hubtune.resume(folder / "stopped")
    whole, resumed = weights(folder / "whole"), weights(folder / "stopped")
    assert whole == resumed, f"{whole} and {resumed}"
    return f"the same weights, {whole}"


def repeated(folder: Path) -> str:
    """Run twice: the same bits."""
    for name in ("one", "other"):
        train(folder, name)
    found = [weights(folder / name) for name in ("one", "other")]
    assert found[0] == found[1], f"{found[0]} and {found[1]}"
    return f"the same weights, {found[0]}"


def one_process(folder: Path) -> str:
    """Train as the only process of a group (NCCL on a GPU): the losses of a run without one."""
    import torch.distributed

    train(folder, "alone", train__precision="fp32")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0",
                   "LOCAL_WORLD_SIZE": "1"}
    if not on_cuda():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.distributed.init_process_group("nccl" if on_cuda() else "gloo")
    train(folder, "in-a-group", train__precision="fp32")
    backend = torch.distributed.get_backend()
    torch.distributed.destroy_process_group()
    pairs = zip(losses(folder / "alone"), losses(folder / "in-a-group"), strict=True)
    largest = max(abs(one - other) for one, other in pairs)
    assert largest < 1e-5, f"losses differ by {largest:.2g}"
    return f"{backend}: losses differ by at most {largest:.1g}"


def predict(folder: Path) -> str:
    """Predict with a tuned model; the labels are those that it was taught."""
    run = train(folder, "asked", count=256, train__epochs=6, train__learning_rate=3e-3)
    rows = made.labelled(20, 510, 64)
    answers = run.predict([row["text"] for row in rows])
    right = sum(answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True))
    assert right > 48, f"{right} of 64 right"
    return f"{right} of 64 right"


CHECKS: dict[str, Callable[[Path], str]] = {
    check.__name__: check
    for check in (bf16, fp16, fp32, adamw_8bit, lora, gradient_checkpointing, out_of_memory, resume, repeated, one_process, predict)
}


def main(name: str, folder: str) -> None:
    """Run one check and print its result as JSON in the last line."""
    try:
        found = {"result": "passed", "words": CHECKS[name](Path(folder))}
    except Skipped as reason:
        found = {"result": "skipped", "words": str(reason)}
    except Exception as error:
        found = {"result": "failed", "words": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
