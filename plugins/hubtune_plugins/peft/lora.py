"""LoRA: low-rank updates beside the linear layers, merged into plain weights when the model is published."""

from dataclasses import dataclass

from hubtune import ModelError, hookimpl, option
from hubtune_plugins.peft.layer_method import LayerMethod
from hubtune_plugins.peft.layer_trial import FAULTS, reason


@dataclass(frozen=True)
class LoraOptions:
    rank: int = option(16, "rank of the update")
    alpha: int = option(32, "the update's scale is alpha / rank")
    dropout: float = option(0.05, "dropout before the update")
    dora: bool = option(False, "decompose weights into magnitude and direction (DoRA, arXiv:2402.09353)")
    rslora: bool = option(False, "scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    targets: list[str] = option([], "only layers whose name ends in one of these; empty: all linear ones")


class Lora(LayerMethod):
    """Low-rank updates beside every linear layer, with the head trained whole; published as plain weights."""

    name = "lora"
    summary = "low-rank updates beside the linear layers (LoRA)"
    paper = "Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"
    Options = LoraOptions
    defaults = {"train.learning_rate": 4e-4}
    method = "lora"

    def settings(self):
        options = self.options
        return {"r": options.rank, "lora_alpha": options.alpha, "lora_dropout": options.dropout,
                "use_dora": options.dora, "use_rslora": options.rslora}

    def derived(self, config, plan):
        from peft.tuners.lora import config as configs

        kinds = {"corda": "CordaConfig", "eva": "EvaConfig", "lora_ga": "LoraGAConfig"}
        start = self.settings().get("init_lora_weights")
        return {f"{start}_config": getattr(configs, kinds[start])()} if start in kinds else {}

    def trial_config(self, model, plan, layers):
        config = super().trial_config(model, plan, layers)
        if config.init_lora_weights == "corda":  # PEFT does not begin without its statistics
            config.init_lora_weights = True
        return config

    def wrap(self, model, config, task, plan):
        """Wrap the model, with updates that start from training data where the options ask for it."""
        start = config.init_lora_weights
        try:
            if start == "lora_ga":
                start_from_gradients(model, config, task, plan)
            if start == "corda":
                start_from_covariances(model, config, plan)
        except FAULTS as error:
            raise ModelError(f"PEFT cannot start LoRA by {start} here: {reason(error)}") from error
        wrapped = super().wrap(model, config, task, plan)
        if start == "eva":
            start_from_activations(wrapped, plan)
        return wrapped


EVA_PASSES = 50
"""Passes over the first batches after which EVA is given up."""


class Repeated(list):
    """Batches again and again, up to a limit: PEFT goes on until every layer's components are stable, which may be never."""

    def __iter__(self):
        for _ in range(EVA_PASSES):
            yield from super().__iter__()
        raise ModelError("EVA's components of some layers did not become stable: it needs more rows in a batch than components.",
                         hint="Lower strategy.r, or start in another way: --set strategy.init_lora_weights=pissa")


def start_from_gradients(model, config, task, plan):
    """LoRA-GA (arXiv:2407.05000): let PEFT see the gradients of the target weights on a few training batches."""
    from peft.tuners.lora import preprocess_loraga

    def step():
        for batch in plan.batches():
            losses = task.loss(task.forward(model, batch), batch)
            sum(loss.total * loss.weight / batch.counts[loss.name] for loss in (losses if isinstance(losses, list) else [losses])).backward()

    preprocess_loraga(model, config, step)


def start_from_activations(wrapped, plan):
    """EVA (arXiv:2410.07170): start from the principal components of what the layers see on a few training batches."""
    from peft import initialize_lora_eva_weights
    from peft.tuners.lora import LoraLayer

    hooks = [layer.register_forward_pre_hook(contiguous) for layer in wrapped.modules() if isinstance(layer, LoraLayer)]
    initialize_lora_eva_weights(
        wrapped, Repeated([batch.inputs for batch in plan.batches()]), forward_fn=lambda model, batch: model(**batch), gather_distributed_inputs=False, show_progress_bar=False,
        prepare_model_inputs_fn=None, prepare_layer_inputs_fn=vectors)
    for hook in hooks:
        hook.remove()


def start_from_covariances(model, config, plan):
    """CorDA (arXiv:2406.05223): let PEFT see the covariance of what the target layers see on a few training batches."""
    from peft.tuners.lora.corda import preprocess_corda

    def run():
        for batch in plan.batches():
            model(**batch.inputs)

    preprocess_corda(model, config, run_model=run)


def contiguous(layer, inputs):
    """A layer's inputs, laid out as PEFT's hash of them needs it."""
    return tuple(value.contiguous() for value in inputs)


def vectors(inputs, *_):
    """A layer's inputs as rows of vectors."""
    seen = inputs[0] if isinstance(inputs, tuple) else inputs
    return seen.reshape(-1, seen.shape[-1])


@hookimpl
def hubtune_strategies():
    return [Lora]
