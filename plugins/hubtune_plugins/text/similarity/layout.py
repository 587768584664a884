"""Layout of sentence-transformers: the modules behind a transformers model, its prompts and its length, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import Base, ModelError

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("modules.json", "config_sentence_transformers.json", "*sentence_*_config.json", "*/config.json", "*_Dense/*")
"""Patterns of the files that are read beside the weights of the transformers model."""
LEGACY = {
    "cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean-sqrt": "mean_sqrt_len_tokens",
    "weighted-mean": "weightedmean_tokens", "last": "lasttoken"}
"""Our names of poolings, in the order in which several are joined, and the ends of `pooling_mode_...` keys for them."""
NAMES = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "mean-sqrt",
         "weightedmean": "weighted-mean", "lasttoken": "last"}
"""Our names by those that sentence-transformers has in `pooling_mode`."""
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "Mish")
"""Activations of torch.nn that a dense layer may have, which need no arguments."""
LONGEST = 10**6
"""Lengths from here on are none: tokenizers without a limit have a number of 30 digits."""


@dataclass(frozen=True)
class Dense:
    """A dense layer on the vector of a text, which stays as it is in training. files: by name, as they are published."""

    weight: Tensor
    bias: Tensor | None
    activation: str
    files: Mapping[str, str | bytes]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the vectors behind the layer, (texts, out features)."""
        import torch

        bias = None if self.bias is None else self.bias.to(vectors)
        found: Tensor = getattr(torch.nn, self.activation)()(torch.nn.functional.linear(vectors, self.weight.to(vectors), bias))
        return found


@dataclass(frozen=True)
class Layout:
    """What sentence-transformers does with a model.

    pooling: one or several of `LEGACY`, whose vectors are joined. steps: dense layers, and None for a division by the
    vector's length. prompts: texts before a text, by name; default: the name of the one that is used where none is
    named. length: tokens of a text; None: as the tokenizer says. lower: texts are read in lower case.
    """

    pooling: tuple[str, ...]
    steps: tuple[Dense | None, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    length: int | None = None
    lower: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the vector is pooled states alone, divided by their length."""
        return len(self.pooling) == 1 and not self.lower and not any(self.steps)


def read(base: Base) -> Layout | None:
    """Read the layout of a model; None where there is no `modules.json`.

    Raises:
        ModelError: a module or a setting of it that would not be kept.
    """
    folder = base.folder
    if folder is None or not (folder / "modules.json").is_file():
        return None
    listed = load(folder / "modules.json", base, list)
    modules = [(str(one.get("type")).rpartition(".")[2], str(one.get("path", ""))) for one in listed if isinstance(one, dict)]
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        refuse(base, f"its modules are {', '.join(kinds[:4]) or 'none'}, and not a Transformer with a Pooling behind it")
    steps: list[Dense | None] = []
    for kind, path in modules[2:]:
        if kind == "Dense":
            steps.append(read_dense(folder, path, base))
        elif kind == "Normalize":
            steps.append(None)
        else:
            refuse(base, f"it has a module '{kind}' of sentence-transformers, which is neither Dense nor Normalize")
    pooling = read_pooling(load(folder / modules[1][1] / "config.json", base), base)
    prompts, default = read_prompts(folder, base)
    said = read_transformer(folder / modules[0][1], base)
    return Layout(pooling, tuple(steps), prompts, default, said.get("max_seq_length"), bool(said.get("do_lower_case")))


def load(path: Path, base: Base, kind: type = dict) -> Any:
    """Read a JSON file of the layout. Raises ModelError where it is missing or of another kind."""
    where = f"{base.repo}/{path.name if path.parent == base.folder else f'{path.parent.name}/{path.name}'}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"this file of its layout of sentence-transformers cannot be read: {type(error).__name__}.",
                         where=where, hint="Fetch the model again as a whole.") from error
    if not isinstance(found, kind):
        raise ModelError(f"this file of its layout of sentence-transformers is a {type(found).__name__}, not a "
                         f"{kind.__name__}.", where=where, hint="Fetch the model again as a whole.")
    return found


def refuse(base: Base, reason: str) -> None:
    """Refuse a layout that would not be kept."""
    raise ModelError(f"{reason}, so its vectors could not be kept.", where=base.repo,
                     hint="Take a model of Transformer, Pooling, Dense and Normalize; or remove modules.json in a copy of "
                     "the folder, and choose --set task.pooling=mean")


def read_pooling(said: Mapping[str, Any], base: Base) -> tuple[str, ...]:
    """Read which states make a vector."""
    modes = said.get("pooling_mode")
    if modes is None:
        found = [name for name, key in LEGACY.items() if said.get(f"pooling_mode_{key}")] or ["mean"]
    else:
        given = [modes] if isinstance(modes, str) else list(modes)
        for mode in given:
            if mode not in NAMES:
                refuse(base, f"its pooling is '{mode}'")
        found = [NAMES[mode] for mode in given]
    if said.get("include_prompt") is False:
        refuse(base, "its pooling leaves out the tokens of the prompt (include_prompt: false)")
    return tuple(found)


def read_prompts(folder: Path, base: Base) -> tuple[dict[str, str], str | None]:
    """Read the prompts by name, and the name of the one that is used by default."""
    path = folder / "config_sentence_transformers.json"
    said = load(path, base) if path.is_file() else {}
    prompts = {str(name): text for name, text in (said.get("prompts") or {}).items() if isinstance(text, str)}
    default = said.get("default_prompt_name")
    return prompts, default if default in prompts else None


def read_transformer(folder: Path, base: Base) -> dict[str, Any]:
    """Read the length of a text, and whether it is read in lower case."""
    paths = sorted(folder.glob("sentence_*_config.json"))
    said: dict[str, Any] = load(paths[0], base) if paths else {}
    task = said.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        refuse(base, f"its transformers model is for '{task}', not for features")
    return said


def read_dense(folder: Path, path: str, base: Base) -> Dense:
    """Read a dense layer with its weights."""
    from safetensors.torch import load_file

    said = load(folder / path / "config.json", base)
    activation = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        refuse(base, f"its dense layer '{path}' has the activation '{activation}'")
    if said.get("use_residual") or said.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        refuse(base, f"its dense layer '{path}' is not on the vector of a text alone")
    weights = folder / path / "model.safetensors"
    if not weights.is_file():
        refuse(base, f"its dense layer '{path}' has no model.safetensors")
    tensors = load_file(weights)
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if weight is None or weight.shape != (said.get("out_features"), said.get("in_features")):
        refuse(base, f"the weights of its dense layer '{path}' are not as its config.json says")
    assert weight is not None
    files: dict[str, str | bytes] = {"config.json": json.dumps(said, indent=2) + "\n", "model.safetensors": weights.read_bytes()}
    return Dense(weight.float(), None if bias is None else bias.float(), name, files)


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """One vector per text, (texts, hidden size), from `hidden` (texts, length, hidden size) and `mask` (texts, length)."""
    import torch

    hidden = hidden[:, -mask.shape[1]:]  # prompt tuning puts its own states before the text's
    steps = torch.arange(mask.shape[1], device=mask.device)
    if pooling == "max":
        return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).max(1).values
    if pooling in ("mean", "mean-sqrt", "weighted-mean"):
        first = mask.argmax(1, keepdim=True)  # of padding on the left
        weights = (mask * (steps - first + 1) if pooling == "weighted-mean" else mask).unsqueeze(-1).to(hidden.dtype)
        total = weights.sum(1)
        return (hidden * weights).sum(1) / (total.sqrt() if pooling == "mean-sqrt" else total)
    place = (mask * (steps + 1 if pooling == "last" else mask.shape[1] - steps)).argmax(1)
    return hidden[torch.arange(hidden.shape[0], device=mask.device), place]


def written(layout: Layout, width: int, length: int | None, kept: bool) -> dict[str, str | bytes]:
    """Return the files that make sentence-transformers compute the vectors as we do, by path.

    width: of a state. length: tokens of a text. kept: the model came with a layout, so that prompts and length are
    written too. A division by the length of the vector ends it, as ours does.
    """
    steps = [*layout.steps[:-1], None] if layout.steps[-1:] == (None,) else [*layout.steps, None]
    names = ["", "1_Pooling", *(f"{place}_{'Dense' if step else 'Normalize'}" for place, step in enumerate(steps, 2))]
    types = ["Transformer", "Pooling", *("Dense" if step else "Normalize" for step in steps)]
    listed = [{"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
              for place, (path, kind) in enumerate(zip(names, types, strict=True))]
    modes = {f"pooling_mode_{key}": name in layout.pooling for name, key in LEGACY.items()}
    files: dict[str, Any] = {"modules.json": listed, "1_Pooling/config.json": {"word_embedding_dimension": width, **modes}}
    if kept:
        known = length if length is not None and length < LONGEST else None
        files["sentence_bert_config.json"] = {"max_seq_length": known, "do_lower_case": layout.lower}
        files["config_sentence_transformers.json"] = {
            "prompts": dict(layout.prompts), "default_prompt_name": layout.default, "similarity_fn_name": "cosine"}
    texts: dict[str, str | bytes] = {name: json.dumps(value, indent=2) + "\n" for name, value in files.items()}
    for path, step in zip(names[2:], steps, strict=True):
        inner = {"config.json": "{}\n"} if step is None else step.files
        texts |= {f"{path}/{name}": value for name, value in inner.items()}
    return texts
