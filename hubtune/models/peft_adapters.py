"""PEFT adapters: put on a model to predict, or merged into it to train further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.errors import ModelError, listing
from hubtune.hub.adapters import WEIGHTS, read_config
from hubtune.hub.headers import TensorHeader, read_header
from hubtune.hub.origin import Origin, fetch, local_origin, read_run_record
from hubtune.models.completeness import check_finite
from hubtune.models.foreign import model_errors

if TYPE_CHECKING:
    from torch.nn import Module

CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM", "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM", "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification", "QUESTION_ANS": "AutoModelForQuestionAnswering", "FEATURE_EXTRACTION": "AutoModel"}
"""The class of transformers that an adapter of each `task_type` is put on."""
LABELLED = ("AutoModelForSequenceClassification", "AutoModelForTokenClassification")


def attach_adapter(model: Module, folder: Path, repo: str) -> Module:
    """Wrap a base model in the PEFT adapter of a folder, for inference.

    Raises:
        ModelError: the adapter's files cannot be read, do not fit the model, or are not whole.
    """
    from peft import PeftModel, get_peft_model_state_dict

    saved = read_header(folder / WEIGHTS, WEIGHTS, repo)
    with model_errors("its adapter cannot be loaded", repo, "Fetch the adapter again as a whole."):
        wrapped: Any = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    missing = sorted(expected.keys() - saved.keys())
    if missing:
        raise ModelError(
            f"{WEIGHTS} lacks {len(missing):,} of the adapter's {len(expected):,} tensors, which "
            f"would begin at random: {listing(missing, 4)}.", where=repo,
            hint="Fetch the adapter again as a whole.")
    check_finite(repo, wrapped)
    module: Module = wrapped
    return module


def merge(origin: Origin, place: Path) -> Origin:
    """Merge the adapter of an origin into its base model, in fp32, and save it in a folder; returns the folder's origin.

    The base is loaded by the class that the adapter was made for, so that the names of its weights fit.

    Raises:
        ModelError: the adapter does not fit its base, or does not say for which class it is.
    """
    import torch
    import transformers

    adapter = origin.adapter
    assert adapter is not None
    folder = fetch(adapter, [*adapter.small, WEIGHTS])
    name = class_name(adapter)
    headers = read_header(folder / WEIGHTS, WEIGHTS, adapter.repo)
    labels = {"num_labels": count_labels(headers)} if name in LABELLED and count_labels(headers) else {}
    with model_errors("its base model cannot be loaded for the adapter", adapter.repo):
        model = getattr(transformers, name).from_pretrained(
            fetch(origin, [*origin.small, *origin.weights]), local_files_only=True, use_safetensors=True, dtype=torch.float32,
            ignore_mismatched_sizes=True, **labels, **({"variant": origin.variant} if origin.variant else {}))
    wrapped: Any = attach_adapter(model, folder, adapter.repo)
    with model_errors("it cannot be merged into its base model", adapter.repo):
        wrapped.merge_and_unload().save_pretrained(place)
    return replace(local_origin(place), repo=origin.repo)


def class_name(adapter: Origin) -> str:
    """Return the class of transformers that an adapter was made for."""
    said, record = read_config(adapter), read_run_record(adapter)
    auto = said.get("auto_mapping") or {}
    found = (record.get("task") or {}).get("model") or CLASSES.get(str(said.get("task_type"))) or auto.get("base_model_class")
    import transformers

    if not isinstance(found, str) or not hasattr(transformers, found):
        raise ModelError(f"'{adapter.repo}' does not say for which class of transformers it was made (task_type).",
                         where=adapter.repo, hint=f"Name it in adapter_config.json, as one of: {listing(sorted(CLASSES))}")
    return found


def count_labels(headers: dict[str, TensorHeader]) -> int | None:
    """Return how many labels the head has that lies with an adapter: the rows of its last layer; None without a head."""
    rows = [header.shape[0] for name, header in headers.items()
            if len(header.shape) == 2 and ".lora_" not in name and name.endswith(".weight")
            and any(word in name for word in ("classifier", "score", "classification_head", "logits_proj", "out_proj"))]
    return min(rows, default=None)
