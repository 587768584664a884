"""Headers of safetensors files: read before weights are fetched, and refused where they contradict themselves."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hubtune
from hubtune.errors import ModelError
from hubtune.hub.headers import INDEX, TensorHeader, count_parameters, read_headers
from hubtune.hub.origin import local_origin, locate

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
TENSORS = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}


def write(folder: Path, header: Any, data: int = 32, length: int | None = None) -> Path:
    """Write a weight file with any header, followed by `data` bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text + bytes(data))
    return folder


def entry(begin: int, end: int, shape: Any = (2, 3), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_names_types_and_shapes_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    origin = local_origin(tmp_path)
    assert read_headers(origin) == {"a": TensorHeader("F32", (2, 3)), "b": TensorHeader("F16", (4,))}
    assert count_parameters(origin) == 10


LIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "longer than the file": ({"a": entry(0, 24)}, {"length": 10**6}, "its header would have 1,000,000"),
    "of 2**63 bytes": ({}, {"length": 2**63}, "its header would have"),
    "no JSON": (b"\xff\xfe{", {}, "not JSON"),
    "deeply nested": (b"[" * 100_000, {}, "not JSON (RecursionError)"),
    "a list": ([1], {}, "is a list"),
    "an unknown type": ({"a": entry(0, 24, dtype="F99")}, {"data": 24}, "unknown type 'F99'"),
    "a type that is no text": ({"a": entry(0, 24, dtype=[1])}, {"data": 24}, "unknown type"),
    "a negative size": ({"a": entry(0, 24, (-2, -3))}, {"data": 24}, "[-2, -3]"),
    "a size of text": ({"a": entry(0, 24, "23")}, {"data": 24}, "'23'"),
    "an entry of text": ({"a": "x"}, {}, "unknown type None"),
    "overlapping tensors": ({"a": entry(0, 24), "b": entry(20, 44)}, {"data": 44}, "begins at byte 20"),
    "a gap": ({"a": entry(0, 24), "b": entry(30, 54)}, {"data": 54}, "begins at byte 30"),
    "another size": ({"a": entry(0, 20)}, {"data": 20}, "would lie at the bytes 0 to 20"),
    "a file that ends early": ({"a": entry(0, 24)}, {"data": 10}, "24 bytes by the header, and the file has 10"),
    "a file that goes on": ({"a": entry(0, 24)}, {"data": 99}, "the file has 99"),
    "numbers without bound": ({"a": entry(0, 10**400, [10**400])}, {}, "would lie at"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_file(lie: str, tmp_path: Path) -> None:
    header, more, says = LIES[lie]
    origin = local_origin(write(tmp_path / "model", header, **more))
    with pytest.raises(ModelError) as caught:
        read_headers(origin)
    assert says in caught.value.message
    assert caught.value.where == "model/model.safetensors"
    assert "again" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"", b"1234567"])
def test_a_file_that_is_too_short_for_a_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=f"it has {len(content)} bytes"):
        read_headers(local_origin(tmp_path))


INDICES: dict[str, tuple[str | None, str]] = {
    "missing": (None, "is missing"),
    "no JSON": ("{", "not valid JSON"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "a list": ("[]", "not a list"),
    "without a map": ("{}", "'weight_map' must be an object"),
    "a map of numbers": ('{"weight_map": {"a": 1}}', "'weight_map' must be an object"),
    "of absent files": ('{"weight_map": {"a": "model-9.safetensors"}}', "not there: model-9.safetensors"),
    "that leads outside": ('{"weight_map": {"a": "../model.safetensors"}}', "outside the model's folder: ../model"),
    "of an absolute path": ('{"weight_map": {"a": "/etc/x.safetensors"}}', "outside the model's folder"),
}


@pytest.mark.parametrize("index", INDICES)
def test_an_index_that_is_wrong_is_refused(index: str, tmp_path: Path) -> None:
    text, says = INDICES[index]
    save_file(TENSORS, tmp_path / "model-00001-of-00002.safetensors")
    if text is not None:
        (tmp_path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_headers(local_origin(tmp_path))
    assert says in str(caught.value)


def test_the_files_of_an_index_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(TENSORS, 1):
        save_file({name: TENSORS[name]}, tmp_path / f"model-{number}.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {
        name: f"model-{number}.safetensors" for number, name in enumerate(TENSORS, 1)}}), encoding="utf-8")
    assert set(read_headers(local_origin(tmp_path))) == set(TENSORS)


def test_a_part_missing_on_the_hub_is_refused_without_fetching_weights(
    hub: Any, tiny_model: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    shutil.copytree(tiny_model("bert"), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "layer.1." not in k}, path)
    hub.add_model("tiny/half", tmp_path / "model")
    with pytest.raises(ModelError, match="would begin at random"):
        hubtune.check("text-classification", model="tiny/half", data=ROWS, out=tmp_path / "run")
    from huggingface_hub import try_to_load_from_cache

    assert try_to_load_from_cache("tiny/half", "model.safetensors") is None


def test_a_header_on_the_hub_that_lies_is_refused(hub: Any, tiny_model: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_model("bert"), tmp_path / "model")
    write(tmp_path / "lying", {"a": entry(0, 10**9, [250_000_000])})
    shutil.copy(tmp_path / "lying" / "model.safetensors", tmp_path / "model")
    hub.add_model("tiny/lying", tmp_path / "model")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_headers(locate("tiny/lying"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"123")
    hub.add_model("tiny/lying", tmp_path / "model")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_headers(locate("tiny/lying"))
