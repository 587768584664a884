"""Structure of a pretrained model for a linear head: the part that reads the inputs, and its states.

Told from the model itself, on the meta device: no weights are needed, and no list of families.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune.errors import HubtuneError
from hubtune.models import bounds, compat
from hubtune.models.foreign import first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

INPUTS = {
    "text": ("input_ids",), "image": ("pixel_values",), "sound": ("input_features", "input_values"),
}
"""Names of the inputs that make a module one for this kind of data."""
NAMES = {
    "text": ("text", "language"), "image": ("vision", "visual", "image"), "sound": ("audio", "speech", "sound"),
}
"""Words in the names of parts for a kind of data."""
ASIDE = ("decoder", "predictor", "postnet", "qformer", "embeddings", "embed")
"""Words in the names of parts that read such inputs, and are no encoder of them."""
PATCHES = ("grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids")
"""Inputs of modules that read images as patches, of which an image may have any number."""
STATES = ("last_hidden_state", "encoder_last_hidden_state")
"""Fields with a state per token, patch or frame."""
POOLED = ("pooler_output", "text_embeds", "image_embeds", "audio_embeds", "embeddings")
"""Fields with one state per row, used where there is nothing else."""
CLASS_TOKENS = ("cls_token", "class_embedding", "class_token", "cls_embedding")
"""Names of a trained token that stands before the patches of an image."""
LENGTH = 8
"""Tokens of a text with which a model is tried."""
FRAMES = 128
"""Frames of sound with which a model is tried."""
SIZES = ("image_size", "input_size", "crop_size")
PLACES = ("max_source_positions", "max_length")
BINS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", "feature_size", "mel_bins")
"""Names of the number of features of a frame."""
SMALL_VOCABULARY = 64
"""Words of a copy that is made to try a model."""


@dataclass(frozen=True)
class Structure:
    """Where the states of a pretrained model are, and how they are pooled.

    Attributes are those of `HubtuneHeadConfig`. length: of the states for `LENGTH` tokens.
    """

    part: str
    states: str
    width: int
    channels_last: bool
    pooling: str
    length: int

    def describe(self, per_token: bool) -> str:
        """Describe the head in words. per_token: it has an output for every token."""
        where = f"the part '{self.part}'" if self.part else "the base model"
        how = {"mean": "the mean of the states", "first": "the first state",
               "last": "the last state that is no padding", "none": "the pooled state"}[self.pooling]
        how = "every state" if per_token else how
        return f"a linear layer of hubtune's on {how} of {where} ({self.width:,} numbers)"


class NoStructure(Exception):
    """A model has no part that a head could stand on, for the reason in the message."""


def find(config: Any, kind: str) -> Structure:
    """Find the part of a model that reads a kind of data, and what its states look like.

    Args:
        config: of transformers, with a base model. kind: a key of `INPUTS`.

    Raises:
        NoStructure: with the reason.
    """
    whole = build(config)
    reasons = []
    for name in parts(whole, config, kind):
        part = whole.get_submodule(name)
        try:
            return read(part, name, config, kind)
        except NoStructure as error:
            reasons.append(f"{name or 'the model'}: {error}")
    if not reasons:
        raise NoStructure(f"no part of '{config.model_type}' models reads {kind}s alone")
    raise NoStructure(f"'{config.model_type}' models give no states for {kind}s ({reasons[0]})")


def build(config: Any) -> Module:
    """Build the whole base model on the meta device. Raises NoStructure where there is none."""
    try:
        with compat.padding_inside(config), bounds.bounded_build(config.model_type):
            whole: Module | None = compat.backbone_on_meta(config)
    except HubtuneError as error:
        raise NoStructure(error.message) from error
    except Exception as error:  # of any architecture's code
        raise NoStructure(f"its architecture cannot be built: {first_line(error)}") from error
    if whole is None:
        raise NoStructure(f"transformers has no base model for '{config.model_type}' models")
    return whole


def parts(whole: Module, config: Any, kind: str) -> Iterator[str]:
    """Yield names of parts that read this kind of data and no other, the best first.

    The whole model where it does; then what lies outermost in it: what is named after the data
    before the rest, the largest first.
    """
    if reads(whole, kind) and not reads_others(whole, kind) and not is_encoder_decoder(whole, config):
        yield ""
    found: list[tuple[bool, int, int, str]] = []
    for name, module in whole.named_modules():
        words = name.split(".")
        if not name or any(word.startswith(aside) or word.endswith(f"_{aside}")
                           for word in words for aside in ASIDE):
            continue
        if reads(module, kind) and not reads_others(module, kind) and needs_no_more(module, kind):
            size = sum(parameter.numel() for parameter in module.parameters())
            is_other = not any(word in name for word in NAMES[kind])
            found.append((is_other, len(words), -size, name))
    taken: list[str] = []
    for *_, name in sorted(found):
        if not any(name.startswith(f"{outer}.") for outer in taken):
            taken.append(name)
            yield name
    if reads(whole, kind) and reads_others(whole, kind):  # which may be left out
        yield ""


def names_of(module: Module) -> frozenset[str]:
    """Return the names of the arguments of a module's forward."""
    return frozenset(inspect.signature(module.forward).parameters)


def reads(module: Module, kind: str) -> bool:
    """Tell whether a module takes inputs of a kind of data."""
    return not names_of(module).isdisjoint(INPUTS[kind])


def reads_others(module: Module, kind: str) -> bool:
    """Tell whether a module takes inputs of other kinds of data too."""
    others = {name for other, names in INPUTS.items() if other != kind for name in names}
    return not names_of(module).isdisjoint(others)


def needs_no_more(module: Module, kind: str) -> bool:
    """Tell whether a module can be run with the inputs of a kind of data alone."""
    needed = {name for name, one in inspect.signature(module.forward).parameters.items()
              if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
    return len(needed - {"attention_mask", "pixel_attention_mask", "merge_sizes", *PATCHES, *INPUTS[kind]}) == 0


def is_encoder_decoder(module: Module, config: Any) -> bool:
    """Tell whether a module is an encoder with a decoder behind it."""
    return "decoder_input_ids" in names_of(module) and bool(
        getattr(config, "is_encoder_decoder", False) or hasattr(module, "encoder"))


def read(part: Module, name: str, config: Any, kind: str) -> Structure:
    """Run a part on the meta device, and tell from its output where the states are.

    Raises:
        NoStructure: it does not run, or gives no states.
    """
    import torch

    if kind == "image" and not names_of(part).isdisjoint(PATCHES):
        return of_patches(part, name, config)
    problem: Exception | None = None
    for inputs in sample_inputs(part, config, kind):
        if "use_cache" in names_of(part):
            inputs["use_cache"] = False
        try:
            with torch.no_grad(), torch.device("meta"):
                outputs = part.eval()(**inputs)
            break
        except Exception as error:  # of any architecture's code
            problem = problem or error
    else:
        assert problem is not None
        width = getattr(getattr(part, "config", config).get_text_config(), "hidden_size", None)
        if isinstance(width, int) and (kind == "text" or "meta tensors" in str(problem)):
            return Structure(name, STATES[0], width, False, pooling_of(part, config, kind), 0)
        raise NoStructure(f"{type(problem).__name__}: {first_line(problem)}") from problem
    for field in (*STATES, *POOLED):
        states = getattr(outputs, field, None)
        if isinstance(states, torch.Tensor) and states.ndim >= 2 and states.is_floating_point():
            return of_states(part, name, config, kind, field, states)
    raise NoStructure("its output has no state per token, patch or frame")


def of_patches(part: Module, name: str, config: Any) -> Structure:
    """Describe the states of a part that reads patches; it needs their numbers, which the meta device has not.

    Raises:
        NoStructure: its configuration does not say how wide a state is.
    """
    width = getattr(getattr(part, "config", config), "hidden_size", None)
    if not isinstance(width, int):
        raise NoStructure("it reads patches, and its configuration does not say how wide their states are")
    return Structure(name, STATES[0], width, False, pooling_of(part, config, "image"), 0)


def of_states(
    part: Module, name: str, config: Any, kind: str, field: str, states: Tensor
) -> Structure:
    """Describe the states in a field of a part's output."""
    if states.ndim == 2 and (kind != "image" or len(states) == 1):
        return Structure(name, field, states.shape[-1], False, "none", 0)
    sizes = widths(part)
    last = states.ndim > 3 and states.shape[1] not in sizes and states.shape[-1] in sizes
    maps = states.ndim > 3 and not last
    width = states.shape[1] if maps else states.shape[-1]
    pooling = "mean" if states.ndim > 3 else pooling_of(part, config, kind)
    length = states.shape[1] if states.ndim == 3 else 0
    return Structure(name, field, int(width), last, pooling, int(length))


def widths(part: Module) -> frozenset[int]:
    """Return the sizes of a part's vectors: of biases and of the weights of norms."""
    return frozenset(parameter.numel() for parameter in part.parameters() if parameter.ndim == 1)


def pooling_of(part: Module, config: Any, kind: str) -> str:
    """Return how the states of a part are pooled.

    The last state of a causal model, the only one that has seen the whole text; the first where a
    class token is trained; the mean of all others.
    """
    if kind == "text":
        return "last" if is_causal(part, config) else "mean"
    last_words = {name.rpartition(".")[2] for name, _ in part.named_parameters()}
    last_words |= {name.rpartition(".")[2] for name, _ in part.named_modules()}
    return "first" if kind == "image" and not last_words.isdisjoint(CLASS_TOKENS) else "mean"


def is_causal(part: Module, config: Any) -> bool:
    """Tell whether a token of a model sees only the tokens before it.

    Attention layers say so in `is_causal`; where none does, language models that only write are
    causal. Some, as CLIP's, mask the future outside of these layers: a small copy tells.
    """
    own = getattr(part, "config", config)
    said = {module.is_causal for module in part.modules()
            if isinstance(getattr(module, "is_causal", None), bool)}
    if "decoder_input_ids" not in names_of(part) and own.is_encoder_decoder:
        return False
    if True in said:
        return True
    writes = bool(compat.model_classes("AutoModelForCausalLM", own))
    predicts = bool(compat.model_classes("AutoModelForMaskedLM", own))
    if not said:
        return writes and not predicts
    return not writes and not predicts and small_copy_is_causal(own)


def small_copy_is_causal(config: Any) -> bool:
    """Tell from a copy with one layer and random weights whether a token sees later ones."""
    import torch

    small = copy.deepcopy(config)
    small.num_hidden_layers, small.vocab_size = 1, SMALL_VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(small, name, None) is not None:
            setattr(small, name, SMALL_VOCABULARY - 1)
    kind = compat.model_class("AutoModel", small)
    if kind is None:
        return False
    ids = torch.arange(LENGTH).unsqueeze(0)
    other = ids.clone()
    other[0, -1] += 1
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = kind(small).eval()
            states = [model(input_ids=tokens).last_hidden_state for tokens in (ids, other)]
    except Exception:  # of any architecture's code, which is then read as most are
        return False
    return bool(torch.equal(states[0][:, 0], states[1][:, 0]))


def sample_inputs(part: Module, config: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yield inputs of one row on the meta device, until a model takes one: shapes are not always in the configuration."""
    import torch

    def zeros(*shape: int, **more: Any) -> Tensor:
        return torch.zeros(shape, device="meta", **more)

    if kind == "text":
        yield {"input_ids": zeros(1, LENGTH, dtype=torch.long)}
        return
    said = values_of(getattr(part, "config", config), SIZES)
    if kind == "image":
        for height, width in dict.fromkeys([*said, (224, 224), (64, 64)]):
            yield {"pixel_values": zeros(1, 3, height, width)}
        return
    if "input_values" in names_of(part):
        for shape in ((1, 16000), (1, 1, 16000)):
            yield {"input_values": zeros(*shape)}
        return
    bins = values_of(config, BINS)
    layers = [layer for layer in part.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d)][:1]
    bins += [(layer.weight.shape[1], 0) for layer in layers]
    lengths = [FRAMES, *(times * places for places, _ in values_of(config, PLACES) for times in (1, 2))]
    masks = [name for name in names_of(part) if name.endswith("_mask")]
    for count, _ in dict.fromkeys([*bins, (80, 80)]):
        for frames in dict.fromkeys(lengths):
            for shape in ((1, frames, count), (1, count, frames)):
                ones = torch.ones((1, frames), dtype=torch.long, device="meta")
                yield {"input_features": zeros(*shape)}
                yield {"input_features": zeros(*shape), **dict.fromkeys(masks, ones)}


def values_of(config: Any, names: Iterable[str]) -> list[tuple[int, int]]:
    """Return the numbers, or pairs of them, that a configuration and those inside it have under these names."""
    said = config.to_dict()
    open_, found = [said], []
    while open_:
        here = open_.pop(0)
        open_ += [value for value in here.values() if isinstance(value, dict)]
        for name in names:
            value = here.get(name)
            pair = value if isinstance(value, list | tuple) else (value, value)
            if len(pair) == 2 and all(isinstance(one, int) and one > 0 for one in pair):
                found.append((pair[0], pair[1]))
    return found
