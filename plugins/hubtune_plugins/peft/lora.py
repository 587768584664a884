"""LoRA: low-rank updates beside the linear layers, merged into plain weights when the model is
published."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hubtune import ModelError, Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.peft.layer_method import LayerMethod
from hubtune_plugins.peft.layer_trial import FAULTS, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class LoraOptions:
    rank: int = option(16, "rank of the update", search=[4, 8, 16, 32])
    alpha: int = option(32, "the update's scale is alpha / rank")
    dropout: float = option(0.05, "dropout before the update", search=(0.0, 0.1))
    dora: bool = option(
        False, "decompose weights into magnitude and direction (DoRA, arXiv:2402.09353)"
    )
    rslora: bool = option(False, "scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    targets: list[str] = option(
        [], "only layers whose name ends in one of these; empty: all linear ones"
    )
    towers: str = option(
        "language", "of a model that sees and writes: which part is adapted",
        choices=("language", "vision", "all"),
    )


class Lora(LayerMethod):
    """Low-rank updates beside every linear layer, with the head trained whole; published as plain
    weights."""

    name = "lora"
    summary = "low-rank updates beside the linear layers (LoRA)"
    paper = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"
    Options = LoraOptions
    defaults = {"train.learning_rate": 4e-4}
    method = "lora"

    def settings(self) -> dict[str, Any]:
        options = self.options
        return {"r": options.rank, "lora_alpha": options.alpha, "lora_dropout": options.dropout,
                "use_dora": options.dora, "use_rslora": options.rslora}

    def derived_settings(self, config: Any, plan: Plan) -> dict[str, Any]:
        from peft.tuners.lora import config as configs

        kinds = {"corda": "CordaConfig", "eva": "EvaConfig", "lora_ga": "LoraGAConfig"}
        start = self.settings().get("init_lora_weights")
        return {f"{start}_config": getattr(configs, kinds[start])()} if start in kinds else {}

    def trial_config(self, model: Module, plan: Plan, layers: Mapping[str, Module]) -> Any:
        config = super().trial_config(model, plan, layers)
        if config.init_lora_weights == "corda":  # PEFT does not begin without its statistics
            config.init_lora_weights = True
        return config

    def wrap(self, model: Module, config: Any, task: Task[Any], plan: Plan) -> Any:
        """Wrap the model, with updates that start from training data where the options ask for
        it."""
        start = config.init_lora_weights
        try:
            if start == "lora_ga":
                start_from_gradients(model, config, task, plan)
            if start == "corda":
                start_from_covariances(model, config, plan)
            if start == "eva":
                cap_ranks_by_activations(model, config, plan)
        except FAULTS as error:
            raise ModelError(
                f"PEFT cannot start LoRA by {start} here: {first_line(error)}"
            ) from error
        wrapped = super().wrap(model, config, task, plan)
        if start == "eva":
            start_from_activations(wrapped, plan)
        return wrapped


EVA_PASSES = 50
"""Passes over the first batches after which EVA is given up."""


class Repeated(list[dict[str, Any]]):
    """Batches that repeat up to a limit: PEFT reads on until all components are stable, which may
    be never."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(EVA_PASSES):
            yield from super().__iter__()
        raise ModelError(
            "EVA's components of some layers did not become stable: it needs more vectors in a "
            "batch than components.",
            hint="Raise train.batch_size, lower strategy.r, or start in another way: "
            "--set strategy.init_lora_weights=pissa",
        )


def cap_ranks(config: Any, limits: Mapping[str, int]) -> None:
    """Lower the ranks of layers that cannot have that of the options.

    limits: the highest rank by layer.
    """
    low = {name: max(1, limit) for name, limit in limits.items() if limit < config.r}
    config.rank_pattern = {**low, **config.rank_pattern}


def start_from_gradients(model: Any, config: Any, task: Task[Any], plan: Plan) -> None:
    """LoRA-GA (arXiv:2407.05000): let PEFT see the gradients of the target weights on a few
    training batches."""
    from peft.tuners.lora import preprocess_loraga

    def step() -> None:
        model.eval()  # batch norms would take up statistics, and dropout adds noise
        for batch in plan.batches():
            losses = task.loss(task.forward(model, batch), batch)
            terms = losses if isinstance(losses, list) else [losses]
            total = sum(term.total * term.weight / batch.counts[term.name] for term in terms)
            cast("Tensor", total).backward()  # type: ignore[no-untyped-call]  # untyped in torch

    # It takes 2 r singular vectors of a gradient.
    cap_ranks(
        config,
        {name: min(model.get_submodule(name).weight.shape) // 2 for name in config.target_modules},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Full backward hook is firing"
        )  # of the first layers
        preprocess_loraga(model, config, step)


def cap_ranks_by_activations(model: Any, config: Any, plan: Plan) -> None:
    """Cap the ranks by what EVA can find: no more components than a layer sees vectors in a batch,
    or their width."""
    import torch

    seen: dict[str, int] = {}

    def count(name: str, layer: Module, inputs: tuple[Tensor, ...]) -> None:
        rows, width = flatten_vectors(inputs).shape
        seen[name] = max(seen.get(name, 0), min(rows, width))

    hooks = [model.get_submodule(name).register_forward_pre_hook(functools.partial(count, name))
             for name in config.target_modules]
    training = model.training
    try:
        with torch.no_grad():
            for batch in plan.batches():
                model.eval()(**batch.inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    cap_ranks(config, {name: int(most / config.eva_config.rho) for name, most in seen.items()})


def start_from_activations(wrapped: Any, plan: Plan) -> None:
    """EVA (arXiv:2410.07170): start from the principal components of what the layers see on a few
    training batches."""
    from peft import initialize_lora_eva_weights
    from peft.tuners.lora import LoraLayer

    layers = [layer for layer in wrapped.modules() if isinstance(layer, LoraLayer)]
    hooks = [layer.register_forward_pre_hook(make_contiguous) for layer in layers]
    batches = Repeated([batch.inputs for batch in plan.batches()])
    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):  # it prints of every batch that is too small
        warnings.simplefilter("ignore", UserWarning)  # of inputs that are no tensors
        initialize_lora_eva_weights(
            wrapped,
            batches,
            forward_fn=lambda model, batch: model(**batch),
            gather_distributed_inputs=False,
            show_progress_bar=False,
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=flatten_vectors,
        )
    for hook in hooks:
        hook.remove()


def start_from_covariances(model: Any, config: Any, plan: Plan) -> None:
    """CorDA (arXiv:2406.05223): let PEFT see the covariance of what the target layers see on a few
    training batches."""
    from peft.tuners.lora.corda import preprocess_corda

    def run() -> None:
        model.eval()
        for batch in plan.batches():
            model(**batch.inputs)

    preprocess_corda(model, config, run_model=run)


def make_contiguous(layer: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make a layer's inputs contiguous, as PEFT's hash of them needs it."""
    return tuple(value.contiguous() for value in inputs)


def flatten_vectors(inputs: Tensor | tuple[Tensor, ...], *_: Any) -> Tensor:
    """Return a layer's inputs as a matrix of vectors."""
    seen = inputs[0] if isinstance(inputs, tuple) else inputs
    return seen.reshape(-1, seen.shape[-1])


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [Lora]
