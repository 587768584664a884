"""DETR-like detectors of transformers: inputs, loss and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hubtune import Base, Batch, Example, Loss, Prediction

if TYPE_CHECKING:
    from torch.nn import Module

MOST, LEAST = 100, 0.001
"""Of every image, the best answers that COCO's metric looks at, and the score from which on they count."""


def reads_mask(auto: Any, config: Any) -> bool:
    """Return whether the model that an `Auto` class makes of a configuration takes a mask of padding."""
    import inspect

    import transformers

    made = getattr(transformers, auto)._model_mapping[type(config)]
    return "pixel_mask" in inspect.signature(made.forward).parameters


def targets_of(examples: Sequence[Example], flips: Any) -> list[Any] | None:
    """Labels as detectors of transformers take them, by example: `class_labels` (objects,) and `boxes` (objects, 4), mirrored
    where `flips` says so; None where an example has no boxes."""
    import torch

    if not all("boxes" in example for example in examples):
        return None
    return [{"class_labels": torch.tensor(example["classes"], dtype=torch.int64),
             "boxes": torch.tensor([(1 - x if flip else x, y, w, h) for x, y, w, h in example["boxes"]]).reshape(-1, 4)}
            for example, flip in zip(examples, flips, strict=True)]


def with_loss(model: Module, batch: Batch) -> Any:
    """The model's output, with its loss."""
    with as_one_process(model):
        inputs = {name: value for name, value in batch.inputs.items() if name != "sizes"}
        return model(**inputs, labels=batch.targets)


@contextmanager
def as_one_process(model: Module) -> Iterator[Any]:
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


def normaliser(config: Any, counts: Any) -> Any:
    """Return what the terms of a detector's loss are divided by, by term, for images with so many objects.

    Boxes, and classes under a focal loss: by the number of objects, where an image without any counts as one. Classes
    under softmax (DETR): by the weight of all queries, those without an object weighing `eos_coefficient`.
    """
    found = {"boxes": float(sum(max(1, count) for count in counts))}
    if hasattr(config, "eos_coefficient") and not any("focal" in name for name in vars(config)):
        queries = getattr(config, "num_detection_tokens", None) or config.num_queries
        matched = [min(queries, count) for count in counts]
        found["classes"] = float(sum(m + config.eos_coefficient * (queries - m) for m in matched))
    return found


def sums(outputs: Any, labels: Any, by: Any) -> list[Any]:
    """The terms of a detector's loss as sums: the model's own means, times what it divided them by.

    labels: what the model was given; by: what `normaliser` says of them.
    """
    counts = [len(one["class_labels"]) for one in labels]
    objects = float(max(1, sum(counts)))  # what the model divides by
    if "classes" not in by:
        return [Loss(outputs.loss * objects, "boxes")]
    classes = sum(term for name, term in outputs.loss_dict.items() if name.startswith("loss_ce"))
    return [Loss((outputs.loss - classes) * objects, "boxes"),
            Loss(classes * by["classes"], "classes")]


def best(outputs: Any, sizes: Any, base: Base) -> list[Prediction]:
    """The best boxes of each image, best first: (left, top, right, bottom). sizes: (height, width) of every image, in
    pixels, as boxes are."""
    import torch

    sizes = torch.tensor(sizes, device=outputs.logits.device)
    answers = []
    for one in base.processor.post_process_object_detection(outputs, threshold=LEAST, target_sizes=sizes):
        first = one["scores"].argsort(descending=True)[:MOST]
        found = zip(one["labels"][first].tolist(), one["scores"][first].tolist(), one["boxes"][first].tolist(), strict=True)
        answers.append({"boxes": [{"label": base.config.id2label[kind], "score": score, "box": box}
                                  for kind, score, box in found]})
    return answers
