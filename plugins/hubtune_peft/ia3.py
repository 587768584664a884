"""(IA)3: learnt vectors that scale keys, values and the inner activations of feed-forward layers."""

from dataclasses import dataclass

from hubtune import Strategy, hookimpl, option
from hubtune_peft.structure import Head, linear_layers, merged, transposed, wrap

KEYS_VALUES = {"k", "v", "key", "value", "k_proj", "v_proj", "key_proj", "value_proj", "k_lin", "v_lin", "keys", "values",
               "kv", "kv_proj", "key_value"}
FUSED = {"c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "in_proj", "attn_qkv"}


@dataclass(frozen=True)
class Ia3Options:
    targets: list[str] = option([], "only layers whose name ends in one of these; empty: keys, values, feed-forward")


class Ia3(Strategy[Ia3Options]):
    """Vectors that scale keys, values and feed-forward activations, with the head trained whole; published merged."""

    contract = 1
    name = "ia3"
    summary = "learnt vectors that scale activations ((IA)3)"
    paper = "Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper, arXiv:2205.05638"
    Options = Ia3Options
    needs = ("peft",)
    extra = "hubtune[peft]"
    defaults = {"train.lr": 1e-2, "train.weight_decay": 0.0}

    def prepare(self, model, fresh, task, plan):
        from peft import IA3Config

        self.head = Head(model, fresh)
        layers = linear_layers(model, self.head, self.options.targets)
        targets, inner = (list(layers), []) if self.options.targets else scaled(layers)
        return wrap(model, IA3Config(
            target_modules=targets, feedforward_modules=inner, modules_to_save=self.head.modules or None,
            fan_in_fan_out=transposed(layers),
        ), self.head)

    def export(self, model):
        return merged(model, self.head)


def scaled(layers):
    """Layers scaled at their output (keys and values), and all with those scaled at their input (down-projections).

    Keys and values go by the names that the field gives them, down-projections by their shape. Where no name is known,
    the outputs of all layers are scaled.
    """
    attention = [name for name in layers if name.rpartition(".")[2] in KEYS_VALUES | FUSED]
    if not attention:
        return list(layers), []
    inner = [name for name, layer in layers.items() if name not in attention and narrows(layer)]
    return attention + inner, inner


def narrows(layer):
    """Whether it has more inputs than outputs."""
    rows, columns = layer.weight.shape[:2]  # (out, in); Conv1D: (in, out)
    return rows > columns if type(layer).__name__ == "Conv1D" else columns > rows


@hookimpl
def hubtune_strategies():
    return [Ia3]
