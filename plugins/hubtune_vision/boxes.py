"""Boxes as data sets write them, and the loss terms of detectors as sums."""

from contextlib import contextmanager

from hubtune import DataError, row_numbers

KEYS = {"bbox": ("bbox", "bboxes", "box", "boxes"),
        "category": ("category", "categories", "label", "labels", "class", "category_id")}


def objects_of(value):
    """(category, (x, y, width, height)) pairs, in pixels, of a dict of lists or of a list of dicts."""
    if isinstance(value, dict):
        names = {key: next((name for name in names if name in value), None) for key, names in KEYS.items()}
        if None in names.values():
            raise ValueError(f"it has {', '.join(value)}, and no bbox or no category")
        kinds, found = value[names["category"]], value[names["bbox"]]
        if len(kinds) != len(found):
            raise ValueError(f"it has {len(kinds)} categories and {len(found)} boxes")
        pairs = zip(kinds, found, strict=True)
    else:
        pairs = [pair for item in value or () for pair in objects_of({name: [it] for name, it in item.items()})]
    return [(str(kind), tuple(map(float, box))) for kind, box in pairs]


def checked(splits, sizes):
    """The categories of every row by split; boxes that are none, or lie outside of their image, are refused."""
    raw = {}
    for split, rows in splits.items():
        raw[split], bad = [], {}
        for index, (row, (height, width)) in enumerate(zip(rows, sizes[split], strict=True)):
            try:
                found = objects_of(row["objects"])
            except (ValueError, TypeError, AttributeError) as error:
                found, bad[index] = [], str(error)
            for _, box in found:
                x, y, w, h = box if len(box) == 4 else (0.0, 0.0, 0.0, 0.0)
                if not (w > 0 and h > 0 and x > -1 and y > -1 and x + w < width + 1 and y + h < height + 1):
                    bad[index] = f"the box {list(box)} in an image of {width} x {height}"
            raw[split].append([kind for kind, _ in found])
        if bad:
            raise DataError(f"{len(bad)} of {len(raw[split])} rows have boxes that cannot be: {row_numbers(list(bad))} of "
                            f"{split}. The first: {next(iter(bad.values()))}.",
                            hint="A box is x, y, width, height in pixels of the image as it is shown, inside of it.")
    return raw


@contextmanager
def as_one_process(model):
    """Keep the library's loss from adding up boxes over processes, which see batches of their own, in their own number,
    and let it compute in fp64 where the model does."""
    import torch
    from transformers.loss import loss_for_object_detection as library

    saved, default = library.is_accelerate_available, torch.get_default_dtype()
    dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
    library.is_accelerate_available = lambda: False
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        library.is_accelerate_available = saved
        torch.set_default_dtype(default)


def normaliser(config, counts):
    """What the terms of a detector's loss are divided by, by term, for images with so many objects.

    Boxes, and classes under a focal loss: by the number of objects, where an image without any counts as one. Classes
    under softmax (DETR): by the weight of all queries, those without an object weighing `eos_coefficient`.
    """
    found = {"boxes": float(sum(max(1, count) for count in counts))}
    if hasattr(config, "eos_coefficient") and not any("focal" in name for name in vars(config)):
        queries = getattr(config, "num_detection_tokens", None) or config.num_queries
        matched = [min(queries, count) for count in counts]
        found["classes"] = float(sum(m + config.eos_coefficient * (queries - m) for m in matched))
    return found
