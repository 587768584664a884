"""Modules that a PEFT method wraps, and those that it trains whole, by the structure, not from
names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from hubtune import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ROUTERS = {"router", "gate"}
"""Parts of a mixture of experts that keep their weights."""
TOWERS = {"vision_tower", "vision_model", "visual", "audio_tower"}
"""Names of parts that read what is no text, of models whose parts share a configuration."""
KEYS_VALUES = {"k", "v", "key", "value", "k_proj", "v_proj", "key_proj", "value_proj", "k_lin"}
KEYS_VALUES |= {"v_lin", "keys", "values", "kv", "kv_proj", "key_value"}
FUSED = {"c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "in_proj", "attn_qkv"}
"""Layers that make queries, keys and values at once."""


class Head:
    """New parameters: `modules` that PEFT trains and saves whole, and `bare` ones, trained where
    they are.

    PEFT itself knows heads by the names `classifier` and `score` only, and silently loses the
    others. It copies a module, which would part tied weights and train pretrained ones beside the
    fresh; and it finds modules by the end of their name. Parameters that no module holds alone are
    therefore bare: no adapter of PEFT's can hold them.
    """

    def __init__(
        self,
        model: Module,
        newly_initialized: frozenset[str],
        parents: Collection[str] = (),
        whole: bool = True,
    ) -> None:
        """
        Args:
            model: The model before PEFT wraps it.
            newly_initialized: Names of the new parameters.
            parents: Modules that PEFT saves whole by itself, so that nothing inside them may be
            named. whole: Whether the method can save modules whole; else every parameter is trained
            where it is.
        """
        every = dict(model.named_parameters(remove_duplicate=False))
        modules = [name for name, _ in model.named_modules(remove_duplicate=False)]

        def is_alone(module: str) -> bool:
            """Return whether all its parameters are new, and none is tied to one elsewhere."""
            inside = {name for name in every if name.startswith(f"{module}.")}
            return inside <= newly_initialized and not {id(every[n]) for n in inside} & {
                id(every[n]) for n in set(every) - inside
            }

        owners = {name: self.owner(name, parents) for name in newly_initialized}
        saved = {
            o
            for o in set(owners.values()) - {""}
            if whole and all(is_alone(m) for m in modules if m.endswith(o))
        }
        self.modules = sorted(
            o for o in saved if not any(o.startswith(f"{other}.") for other in saved)
        )
        self.bare = sorted(name for name, owner in owners.items() if owner not in saved)
        self.parameters = [every[name] for name in self.bare]

    @staticmethod
    def owner(name: str, parents: Collection[str]) -> str:
        """Return the module that holds a parameter, or the outermost of `parents` around it."""
        parts = name.split(".")[:-1]
        ends = [i for i, part in enumerate(parts, 1) if parents and part.endswith(tuple(parents))]
        return ".".join(parts[:ends[0]] if ends else parts)

    def learn(self) -> None:
        """Make the bare ones trainable, after PEFT has frozen all that it does not know."""
        for parameter in self.parameters:
            parameter.requires_grad = True

    def contains(self, name: str) -> bool:
        """Return whether a module is in the head."""
        return any(
            name == module or name.startswith(f"{module}.") for module in self.modules
        ) or any(bare.rpartition(".")[0] == name for bare in self.bare)


def in_towers(model: Any) -> Callable[[str], bool]:
    """Return what tells whether a module is in a tower for what is no text, beside one for text."""
    from transformers import PreTrainedModel

    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", lambda: config)()
    kinds = type(config), type(text)
    towers = () if kinds[0] is kinds[1] else tuple(
        f"{name}." for name, part in model.named_modules()
        if isinstance(part, PreTrainedModel) and not isinstance(part.config, kinds))
    return lambda name: name.startswith(towers) or bool(TOWERS & set(name.split(".")))


def linear_layers(
    model: Any, head: Head, endings: Collection[str] = (), towers: str = "language"
) -> dict[str, Module]:
    """Find the layers to adapt by full name: linear ones outside the head, the output embedding and
    routers; of a model with towers for text and for other things, those of `towers`: language,
    vision or all.

    A model that has none, as some convolutional nets: its ungrouped convolutions, but none that
    computes with other weights than its own, as BiT's, which standardize them: an update could not
    be merged. endings: keep only names that end so.
    """
    from torch.nn import Conv2d, Linear
    from transformers.pytorch_utils import Conv1D

    try:
        out = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # a model that is not for text
        out = None
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))

    def found(kinds: Any) -> dict[str, Any]:
        return {
            name: part
            for name, part in model.named_modules()
            if isinstance(part, kinds)
            and part is not out
            and not head.contains(name)
            and not ROUTERS & set(name.split("."))
            # An update of one tied weight would be merged into the other, too.
            and uses[id(part.weight)] == 1
        }

    layers = found((Linear, Conv1D)) or {
        name: part for name, part in found(Conv2d).items()
        if part.groups == 1 and type(part).forward is Conv2d.forward
    }
    is_aside = in_towers(model)
    if towers != "all":
        in_tower = {name: layer for name, layer in layers.items() if is_aside(name)}
        rest = {name: layer for name, layer in layers.items() if name not in in_tower}
        # A model that has nothing but its tower is what is asked for, as for images alone.
        layers = (in_tower if towers == "vision" else rest) or layers
    chosen = {
        name: layer
        for name, layer in layers.items()
        if not endings or name.endswith(tuple(endings))
    }
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in layers})
        raise ModelError(
            f"no layer's name ends in {endings}."
            if endings
            else "it has no plain linear layers, nor convolutions, for the method to adapt.",
            hint=f"Names there are: {', '.join(known)}. Set strategy.targets to some of them."
            if known
            else "Tune it whole: --strategy full",
        )
    return chosen


def norms(model: Any, head: Head, endings: Collection[str] = ()) -> dict[str, Module]:
    """Find the norms outside the head that have a weight, by full name: LayerNorm, RMSNorm and
    their kin."""
    from torch.nn.modules.batchnorm import _BatchNorm

    found = {
        name: part
        for name, part in model.named_modules()
        if "norm" in type(part).__name__.lower()
        and not isinstance(part, _BatchNorm)
        and not head.contains(name)
        and getattr(getattr(part, "weight", None), "ndim", 0) == 1
        and not any(part.children())
        and (not endings or name.endswith(tuple(endings)))
    }
    if not found:
        raise ModelError(
            "it has no norms with weights for the method to adapt.",
            hint="Use another strategy: --strategy lora",
        )
    return found


def embeddings(model: Any, head: Head, endings: Collection[str] = ()) -> dict[str, Module]:
    """Find the input embedding, by full name."""
    from torch.nn import Embedding

    try:
        words = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # a model that is not for text
        words = None
    found: dict[str, Module] = {
        name: part
        for name, part in model.named_modules()
        if part is words and isinstance(part, Embedding)
    }
    if not found:
        raise ModelError(
            "it has no embedding of tokens for the method to adapt.",
            hint="Use another strategy: --strategy lora",
        )
    return found


def convolutions(wrapped: Module) -> list[Any]:
    """Return PEFT's layers around convolutions."""
    from torch.nn import Conv2d

    return [
        layer
        for layer in wrapped.modules()
        if isinstance(getattr(layer, "base_layer", None), Conv2d)
    ]


def are_transposed(layers: Mapping[str, Module]) -> bool:
    """Return whether all weights are stored (in, out), as in GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    return bool(layers) and all(isinstance(layer, Conv1D) for layer in layers.values())


def keys_and_values(layers: Mapping[str, Module]) -> list[str]:
    """Return the names of layers that make keys and values for attention, by their usual names."""
    return [name for name in layers if name.rpartition(".")[2] in KEYS_VALUES | FUSED]


def narrows(layer: Module) -> bool:
    """Return whether a layer has more inputs than outputs, as the last one of a feed-forward
    block."""
    weight = cast("Tensor", layer.weight)
    rows, columns = weight.shape[:2]  # (out, in); Conv1D: (in, out)
    return rows > columns if type(layer).__name__ == "Conv1D" else columns > rows
