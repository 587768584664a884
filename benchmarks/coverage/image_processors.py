"""Image processors of tiny models, where zoo.py writes one that does not fit the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.coverage import batch_statistics
from hubtune.models.heads import structure

PATCHES = ("patch_size", "temporal_patch_size")
WHOLE = {"yolos": {"size": {"shortest_edge": 64, "longest_edge": 96}},
         "rf_detr": {"size": {"shortest_edge": 64, "longest_edge": 96}}}
"""Settings of processors that zoo.py leaves out, by the model type."""


def fitted(folder: Path, scratch: Path) -> Path:
    """Return the folder of a model whose processor and weights are like a pretrained model's: the same, or a changed copy."""
    from transformers import AutoConfig

    folder = batch_statistics.settled(folder, scratch)
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return folder
    said = json.loads(path.read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder)
    wanted = of_tower(config, said) or {**said, **WHOLE.get(config.model_type, {})}
    if config.model_type in ("sam", "sam_hq"):
        side = config.vision_config.image_size
        wanted |= {"size": {"longest_edge": side}, "pad_size": {"height": side, "width": side}}
    if wanted == said:
        return folder
    copied = scratch / f"{folder.name}-fitted"
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    (copied / path.name).write_text(json.dumps(wanted), encoding="utf-8")
    return copied


def of_tower(config: Any, said: dict[str, Any]) -> dict[str, Any] | None:
    """Return the processor of the chat model that a vision tower is of; None where zoo.py has written the tower's own."""
    import zoo
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    if not set(structure.PATCHES) & set(zoo.forward_params(zoo.model_class(config.model_type))):
        return None
    whole = config.model_type.removesuffix("_model").removesuffix("_vision")
    kinds = IMAGE_PROCESSOR_MAPPING_NAMES.get(whole)
    if whole == config.model_type or not kinds or said["image_processor_type"] != "ViTImageProcessor":
        return None
    values = config.to_dict()
    found: dict[str, Any] = {"image_processor_type": kinds.get("torchvision") or kinds["pil"]}
    found |= {name: values[name] for name in PATCHES if isinstance(values.get(name), int)}
    if isinstance(merge := values.get("spatial_merge_size"), int):
        found["merge_size"] = merge
    if whole == "gemma4":
        return {**found, "pooling_kernel_size": values["pooling_kernel_size"], "max_soft_tokens": 70}
    if whole == "siglip2":
        return {**found, "max_num_patches": 16}
    side = values["patch_size"]
    return {**found, "size": {"shortest_edge": (4 * side) ** 2, "longest_edge": (8 * side) ** 2}}
