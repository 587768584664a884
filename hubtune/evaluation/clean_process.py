"""Run saved models on recorded inputs without hubtune: the clean process of `verification`.

Started as a script in a process that cannot import hubtune: `python -I clean_process.py MODULE...`. It
imports these modules, so that they are there when it is asked, and then reads from standard input the
path of a JSON list of {folder, model, loads_with, base, config, inputs, outputs, processor, tag, calls, threads}.
Writes `outputs`, and the answers to `calls` as `outputs.answers`; or the error to `outputs.error`.
Without a path, as when the process that started it was killed, it ends; also where none comes for a minute, so that
no memory is held during a long training.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Job = dict[str, Any]

COMPARED = ("logits", "pred_boxes", "start_logits", "end_logits", "last_hidden_state")
"""Fields of a model's output that are compared, where it has them."""
MOST_VALUES = 2**22
"""Values of a tensor with an entry for each token that are compared: 16 MiB in fp32."""
SAMPLED = 512
"""About how many values of a tensor an answer holds."""
PATIENCE = 60
"""Seconds for which the process waits for jobs."""
IMPORTED_EARLY = ("torch", "safetensors.torch", "transformers.masking_utils", "transformers.modeling_layers",
                  "transformers.pipelines")
"""Modules that most jobs need, for a process that is started before the model is known: nearly all of its imports."""


def compared_outputs(outputs: Any) -> dict[str, Any]:
    """Return the tensors of a model's output that are compared, by name, in fp32 on the CPU."""
    found = {name: getattr(outputs, name, None) for name in COMPARED}
    return {
        name: thinned(value.detach()).float().cpu().contiguous()
        for name, value in found.items()
        if value is not None
    }


def thinned(value: Any) -> Any:
    """Return a large tensor (rows, tokens, ...) at its last token and 1, 2, 4, 8 and so on before it.

    The logits of 16 rows of 512 tokens over a vocabulary of 128,000 are 4 GB. Tokens are counted
    from the end, so that those are the same to which a model adds some in front (prompt tuning).
    """
    if value.ndim < 3 or value.numel() <= MOST_VALUES:
        return value
    tokens = value.shape[1]
    offsets = {0, *(2**power for power in range(tokens.bit_length()) if 2**power < tokens)}
    return value[:, [tokens - 1 - offset for offset in sorted(offsets, reverse=True)]]


def load(job: Job, dtype: Any) -> Any:
    """Load a model as its card says: by transformers alone, PEFT over its base, or its code."""
    import transformers

    auto = getattr(transformers, job["model"])
    local = {"use_safetensors": True, "local_files_only": True, "dtype": dtype}
    if job["loads_with"] == "peft":
        from peft import PeftModel

        config = transformers.AutoConfig.from_pretrained(job["base"], local_files_only=True)
        for name, value in job["config"].items():
            value = (
                {int(key): label for key, label in value.items()} if name == "id2label" else value
            )
            for part in (config, config.get_text_config()):
                if part is config or hasattr(part, name):
                    setattr(part, name, value)
        base = auto.from_pretrained(
            job["base"], config=config, ignore_mismatched_sizes=True, **local
        )
        return PeftModel.from_pretrained(base, job["folder"])
    return auto.from_pretrained(
        job["folder"], trust_remote_code=job["loads_with"] == "code", **local
    )


def load_processor(job: Job) -> Any:
    """Load the processor that lies beside a model."""
    import transformers

    if job["processor"] == "AutoImageProcessor":
        path = Path(__file__).parents[1] / "models" / "image_processors.py"
        plain = runpy.run_path(str(path))["without_torchvision"](job["folder"])
        if plain is not None:
            return plain
    kind = getattr(transformers, job["processor"])
    return kind.from_pretrained(
        job["folder"], local_files_only=True, trust_remote_code=job["loads_with"] == "code")


def meaning(model: Any, processor: Any, folder: Path) -> dict[str, Any]:
    """Describe what rows alone do not show: label names, vocabulary, padding and number format.

    folder: where the model is saved.
    """
    config = model.config
    tokenizer = getattr(processor, "tokenizer", processor)
    words = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None
    labels = getattr(config, "id2label", None) or {}
    text = json.dumps(words, sort_keys=True)
    saved = folder / "config.json"
    stored = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    return {
        "labels": {str(key): str(name) for key, name in labels.items()},
        "label ids": {str(name): int(key) for name, key in
                      (getattr(config, "label2id", None) or {}).items()},
        "problem type": getattr(config, "problem_type", None),
        "special tokens": {name: getattr(config, name, None) for name in (
            "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")},
        "vocabulary": words and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "tokenizer": {name: getattr(tokenizer, name, None) for name in (
            "model_max_length", "padding_side", "truncation_side", "pad_token", "eos_token")},
        "number format": stored.get("dtype", stored.get("torch_dtype")),
    }


def answer(model: Any, processor: Any, tag: str, call: Mapping[str, Any], folder: Path) -> Any:
    """Ask a model as its users do; returns JSON.

    Args:
        tag: of the pipeline.
        call: `way`, `inputs` and `options` of a `UserCall`; media are files of `folder`.
    """
    import torch

    inputs, options = read_media(call["inputs"], folder), dict(call["options"])
    with torch.no_grad():
        if call["way"] == "pipeline":
            return as_answer(pipeline(model, processor, tag)(inputs, **options))
        given = {"truncation": True} if call["way"] == "generate" else options
        positional, named = ((inputs, {}) if isinstance(inputs, list) else
                             ((), inputs) if isinstance(inputs, dict) else ((inputs,), {}))
        tensors = processor(*positional, **named, **given, return_tensors="pt").to(model.device)
        if call["way"] == "choices":
            tensors = {name: value.unsqueeze(0) for name, value in tensors.items()}
        if call["way"] != "generate":
            found = {"input_ids": tensors.get("input_ids"), **compared_outputs(model(**tensors))}
            most = call.get("sampled", SAMPLED)
            return {name: sample(value, most) for name, value in found.items() if value is not None}
        read = {name: value for name, value in tensors.items() if name != "token_type_ids"}
        written = model.generate(**read, **options)
        return processor.decode(written[0], skip_special_tokens=True).strip()


def pipeline(model: Any, processor: Any, tag: str) -> Any:
    """Make the pipeline of a model, on its device."""
    import transformers

    kinds = {"tokenizer": transformers.PreTrainedTokenizerBase,
             "image_processor": transformers.BaseImageProcessor,
             "feature_extractor": transformers.FeatureExtractionMixin,
             "processor": transformers.ProcessorMixin}
    parts = {name: part for name, kind in kinds.items()
             if isinstance(part := getattr(processor, name, processor), kind)}
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)  # it lists every class but own ones
    try:
        return transformers.pipeline(tag, model=model, device=model.device, **parts)
    finally:
        transformers.logging.set_verbosity(level)


def as_answer(found: Any) -> Any:
    """Return a pipeline's answer as JSON; scores of labels as one dict."""
    if isinstance(found, Mapping):
        # `input_text` repeats what was asked, images too, which are no JSON.
        return {str(key): as_answer(value) for key, value in found.items() if key != "input_text"}
    if isinstance(found, list | tuple):
        if len(found) == 1 and isinstance(found[0], list):
            found = found[0]
        if found and all(isinstance(one, Mapping) and one.keys() == {"label", "score"} for one in found):
            return {str(one["label"]): float(one["score"]) for one in found}
        return [as_answer(one) for one in found]
    return found.item() if hasattr(found, "item") else found


def sample(tensor: Any, count: int) -> dict[str, Any]:
    """Return the shape of a tensor and about `count` values that are spread evenly over it."""
    flat = tensor.flatten()
    step = max(1, len(flat) // count)
    return {"shape": list(tensor.shape), "values": flat[::step].tolist()}


def read_media(value: Any, folder: Path) -> Any:
    """Replace `{"file": name}` by the image or the array in that file, `{"made": kind}` by a made one."""
    if isinstance(value, list):
        return [read_media(one, folder) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"made"}:
        return make_media(value["made"])
    if value.keys() != {"file"}:
        return {name: read_media(one, folder) for name, one in value.items()}
    path = folder / value["file"]
    if path.suffix == ".npy":
        import numpy as np

        return np.load(path, allow_pickle=False)
    from PIL import Image

    return Image.open(path).convert("RGB")


def make_media(kind: str) -> Any:
    """Return an image of slanted stripes, or a rising sound of one second at 16 kHz."""
    import numpy as np

    if kind == "sound":
        seconds = np.arange(16000) / 16000
        return np.sin(2 * np.pi * (200 + 300 * seconds) * seconds).astype(np.float32) / 2
    from PIL import Image

    row, column, channel = np.ogrid[:96, :128, :3]
    return Image.fromarray(((3 * row + 5 * column + 70 * channel) % 256).astype(np.uint8))


def answer_all(job: Job, model: Any) -> None:
    """Write as JSON the answers to all calls, what went wrong with each, and the meaning of labels and tokens.

    Or, where no call can be answered, `error`.
    """
    folder = Path(job["calls"])
    calls = json.loads((folder / "calls.json").read_text(encoding="utf-8"))["calls"]
    found: dict[str, Any] = {"answers": [], "errors": []}
    try:
        processor = load_processor(job)
        found["meaning"] = meaning(model, processor, Path(job["folder"]))
    except Exception as error:  # of any processor: it says what is wrong with the saved files
        calls, found["error"] = [], describe(error)
    for call in calls:
        given = problem = None
        try:
            given = answer(model, processor, job["tag"], call, folder)
        except Exception as error:  # which counts only where the trained model has answered
            problem = describe(error)
        found["answers"].append(given)
        found["errors"].append(problem)
    Path(f"{job['outputs']}.answers").write_text(json.dumps(found), encoding="utf-8")


def describe(error: Exception) -> str:
    """Return the class and the words of an error."""
    return f"{type(error).__name__}: {error}"


def refuse_nan(model: Any) -> None:
    """Refuse weights with values that are no numbers, in rows that no input may reach."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and bool(parameter.isnan().any()):
            raise ValueError(f"'{name}' has values that are not numbers (NaN)")


def run(job: Job) -> None:
    """Read batches named `0.input_ids`, if any, and write the model's outputs as `0.logits`."""
    import torch
    from safetensors.torch import load_file, save_file

    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    tensors = load_file(job["inputs"]) if job["inputs"] else {}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    model = load(job, dtype).eval()
    refuse_nan(model)
    batches: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        batches.setdefault(number, {})[key] = value
    outputs: dict[str, Any] = {}
    with torch.no_grad():
        for number, batch in batches.items():
            outputs |= {
                f"{number}.{name}": value
                for name, value in compared_outputs(model(**batch)).items()
            }
    if job.get("calls"):
        answer_all(job, model)
    save_file(outputs, job["outputs"])


def main(modules: list[str]) -> None:
    """Import modules, then run every job; one that fails writes its error and does not stop the others."""
    gc.disable()  # visiting the modules' objects while they are imported takes a quarter of the time
    for name in modules:
        with contextlib.suppress(Exception):  # a job that needs it fails with the same error, and reports it
            importlib.import_module(name)
    gc.freeze()
    gc.enable()
    if hasattr(signal, "alarm"):
        signal.alarm(PATIENCE)
    jobs = sys.stdin.readline().rstrip("\n")
    if not jobs:
        return
    if hasattr(signal, "alarm"):
        signal.alarm(0)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        try:
            run(job)
        except Exception as error:
            Path(f"{job['outputs']}.error").write_text(describe(error), encoding="utf-8")


if __name__ == "__main__":
    sys.modules["hubtune"] = None  # type: ignore[assignment]  # an import of it is an error here
    main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # taking torch's modules apart takes 0.15 s, for which the other process would wait
