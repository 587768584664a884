"""Parts of the page of images: small pictures, boxes drawn on them, masks laid over them."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hubtune import BarsPanel, Box, MatrixPanel, Panel, Prediction, RowsPanel, ShownRow
from hubtune_plugins.vision.boxes import objects_of
from hubtune_plugins.vision.images import load_ids, load_rgb

SIDE = 320
"""Pixels of the longer side of a picture on the page."""
SHOWN = 12
"""Rows to look at."""
OVERLAP = 0.5
"""Intersection over union from which a box counts as found."""


def thumbnail(value: Any, overlay: Any = None) -> str:
    """Return an image as a small JPEG in a `data:` address. overlay: a picture of the same size laid over it, with its alpha."""
    from PIL import Image

    image = load_rgb(value)
    if overlay is not None:
        image = Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def of_boxes(predictions: Sequence[Prediction], rows: Any, sizes: Sequence[tuple[int, int]], threshold: float) -> list[Panel]:
    """Panels of boxes. sizes: (height, width) of each image in pixels. threshold: the score from which on a box is shown."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in ("found", "missed", "invented")}
    errors, drawn = [], []
    for prediction, row in zip(predictions, rows, strict=True):
        truth = [(kind, (x, y, x + w, y + h)) for kind, (x, y, w, h) in objects_of(row["objects"])]
        given = [(one["label"], tuple(one["box"])) for one in prediction["boxes"] if one["score"] >= threshold]
        hits = matched(truth, given)
        for index, (kind, _) in enumerate(truth):
            counts["found" if index in hits else "missed"][kind] += 1
        invented = [kind for index, (kind, _) in enumerate(given) if index not in hits.values()]
        counts["invented"].update(invented)
        errors.append(len(truth) - len(hits) + len(invented))
        drawn.append((truth, given))
    worst = sorted(range(len(errors)), key=lambda index: -errors[index])[:SHOWN]
    shown = [ShownRow(row, listed(drawn[row][0]), listed(drawn[row][1]), errors[row], thumbnail(rows[row]["image"]),
                      boxes_of(*drawn[row], sizes[row])) for row in worst]
    bars = {name: {kind: float(number) for kind, number in sorted(found.items())} for name, found in counts.items() if found}
    note = f"Boxes with a score from {threshold:g} on; found: the right label and an intersection over union from {OVERLAP:g} on."
    return [BarsPanel("Boxes by label", "boxes", bars, note=note),
            RowsPanel("Worst rows", shown, note="The images with the most boxes missed or invented. Whole lines: what is right; "
                                                "broken lines: the answer.")]


def of_masks(predictions: Sequence[Prediction], rows: Any, labels: Sequence[str], right: Callable[[int], Any]) -> list[Panel]:
    """Panels of masks. labels: the names of class ids. right: returns the class ids of a row's pixels, (height, width)."""
    import numpy as np

    pixels: Counter[tuple[int, int]] = Counter()
    wrong = []
    for prediction in predictions:
        each = {(gold, found): count for gold, found, count in prediction["counts"]}
        pixels.update(each)
        wrong.append(sum(count for (gold, found), count in each.items() if gold != found) / max(1, sum(each.values())))
    worst = sorted(range(len(wrong)), key=lambda row: -wrong[row])[:SHOWN]
    shown = []
    for row in worst:
        gold, found = right(row), load_ids(base64.b64decode(predictions[row]["mask"]))
        names = [labels[index] for index in np.unique(gold[gold >= 0]).tolist()]
        shown.append(ShownRow(row, ", ".join(names), f"{wrong[row]:.1%} of the pixels are wrong", wrong[row],
                              thumbnail(rows[row]["image"], overlay_of(gold, found))))
    cells = [(*pair, count) for pair, count in sorted(pixels.items())]
    return [MatrixPanel("Confusion matrix of pixels", labels, cells, note="In pixels of all images."),
            RowsPanel("Worst rows", shown, note="The images with the most wrong pixels, which are orange; right ones of any class "
                                                f"but {labels[0]} are green.")]


def overlay_of(gold: Any, found: Any) -> Any:
    """Return a picture that colours wrong pixels, and right ones of any class but the first, (height, width)."""
    import numpy as np
    from PIL import Image

    colours = np.zeros((*gold.shape, 4), np.uint8)
    colours[(gold == found) & (gold > 0)] = (0, 208, 156, 90)
    colours[(gold != found) & (gold >= 0)] = (255, 122, 26, 170)
    return Image.fromarray(colours, "RGBA")


def matched(truth: Sequence[Any], given: Sequence[Any]) -> dict[int, int]:
    """Return the given box of each right one that was found, by their indices: each once, the best answers first."""
    hits: dict[int, int] = {}
    for index, (kind, box) in enumerate(given):
        best = max(((overlap(box, other), number) for number, (name, other) in enumerate(truth)
                    if name == kind and number not in hits), default=(0.0, 0))
        if best[0] >= OVERLAP:
            hits[best[1]] = index
    return hits


def overlap(one: Any, other: Any) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(width * height / (sum(areas) - width * height))


def listed(boxes: Sequence[Any]) -> str:
    """Return how many boxes of each label there are: `3 RBC, 1 WBC`."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(kind for kind, _ in boxes).items())) or "nothing"


def boxes_of(truth: Sequence[Any], given: Sequence[Any], size: tuple[int, int]) -> list[Box]:
    """Return boxes in parts of the image's sides, cut at its edges."""
    height, width = size
    found = []
    for boxes, right in ((truth, True), (given, False)):
        for kind, (left, top, end, bottom) in boxes:
            x, y = max(0.0, left / width), max(0.0, top / height)
            found.append(Box(x, y, min(1.0, end / width) - x, min(1.0, bottom / height) - y, str(kind), right))
    return found
