"""BitFit: only the biases learn, and the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import ModelError, Plan, Strategy, Task, hookimpl
from hubtune_plugins.layers.learning import learn

if TYPE_CHECKING:
    from torch.nn import Module

WITHOUT = "it has no biases, which are all that this method trains."


class BitFit(Strategy[Any]):
    """The biases and the head learn: less than a thousandth of the weights, every matrix stays as it is."""

    contract = 2
    name = "bitfit"
    summary = "only the biases and the head learn"
    paper = "Ben Zaken, Goldberg and Ravfogel, BitFit: Simple Parameter-efficient Fine-tuning, arXiv:2106.10199"
    defaults = {"train.learning_rate": 1e-3}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        """Told from what the configuration says of biases; where it says nothing, `prepare` reads the weights."""
        said = config.get_text_config()
        if hasattr(said, "feed_forward_proj") and hasattr(said, "relative_attention_num_buckets"):
            return WITHOUT  # T5 and its kin
        flags = [getattr(said, name, None) for name in ("attention_bias", "mlp_bias", "norm_bias")]
        plain_norm = hasattr(said, "rms_norm_eps") or flags[2] is False  # RMSNorm has no bias
        return WITHOUT if plain_norm and flags[0] is False and flags[1] is False else None

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        biases = {name for name, p in model.named_parameters() if name.endswith("bias") and name not in newly_initialized}
        if not biases:
            raise ModelError(WITHOUT, hint="Small updates of its matrices instead: --strategy lora")
        learn(model, biases | newly_initialized)
        return model


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [BitFit]
