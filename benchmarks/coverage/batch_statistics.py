"""Weights of convolutional models that let a signal through, and statistics of their batch norms that fit the weights.

Every pretrained model has both. With the library's initialization (a standard deviation of 0.02) and the statistics of a new batch
norm, what reaches the head of a deep convolutional model is below 1e-30, and with it every gradient.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

IMAGES = 16
TOO_SMALL = 1e-6
"""Standard deviation of initial weights that no signal passes: SAM's configuration says 1e-10."""


def settled(folder: Path, scratch: Path) -> Path:
    """Return the folder of a model: the same, or a copy whose batch norms have statistics of noise and of plain images."""
    import torch
    import transformers
    import zoo
    from torch.nn.modules.batchnorm import _BatchNorm

    config = transformers.AutoConfig.from_pretrained(folder)
    kind: Any = getattr(transformers, config.architectures[0])
    model = kind.from_pretrained(folder)
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    if not norms and getattr(getattr(config, "vision_config", config), "initializer_range", 1.0) > TOO_SMALL:
        return folder
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight)
    for norm in norms:
        norm.reset_running_stats()
        torch.nn.init.ones_(norm.weight)
        norm.momentum = None  # the mean of all batches
    if norms:
        inputs = zoo.tiny_inputs(config.model_type, config, model, IMAGES)
        inputs["pixel_values"] += torch.linspace(-1, 1, IMAGES).reshape(-1, *[1] * (inputs["pixel_values"].ndim - 1))
        for part in model.modules():
            part.training = part in norms
        with torch.no_grad():
            model(**inputs)
    for norm in norms:
        norm.momentum = 0.1
    copied = scratch / f"{folder.name}-settled"
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    model.eval().save_pretrained(copied)
    return copied
