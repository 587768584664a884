"""Image processors that transformers has for torchvision alone make the pixels that their configuration asks for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubtune.models.image_processors import DEFAULTS, without_torchvision

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))


def processor(folder: Path, name: str, **more: object) -> object:
    said = {"image_processor_type": name, "size": {"height": 32, "width": 24}, "image_mean": MEAN.tolist(),
            "image_std": STD.tolist(), **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    return without_torchvision(folder)


def normalized(pixels: np.ndarray) -> np.ndarray:
    """pixels: (height, width, 3) in [0, 1]. Returns (3, height, width)."""
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["Sapiens2ImageProcessor", "Sam3ImageProcessor"])
def test_resizes_whole_levels_as_pillow_does(tmp_path, name):
    made = processor(tmp_path, name)(images=IMAGE, return_tensors="np")["pixel_values"][0]
    resized = np.asarray(IMAGE.resize((24, 32), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(made, normalized(resized), atol=1e-5)


def test_dinov3_resizes_after_it_rescales_without_rounding(tmp_path):
    made = processor(tmp_path, "DINOv3ViTImageProcessorFast")(images=IMAGE, return_tensors="np")["pixel_values"][0]
    channels = [np.asarray(Image.fromarray(channel).resize((24, 32), Image.Resampling.BILINEAR))  # in floats
                for channel in (np.asarray(IMAGE, np.float32) / 255).transpose(2, 0, 1)]
    np.testing.assert_allclose(made, normalized(np.stack(channels, -1)), atol=1e-4)


def test_rf_detr_resizes_without_smoothing(tmp_path):
    made = processor(tmp_path, "RfDetrImageProcessor", do_pad=False)(images=IMAGE, return_tensors="np")["pixel_values"][0]
    pixels = torch.from_numpy(np.asarray(IMAGE, np.float32).copy() / 255).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, (32, 24), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(made, normalized(resized.permute(1, 2, 0).numpy()), atol=1e-5)


def test_pi0_keeps_the_sides_and_fills_up(tmp_path):
    made = processor(tmp_path, "PI0ImageProcessor", size={"max_height": 32, "max_width": 32},
                     pad_size={"height": 32, "width": 32})(images=IMAGE, return_tensors="np")["pixel_values"][0]
    resized = np.asarray(IMAGE.resize((32, 19), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(made[:, :19], normalized(resized), atol=1e-5)
    assert (made[:, 19:] == 0).all()


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_configuration_is_saved_under_the_original_name(tmp_path, name):
    made = processor(tmp_path, name)
    made.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert said["image_processor_type"] == name
    again = without_torchvision(tmp_path)(images=IMAGE, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(made(images=IMAGE, return_tensors="np")["pixel_values"], again)


def test_padding_of_sapiens2_is_left_to_the_original(tmp_path):
    assert processor(tmp_path, "Sapiens2ImageProcessor", do_pad=True) is None
    assert processor(tmp_path, "ViTImageProcessor") is None
