"""Image processors of transformers that exist for torchvision alone, computed by Pillow and torch.

This file is also loaded by path in the process that proves a saved model, which has no hubtune: it imports torch and
transformers, and those inside of functions. Only classes whose pixels are made by resizing, cropping, rescaling and
normalizing are here; their configuration is read and saved as it is, under the name of the original class, so that a user with
torchvision loads that one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 2}
DEFAULTS: dict[str, dict[str, Any]] = {
    "DINOv3ViTImageProcessor": {**STEPS, **IMAGENET, "size": {"height": 224, "width": 224}},
    "PI0ImageProcessor": {**STEPS, **HALVES, "resample": 3, "do_convert_rgb": True, "do_pad": True,
                          "size": {"max_height": 224, "max_width": 224}, "pad_size": {"height": 224, "width": 224}},
    "RfDetrImageProcessor": {**STEPS, **IMAGENET, "do_pad": True, "size": {"shortest_edge": 800, "longest_edge": 1333}},
    "Sam3ImageProcessor": {**STEPS, **HALVES, "do_convert_rgb": True, "size": {"height": 1008, "width": 1008}},
    "Sapiens2ImageProcessor": {**STEPS, **IMAGENET, "size": {"height": 1024, "width": 768},
                               "crop_size": {"height": 224, "width": 224}},
}
"""Defaults of fields that a configuration leaves out, by the name of the class (transformers 5.24)."""
RESCALED_FIRST = {"DINOv3ViTImageProcessor": True, "RfDetrImageProcessor": False}
"""Classes that resize numbers in [0, 1], and whether they smooth (antialias) as they do."""


def plain_class(name: str) -> type[Any]:
    """Return a class of images that needs no torchvision, for a key of `DEFAULTS`. Its `to_dict` has the name of the original."""
    import numpy as np
    import torch
    from transformers.image_processing_backends import PilBackend

    class Plain(PilBackend):  # type: ignore[misc]
        """The same pixels as the original."""

        def _preprocess(self, images: Any, do_rescale: Any, rescale_factor: Any, **more: Any) -> Any:
            if name not in RESCALED_FIRST:
                return super()._preprocess(images, do_rescale=do_rescale, rescale_factor=rescale_factor, **more)
            if do_rescale:
                images = [self.rescale(np.asarray(image, np.float32), rescale_factor) for image in images]
            return super()._preprocess(images, do_rescale=False, rescale_factor=rescale_factor, **more)

        def resize(self, image: Any, size: Any, resample: Any = None, **more: Any) -> Any:
            made = super().resize(image.astype(np.uint8), size, resample, **more)
            if name not in RESCALED_FIRST:
                return made
            mode = {0: "nearest-exact", 3: "bicubic"}.get(int(resample or 2), "bilinear")
            smooth = RESCALED_FIRST[name] and mode != "nearest-exact"
            shape = {} if mode == "nearest-exact" else {"align_corners": False, "antialias": smooth}
            pixels = torch.as_tensor(np.ascontiguousarray(image, np.float32))[None]
            return torch.nn.functional.interpolate(pixels, made.shape[-2:], mode=mode, **shape)[0].numpy()

    for field, value in DEFAULTS[name].items():
        setattr(Plain, field, value)
    Plain.__name__ = Plain.__qualname__ = f"{name}Pil"
    return Plain


def without_torchvision(folder: Path) -> Any | None:
    """Load the image processor of a folder whose class needs torchvision, where this is not installed.

    Returns:
        None where it is installed, where the class does not need it, and where more is asked for than the steps above.
    """
    from transformers.utils import is_torchvision_available

    path = Path(folder) / "preprocessor_config.json"
    if is_torchvision_available() or not path.is_file():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    name = str(said.get("image_processor_type", "")).removesuffix("Fast")
    if name not in DEFAULTS or (name == "Sapiens2ImageProcessor" and said.get("do_pad")):
        return None
    return plain_class(name)(**{field: value for field, value in said.items() if field != "image_processor_type"})
