"""Masks: from the numbers in their images to class ids, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubtune import Column, DataError, Rows, row_numbers
from hubtune_plugins.vision.images import as_png, format_of, load_ids, size_of

MASK = Column("mask", ("mask", "label", "labels", "annotation", "annotations", "segmentation_mask", "semantic_mask"),
              kind="image", needed="train")
IGNORED = -100
"""Id of a pixel without a class, in targets."""


def ids_of(splits: Mapping[str, Rows], ignore: Any) -> Any:
    """The numbers that stand for classes in the masks of the train split, without the ignored one.

    Masks of nothing but 0 and the ignored number are drawn in black and white: then both are classes. Refused: a mask of
    another size than its image, and a number that the train split never shows.
    """
    found: dict[Any, Any] = {}
    for split, rows in splits.items():
        odd, found[split] = [], []
        lossy: list[int] = []
        for index, row in enumerate(rows):
            ids = load_ids(row["mask"], index)
            if format_of(row["mask"], index) in LOSSY and are_smeared(ids):
                lossy.append(index)
            found[split].append(set(map(int, set(ids.ravel().tolist()))))
            if tuple(ids.shape) != size_of(row["image"], index):
                odd.append((index, f"{ids.shape[1]} x {ids.shape[0]}", size_of(row["image"], index)))
        if lossy:
            refuse_lossy(rows, lossy, found[split], split)
        if odd:
            raise DataError(f"{len(odd)} masks have another size than their image: {row_numbers([o[0] for o in odd], rows)} of "
                            f"{split}. The first: {odd[0][1]}, and its image {odd[0][2][1]} x {odd[0][2][0]}.")
    every = set().union(*found["train"])
    ids = sorted(every) if every == {0, ignore} else sorted(every - {ignore})
    if len(ids) < 2:
        raise DataError(f"the masks of train hold one class only, {ids}: nothing to tell apart.",
                        hint="A mask holds the number of a class at every pixel; task.ignore is the one without a class.")
    for split, rows in found.items():
        strange = [index for index, row in enumerate(rows) if row - {ignore} - set(ids)]
        if strange:
            raise DataError(f"masks of {split} hold classes that train never shows, {sorted(set().union(*rows) - every)}: "
                            f"{row_numbers(strange, splits[split])} of {split}.")
    return ids


LOSSY = ("JPEG", "MPO")
"""Image formats that change the numbers of pixels."""
NEAR = 8
"""Numbers in one mask of a lossy format that are nearer than this come from the compression."""


def are_smeared(ids: Any) -> bool:
    """Tell if a mask holds numbers so near to each other as lossy compression makes them from one."""
    import numpy as np

    return bool((np.diff(np.unique(ids)) < NEAR).any())


def refuse_lossy(rows: Rows, lossy: Any, values: Any, split: str) -> None:
    """Refuse masks whose numbers were changed by lossy compression, with what they hold."""
    every = sorted(set().union(*(values[index] for index in lossy)))
    shown = ", ".join(map(str, every[:10])) + (", ..." if len(every) > 10 else "")
    raise DataError(
        f"{len(lossy)} masks are JPEG images, whose compression changes numbers: they hold {len(every)} different ones "
        f"({shown}), and each would be a class: {row_numbers(lossy, rows)} of {split}.",
        hint="Save masks as PNG from their source. Where that is lost, set every pixel to the nearest number of a class first.")


def named(ids: Any, names: Any) -> dict[str, Any]:
    """The numbers that stand for classes, and the classes' names; refused where the user's names do not fit.

    Names stand for the numbers from 0 on, or for those that were found.
    """
    if names and max(ids) >= len(names) and len(ids) != len(names):
        raise DataError(f"the masks hold the classes {ids}, and task.labels names {len(names)}: {names}.",
                        hint="Name every class from 0 on: --set 'task.labels=[\"background\", ...]'")
    if names and max(ids) < len(names):
        ids = list(range(len(names)))
    return {"ids": ids, "labels": names or [str(number) for number in ids]}


def id_by_number(dataset_info: Mapping[str, Any], label2id: Any) -> Any:
    """The class id of every number in masks, as `named` found them; of a tuned model, which knows no masks: its own."""
    order = list(label2id)
    if not dataset_info.get("labels"):
        return {index: index for index in range(len(order))}
    return dict(zip(dataset_info["ids"], map(order.index, dataset_info["labels"]), strict=True))


def read_ids(value: Any, ids: Any, row: int | None = None) -> Any:
    """A mask as class ids, (height, width). ids: the class of every number; any other has none."""
    import numpy as np

    numbers = load_ids(value, row)
    table = np.full(max(int(numbers.max()), *ids) + 1, IGNORED, dtype=np.int64)
    for number, index in ids.items():
        table[number] = index
    return table[numbers]


def written(ids: Any) -> Any:
    """Class ids as a grey PNG in base64."""
    import base64

    from PIL import Image

    return base64.b64encode(as_png(Image.fromarray(ids.astype("uint8" if ids.max() < 256 else "uint16")))).decode()


def counted(gold: Any, found: Any) -> list[Any]:
    """(class, class found, pixels) of all labelled pixels: what a score needs of a mask, and no more."""
    import numpy as np

    pairs, pixels = np.unique(np.stack([gold, found])[:, gold != IGNORED], axis=1, return_counts=True)
    return [[int(one), int(other), int(count)] for (one, other), count in zip(pairs.T, pixels, strict=True)]
