"""Scores of the vision tasks, from scikit-learn and pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from hubtune import Prediction, Rows, label_id
from hubtune_plugins.vision.boxes import objects_of


def pixel_scores(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Mean intersection over union and pixel accuracy of answers with `counts`, over the classes that occur."""
    from sklearn.metrics import accuracy_score

    each = overlaps(predictions)
    gold, found, pixels = columns(predictions)
    return {"mean_iou": sum(each.values()) / len(each) if each else 0.0,
            "pixel_accuracy": float(accuracy_score(gold, found, sample_weight=pixels)) if pixels else 0.0}


def overlaps(predictions: Sequence[Prediction]) -> Any:
    """Intersection over union of every class that occurs, by id."""
    from sklearn.metrics import jaccard_score

    gold, found, pixels = columns(predictions)
    classes = sorted({*gold, *found})
    if not classes:
        return {}
    each = jaccard_score(gold, found, labels=classes, average=None, sample_weight=pixels, zero_division=0.0)
    return dict(zip(classes, map(float, each), strict=True))


def columns(predictions: Sequence[Prediction]) -> tuple[Any, Any, Any]:
    """The `counts` of answers, which are (gold, found, pixels) triples, as three lists of all rows together."""
    total: dict[Any, Any] = {}
    for gold, found, pixels in (count for prediction in predictions for count in prediction["counts"]):
        total[gold, found] = total.get((gold, found), 0) + pixels
    return [gold for gold, _ in total], [found for _, found in total], list(total.values())


def average_precision(
    predictions: Sequence[Prediction], rows: Rows, config: Any
) -> tuple[dict[str, float], Any]:
    """`box_scores` of answers to rows that have `objects`."""
    gold = [[(label_id(kind, config), 1.0, box) for kind, box in objects_of(row["objects"])] for row in rows]
    found = [[(label_id(one["label"], config), one["score"], (x, y, right - x, bottom - y))
              for one in prediction["boxes"] for x, y, right, bottom in [one["box"]]] for prediction in predictions]
    return box_scores(gold, found, list(config.label2id))


def box_scores(gold: Any, found: Any, names: Any) -> tuple[Any, Any]:
    """COCO's mean average precision, by pycocotools: at IoU 0.50 to 0.95 (`map`), at 0.50 and 0.75, and `map` per class.

    gold, found: per image, (class, score, (x, y, width, height) in pixels) triples; classes from 0.
    """
    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    notes = [{"image_id": image, "category_id": kind, "score": score, "bbox": list(box), "area": box[2] * box[3],
              "iscrowd": 0, "ignore": 0, "id": number}
             for number, (image, (kind, score, box)) in enumerate(spread(gold), 1)]
    answers = [{"image_id": image, "category_id": kind, "score": score, "bbox": list(box)}
               for image, (kind, score, box) in spread(found)]
    if not notes or not answers:
        return {"map": 0.0, "map_50": 0.0, "map_75": 0.0}, {}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to the screen what it does
        truth = COCO()
        truth.dataset = {"info": {}, "images": [{"id": image} for image in range(len(gold))], "annotations": notes,
                         "categories": [{"id": index, "name": name} for index, name in enumerate(names)]}
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class); -1 where a class never occurs
    each = {name: float(np.mean(precision[:, :, index])) for index, name in enumerate(names) if precision[0, 0, index] >= 0}
    return {"map": float(judge.stats[0]), "map_50": float(judge.stats[1]), "map_75": float(judge.stats[2])}, each


def spread(lists: Any) -> list[Any]:
    """(image, item) of every item of every image."""
    return [(image, item) for image, items in enumerate(lists) for item in items]
