"""Forms of repositories that hubtune does not load: told apart by their files, before weights are fetched."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from hubtune.errors import HubtuneError, ModelError, Unsafe, listing
from hubtune.files import read_json
from hubtune.hub.errors import not_cached_error
from hubtune.hub.origin import Origin, fetch

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
OTHER_LIBRARIES = {
    ".h5": "Keras", ".keras": "Keras", ".msgpack": "Flax", ".onnx": "ONNX", ".tflite": "TensorFlow Lite",
    ".mlmodel": "Core ML", ".ot": "rust-bert", ".npz": "NumPy", ".mar": "TorchServe"}
CODE_WEIGHTS = (*PICKLES, *OTHER_LIBRARIES, ".gguf", ".ggml")
"""Endings of weight files that hubtune does not read."""
RUN_BY = {
    "gptq": "gptqmodel", "awq": "gptqmodel", "bitsandbytes": "bitsandbytes", "fp8": "kernels, on a GPU",
    "fbgemm_fp8": "fbgemm-gpu, on a GPU", "mxfp4": "kernels, on a GPU", "torchao": "torchao",
    "compressed-tensors": "compressed-tensors", "aqlm": "aqlm, on a GPU", "hqq": "hqq", "quanto": "optimum-quanto",
    "MLX": "mlx, on a Mac"}
"""Packages that run quantized weights, and the device where it must be another than a CPU, by the method."""
CONVERT = ("Ask its author to convert it (https://huggingface.co/spaces/safetensors/convert), or look "
           "for another: hubtune search ")


def require_loadable(origin: Origin) -> None:
    """Refuse a repository that is no whole transformers model in safetensors at its top level.

    Raises:
        ModelError: an adapter, another library's model, a quantized or nested one.
        Unsafe: weights whose loading can run code.
    """
    if "adapter_config.json" in origin.files:
        raise ModelError(
            f"'{origin.repo}' is an adapter (PEFT) over {base_of(origin)}, not a whole model.",
            where=origin.repo, hint="hubtune train merges it and goes on from there. To predict, merge it with PEFT "
            "(merge_and_unload), save the whole model, and give its folder.")
    if "model_index.json" in origin.files:
        raise ModelError(f"'{origin.repo}' is a pipeline of diffusers (pictures, sound or video), "
                         "which hubtune does not tune.", where=origin.repo,
                         hint="Give a transformers model: hubtune search WORDS")
    if "config.json" in origin.files and origin.weights:
        return
    if origin.pinned is not None and origin.pinned.cached and "config.json" in origin.files:
        raise not_cached_error(f"{origin.repo}'s weights", origin.commit)
    refuse_quantized_files(origin)
    if "config.json" not in origin.files:
        refuse_without_config(origin)
    refuse_weights(origin)


def base_of(origin: Origin) -> str:
    """Name the base model of an adapter, as its configuration does."""
    path = fetch(origin, ["adapter_config.json"]) / "adapter_config.json"
    try:
        base = read_json(path, "adapter_config.json", "").get("base_model_name_or_path")
    except HubtuneError:
        base = None
    return f"'{base:.200}'" if isinstance(base, str) and base else "a base model that it does not name"


def refuse_quantized_files(origin: Origin) -> None:
    """Refuse a repository of GGUF files alone."""
    found = [name for name in origin.files if name.endswith((".gguf", ".ggml"))]
    if found and not origin.weights:
        raise ModelError(
            f"'{origin.repo}' has GGUF weights only ({listing(found, 3)}): quantized for llama.cpp, to "
            "be run and not trained.", where=origin.repo, hint=original_hint(origin))


def original_hint(origin: Origin) -> str:
    """Name the model that a quantized one was made from, where its card does."""
    base = origin.card.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    name = f" By its card, that is: {base}" if isinstance(base, str) else ""
    return f"Train the model that it was made from, with --strategy qlora if memory is short.{name}"


def refuse_without_config(origin: Origin) -> NoReturn:
    """Refuse a repository without a config.json at its top level."""
    nested = sorted(str(PurePosixPath(name).parent) for name in origin.files
                    if "/" in name and PurePosixPath(name).name == "config.json")
    if nested:
        name = origin.repo if origin.folder is None else str(origin.folder)
        mark = ":" if origin.folder is None else "/"
        at = f"@{origin.commit}" if origin.folder is None else ""
        raise ModelError(
            f"'{origin.repo}' has its model in a subfolder: {listing(nested, 4)}.", where=origin.repo,
            hint=f"Give that folder: --model {shlex.quote(f'{name}{mark}{nested[0]}{at}')}")
    kind = "it has no config.json"
    if "modules.json" in origin.files:
        kind = "a list of sentence-transformers' modules without a config.json"
    raise ModelError(f"'{origin.repo}' is not a transformers model: {kind}.", where=origin.repo,
                     hint=f"See what it contains with: hubtune show {origin.repo}")


def refuse_weights(origin: Origin) -> NoReturn:
    """Refuse a repository without safetensors weights of transformers, with what it has instead."""
    named = sorted(name for name in origin.files if name.endswith(".safetensors"))
    search = CONVERT + origin.repo.split("/")[-1]
    if named:
        raise ModelError(
            f"its safetensors files do not have the names that transformers loads "
            f"(model.safetensors, model-00001-of-00002.safetensors): {listing(named, 4)}.",
            where=origin.repo, hint="It was saved by another library. Save it with "
            "save_pretrained of transformers, or look for a version for transformers.")
    pickles = sorted(name for name in origin.files if name.endswith(PICKLES))
    if pickles:
        raise Unsafe(
            f"'{origin.repo}' has no safetensors weights; other weights: {listing(pickles)}. Loading "
            "a pickle can run code of its author, so hubtune refuses it.",
            where=origin.repo, hint=search)
    others = {name: library for name in sorted(origin.files)
              for ending, library in OTHER_LIBRARIES.items() if name.endswith(ending)}
    if others:
        raise ModelError(
            f"'{origin.repo}' has weights of {listing(sorted(set(others.values())))} only "
            f"({listing(others, 3)}), which hubtune does not read.", where=origin.repo, hint=search)
    raise ModelError(f"'{origin.repo}' has no weights.", where=origin.repo,
                     hint="Fetch the model as a whole, or give another.")


def check_form(config: Mapping[str, Any], origin: Origin) -> None:
    """Refuse, from the contents of config.json, weights that cannot be trained, or of timm.

    Raises:
        ModelError: quantized weights; weights under another name; a model of timm without timm.
    """
    import importlib.util

    quantized = config.get("quantization_config") or config.get("quantization")
    if isinstance(quantized, dict):
        method = quantized.get("quant_method") or (
            "bitsandbytes" if {"load_in_4bit", "load_in_8bit"} & quantized.keys() else "MLX")
        bits = quantized.get("bits") or quantized.get("w_bit")
        package = f" by {RUN_BY[method]}" if method in RUN_BY else ""
        raise ModelError(
            f"its weights are quantized ({method!s:.40}{f', {bits!s:.10} bits' if bits else ''}): they "
            f"can be run{package}, but not trained.", where=origin.repo, hint=original_hint(origin))
    named = config.get("transformers_weights")
    if named is not None and named not in origin.weights:
        raise ModelError(
            f"its config.json names the weight file {named!r:.200} (transformers_weights), which is "
            "none of its safetensors files.", where=origin.repo,
            hint="Remove that line from config.json.")
    if is_timm(config) and importlib.util.find_spec("timm") is None:
        raise ModelError("it is a model of timm, which is not installed.", where=origin.repo,
                         hint="pip install timm   (or give a model saved by transformers)")


def is_timm(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is of timm, or of transformers' wrapper around it."""
    return config.get("model_type") == "timm_wrapper" or (
        "model_type" not in config and {"architecture", "pretrained_cfg"} <= config.keys())


def weight_formats(origin: Origin) -> list[dict[str, Any]]:
    """Return the formats of the weights, with the number of files and bytes of each."""
    formats: dict[str, dict[str, Any]] = {}
    for name, size in origin.files.items():
        suffix = Path(name).suffix
        if suffix == ".safetensors" or suffix in CODE_WEIGHTS:
            entry = formats.setdefault(suffix[1:], {"format": suffix[1:], "files": 0, "bytes": 0})
            entry["files"] += 1
            entry["bytes"] += size
    return sorted(formats.values(), key=lambda entry: str(entry["format"]))
