"""Headers of safetensors files: names, types and shapes of the weights, before these are fetched.

The header of a file on the Hub is read with a request for the file's first bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from hubtune.errors import ModelError, listing
from hubtune.files import read_json
from hubtune.hub.download import PinnedRepo
from hubtune.hub.errors import client, translate_errors
from hubtune.hub.origin import Origin, fetch, in_repository
from hubtune.hub.retries import retry

INDEX = "model.safetensors.index.json"
"""The file that names the safetensors file of each tensor."""
LARGEST_HEADER = 100_000_000
"""Bytes that the safetensors library reads of a header at most."""
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}
"""Bits of a number, by the name of its type in a header."""


@dataclass(frozen=True)
class TensorHeader:
    """A tensor of a safetensors file: the name of its type, as in `BITS`, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_headers(origin: Origin) -> dict[str, TensorHeader]:
    """Return the tensors of a model's weights by name, without fetching the weights.

    Raises:
        ModelError: a header contradicts itself or the file's length, or the index names files
            that are not there.
        HubError: the Hub cannot be asked.
    """
    found: dict[str, TensorHeader] = {}
    for name in weight_files(origin):
        path = local_path(origin, name)
        if path is not None:
            found |= read_header(path, name, origin.repo)
        elif origin.pinned is not None:
            found |= fetch_header(origin.pinned, in_repository(origin, name), origin.files[name])
    return found


def weight_files(origin: Origin) -> list[str]:
    """Return the safetensors files that transformers loads: one, or those that the index names.

    Raises:
        ModelError: the index is missing or invalid, or names files that are not there or lie
            outside the model's folder.
    """
    variant = f".{origin.variant}" if origin.variant else ""
    if origin.weights in ([], [f"model{variant}.safetensors"]):
        return origin.weights
    index_name = INDEX.replace(".json", f"{variant}.json")
    where = f"{origin.repo}/{index_name}"
    hint = "Fetch the model again as a whole; save_pretrained writes the index with the weights."
    if index_name not in origin.files:
        raise ModelError(
            f"the weights are in {len(origin.weights)} files ({listing(origin.weights, 2)}), and "
            f"the index that joins them, {index_name}, is missing.", where=origin.repo, hint=hint)
    index = read_json(fetch(origin, origin.small) / index_name, where, hint)
    files = index.get("weight_map")
    if not isinstance(files, dict) or not files or not all(
            isinstance(file, str) for file in files.values()):
        raise ModelError("'weight_map' must be an object of file names by tensor name.",
                         where=where, hint=hint)
    names = sorted(set(files.values()))
    outside = [name for name in names if PurePosixPath(name).name != name or "\\" in name]
    if outside:
        raise ModelError(f"it names files outside the model's folder: {listing(outside, 4)}.",
                         where=where, hint="Do not use this model: such an index is no accident.")
    absent = [name for name in names if name not in origin.files]
    if absent:
        raise ModelError(f"it names weight files that are not there: {listing(absent, 4)}.",
                         where=where, hint=hint)
    return names


def local_path(origin: Origin, name: str) -> Path | None:
    """Return the path of a weight file that is on this machine, else None."""
    if origin.folder is not None:
        return origin.folder / name
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(origin.repo, in_repository(origin, name), revision=origin.commit)
    return Path(found) if isinstance(found, str) else None


def read_header(path: Path, name: str, repo: str) -> dict[str, TensorHeader]:
    """Read and check the header of a local file.

    Raises:
        ModelError: it is no safetensors header, or contradicts the file's length.
    """
    size, where = path.stat().st_size, f"{repo}/{name}"
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > min(size - 8, LARGEST_HEADER):
            raise damaged(where, f"it has {size:,} bytes, and its header would have "
                          f"{'8 or more' if length is None else f'{length:,}'}")
        text = file.read(length)
    try:
        tensors = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(where, f"its header is not JSON ({type(error).__name__})") from None
    if not isinstance(tensors, dict):
        raise damaged(where, f"its header is a {type(tensors).__name__}, not an object")
    tensors.pop("__metadata__", None)
    return check_header(tensors, where, size - 8 - length)


def fetch_header(pinned: PinnedRepo, name: str, size: int) -> dict[str, TensorHeader]:
    """Read and check the header of a file on the Hub. size: the bytes that the Hub lists."""
    where = f"{pinned.repo}/{name}"
    try:
        with translate_errors(pinned.repo, pinned.commit):
            found: Any = retry(
                lambda: client().parse_safetensors_file_metadata(
                    pinned.repo, name, revision=pinned.commit), f"reading the header of {where}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The client's parser raises these, or its SafetensorsParsingError, for malformed headers.
        raise damaged(where, f"its header cannot be read ({type(error).__name__})") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorsParsingError":
            raise
        raise damaged(where, "its header cannot be read") from error
    tensors = {
        key: {"dtype": info.dtype, "shape": info.shape, "data_offsets": list(info.data_offsets)}
        for key, info in found.tensors.items()}
    return check_header(tensors, where, size - 8, whole=False)


def check_header(
    tensors: Mapping[str, Any], where: str, size: int, whole: bool = True
) -> dict[str, TensorHeader]:
    """Check a header by the rules of the format: its tensors follow each other without gaps.

    Args:
        size: bytes of all tensors, or the most that they may have if not `whole`.

    Raises:
        ModelError: it breaks one.
    """
    found: dict[str, TensorHeader] = {}
    spans = []
    for name, entry in tensors.items():
        entry = entry if isinstance(entry, dict) else {}
        dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in BITS:
            raise damaged(where, f"tensor {name!r:.200} has the unknown type {dtype!r:.100}")
        if not (is_counts(shape) and is_counts(span) and len(span) == 2):
            raise damaged(where, f"tensor {name!r:.200} has the shape {shape!r:.100} at the bytes "
                          f"{span!r:.100}")
        if (span[1] - span[0]) * 8 != prod(shape) * BITS[dtype]:
            raise damaged(where, f"tensor {name!r:.200}, {dtype} {shape!r:.100}, would lie at the "
                          f"bytes {span[0]:,} to {span[1]:,}")
        spans.append((span[0], span[1], name))
        found[name] = TensorHeader(dtype, tuple(shape))
    end = 0
    for begin, after, name in sorted(spans):
        if begin != end:
            raise damaged(where, f"tensor {name!r:.200} begins at byte {begin:,}, and the one "
                          f"before it ends at {end:,}")
        end = after
    if end > size or (whole and end != size):
        raise damaged(where, f"its tensors have {end:,} bytes by the header, and the file has "
                      f"{size:,} for them")
    return found


def is_counts(value: Any) -> TypeGuard[list[int]]:
    """Tell whether a value is a list of whole numbers from 0."""
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)


def damaged(where: str, reason: str) -> ModelError:
    """Return the error for a safetensors file whose header is wrong."""
    return ModelError(
        f"this is not a whole safetensors file: {reason}.", where=where,
        hint="Copy or download the file again. If it is the same everywhere, its author has to "
        "save the model again.")


def count_parameters(origin: Origin) -> int | None:
    """Count the parameters: the Hub's count, or a sum over the headers of local files."""
    if origin.pinned is not None:
        return origin.pinned.parameters
    if origin.folder is None or not origin.weights:
        return None
    return sum(prod(tensor.shape) for tensor in read_headers(origin).values())
