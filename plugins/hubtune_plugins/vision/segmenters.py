"""Semantic segmentation between masks and a model: what is learnt at which size, and what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hubtune import Example, exact
from hubtune_plugins.vision.masks import IGNORED, counted, read_ids, written

if TYPE_CHECKING:
    from torch import Tensor


def targets_of(
    examples: Sequence[Example], flips: Any, ids: Any, grid: Any, whole: Any
) -> dict[str, Any] | None:
    """Return what a batch is learnt from, or None where an example has no mask: `small` masks as class ids, (images, *grid), and
    `masks` of each image's own size if they are wanted `whole`. flips: whose image is mirrored."""
    import torch

    if not all("mask" in example for example in examples):
        return None
    masks = [torch.from_numpy(read_ids(example["mask"], ids, example["row"])) for example in examples]
    turned = [mask.flip(-1) if flip else mask for mask, flip in zip(masks, flips, strict=True)]
    return {"small": torch.stack([resized(mask, grid) for mask in turned]), "masks": masks if whole else []}


def resized(mask: Any, grid: Any) -> Any:
    """A mask of class ids at another height and width: every pixel has the class of the nearest one."""
    from torch.nn import functional as F

    return F.interpolate(mask[None, None].double(), grid, mode="nearest-exact")[0, 0].long()


def known(targets: Any) -> Any:
    """Return which pixels have a class."""
    return targets != IGNORED


def pixel_loss(logits: Tensor, targets: Any) -> Any:
    """The cross-entropy, as a sum over the pixels of `targets` (images, height, width) that have a class. logits: (images,
    classes, height, width) of any height and width."""
    from torch.nn import functional as F

    logits = F.interpolate(exact(logits), targets.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def guessed(logits: Tensor, sizes: Any) -> Iterator[Any]:
    """The best class of every pixel of each image, as (height, width) arrays of ids. sizes: height and width by image."""
    from torch.nn import functional as F

    for index, size in enumerate(sizes):
        whole = F.interpolate(exact(logits[index : index + 1]), tuple(size), mode="bilinear", align_corners=False)
        yield whole[0].argmax(0).cpu().numpy()


def answers(logits: Tensor, sizes: Any, label2id: Any, masks: Any) -> list[Any]:
    """An answer for each image. sizes: (height, width) by image; masks: what is right, as class ids, where it is known."""
    gold = [None] * len(sizes) if masks is None else [mask.cpu().numpy() for mask in masks]
    return [answered(ids, label2id, one) for ids, one in zip(guessed(logits, sizes), gold, strict=True)]


def answered(ids: Any, label2id: Any, gold: Any = None) -> Any:
    """Class ids as an answer: the mask as PNG in base64, whose values are `label2id`'s, and the share of pixels by label,
    largest first. gold: what is right, of which `counts` then keeps what a score needs."""
    shares = sorted(((float((ids == index).mean()), name) for name, index in label2id.items()), reverse=True)
    answer = {"labels": {name: share for share, name in shares if share}, "mask": written(ids)}
    return answer if gold is None else {**answer, "counts": counted(gold, ids)}
