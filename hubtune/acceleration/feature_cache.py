"""Feature cache: the outputs of a frozen backbone, computed once per example and kept on disk; steps run the head alone.

The dropout of the head stays, that of the backbone is off: run.json says so. Only the tensors that the head reads are kept,
and only if it then gives the answers that it gives on the real ones. Switch: `train.kernels`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubtune import files
from hubtune.acceleration import frozen_backbone
from hubtune.acceleration.backbone import Backbone, Refused, rebuilt, tensors_in
from hubtune.acceleration.feature_files import Field, Split, lengths_of, width_of
from hubtune.acceleration.frozen_backbone import attempt
from hubtune.acceleration.interface import AccelerationContext, Accelerator, BatchRows, Decision
from hubtune.contract import Batch
from hubtune.contract.validation import loss_terms
from hubtune.data.dataset import EncodedDataset
from hubtune.devices import processes
from hubtune.errors import ResumeError
from hubtune.evaluation import equivalence
from hubtune.evaluation.batches import batch_indices, evaluation_mode, make_batch
from hubtune.files import hash_rows
from hubtune.record import versions

SHARE = 0.25
"""The share of the free disk that features may take."""
CLOSE = 1e-5
"""How far the head's loss and answers may be from those on the real outputs, relative to values above 1."""
MANIFEST = "manifest.json"
NAME = "feature_cache"


class FeatureCache(Accelerator):
    """A model whose backbone has known outputs. Passes outside of `batch` compute them as ever."""

    def __init__(self, context: AccelerationContext, backbone: Backbone) -> None:
        super().__init__(NAME, Decision(True, "the backbone is frozen"))
        self.context, self.model, self.backbone, self.callbacks = context, context.model, backbone, context.callbacks
        self.folder = context.folder / "features"
        self.encoded = {"train": context.train, "validation": context.validation}
        self.splits = {name: Split(self.folder, name, len(found.examples)) for name, found in self.encoded.items()}
        self.like: Any = None
        self.fields: list[Field] = []
        self.used: list[Field] = []

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        return self.answering(rows.split, rows.items, rows.batch)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {"used": True}

    @contextmanager
    def answering(self, split: str, items: Sequence[int], batch: Batch) -> Iterator[None]:
        """Entered around the forward pass of these examples of a split, as this batch."""
        with self.backbone.answering(lambda: self.output(self.splits[split], items, batch)):
            yield

    def output(self, split: Split, items: Sequence[int], batch: Batch) -> Any:
        """What the backbone would return; where the head does not look, zeros."""
        width, device = width_of(batch) or 0, next(self.model.parameters()).device
        return rebuilt(self.like, {
            field.name: split.read(field, items, width).to(device) if field.used else
            torch.zeros((), dtype=field.dtype, device=device).expand(len(items), *((width,) if field.long else ()), *field.shape)
            for field in self.fields
        })

    def release(self, optimizer: Any = None) -> None:
        for split in self.splits.values():
            split.flat = {}

    def report(self) -> dict[str, Any]:
        return {**super().report(), "bytes": self.bytes(), "dropout": "off in the backbone"}

    def bytes(self) -> int:
        """What is kept on disk."""
        return sum(split.path(field.name).stat().st_size for split in self.splits.values() for field in self.used)

    def make(self) -> None:
        """Try a few examples, compute all or find them computed, and see that the head answers as it did. May raise Refused."""
        items = frozen_backbone.tried(self.context)
        frozen_backbone.refuse_drawn(self.context, items)
        shortest = items[int(self.context.train.sizes[items].argmin())]
        tries = [(some, self.collate(self.context.train, some)) for some in (items, [shortest])]  # with padding and without
        with evaluation_mode(self.model):
            frozen_backbone.refuse_led(self.context.task, self.model, self.backbone, tries[1][1])
            real = [self.looked_at(tries[0][1])]
            with self.backbone.answering(None) as seen:
                real.append(attempt(self.outcome, tries[1][1]))
                self.kept(seen, tries[1][1])
            if not self.reopened():
                self.refuse_full_disk(items)
                self.compute()
                self.reopened()
            for expected, (some, batch) in zip(real, tries, strict=True):
                with self.answering("train", some, batch):
                    found = attempt(self.outcome, batch)
                    if not equivalence.relative_difference(expected, found) < CLOSE:
                        raise Refused("on kept outputs the head does not answer as on the real ones")

    def collate(self, encoded: EncodedDataset, items: Sequence[int]) -> Batch:
        """Examples of a split, as evaluation has them."""
        examples = [encoded.examples[item] for item in items]
        return make_batch(self.model, self.context.task, examples, self.context.base)

    def outcome(self, batch: Batch) -> list[Any]:
        """The loss of a batch, and its answers."""
        task = self.context.task
        outputs = task.forward(self.model, batch)
        return [[float(term.total) for term in loss_terms(task, outputs, batch)], task.postprocess(outputs, batch, self.context.base)]

    def looked_at(self, batch: Batch) -> list[Any]:
        """Learn what the backbone returns and what of it the head uses; returns the loss and the answers."""
        with self.backbone.answering(None) as seen:
            real: list[Any] = attempt(self.outcome, batch)
        if len(seen) != 1:
            raise Refused(f"the backbone is called {len(seen)} times in one pass")
        self.fields = frozen_backbone.fields_of(self.context.task, self.model, self.backbone, seen[0], batch)
        self.used = [field for field in self.fields if field.used]
        self.like = rebuilt(seen[0], dict.fromkeys(field.name for field in self.fields))  # its kind: the tensors are not needed any more
        return real

    def compute(self) -> None:
        """All examples of all splits through the backbone, each once, and a manifest when they are on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.callbacks.on_progress_start("computing features", sum(len(encoded.examples) for encoded in self.encoded.values()))
        try:
            for name, encoded in self.encoded.items():
                self.splits[name].write(self.computed(encoded), self.used)
        finally:
            self.callbacks.on_progress_end()
        place = self.folder / MANIFEST
        place.write_text(json.dumps({"fingerprint": self.fingerprint}), encoding="utf-8")
        files.flush(place)

    def computed(self, encoded: EncodedDataset) -> Iterator[tuple[list[int], list[int], dict[str, Tensor]]]:
        """Batches by size: their examples, the tokens of each, and the tensors that are kept."""
        for items in batch_indices(self.model, encoded.sizes, self.context.compute.uniform):
            batch = self.collate(encoded, items)
            with self.backbone.answering(None) as seen:
                self.context.task.forward(self.model, batch)
                yield items, lengths_of(batch, any(field.long for field in self.used)), self.kept(seen, batch)
            self.callbacks.on_progress(len(items))

    def kept(self, seen: Sequence[Any], batch: Batch) -> dict[str, Tensor]:
        """The tensors that are kept of what the backbone returned for a batch."""
        found = tensors_in(seen[0]) if len(seen) == 1 else {}
        for field in self.used:
            shape = (batch.size, *((width_of(batch),) if field.long else ()), *field.shape)
            if field.name not in found or tuple(found[field.name].shape) != shape:
                raise Refused("what the backbone returns has neither the length of the text nor always the same")
        return {field.name: found[field.name] for field in self.used}

    def reopened(self) -> bool:
        """Whether everything is on the disk, as this model with these libraries would compute it; then it is opened."""
        try:
            said = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if said["fingerprint"] != self.fingerprint:
                return False
            for split in self.splits.values():
                split.open(self.used)
        except (OSError, ValueError, KeyError):
            return False
        return True

    @functools.cached_property
    def fingerprint(self) -> str:
        """What the features follow from."""
        context, backbone = self.context, self.backbone.module
        weights = [float(value.detach().sum(dtype=torch.float64)) for value in (*backbone.parameters(), *backbone.buffers())]
        how = [getattr(context.compute, name) for name in ("device", "precision", "threads", "uniform", "onednn")]
        said = [context.base.repo, context.base.commit, context.strategy.name, how, context.settings.seed, weights,
                [str(field) for field in self.fields], versions(),
                hash_rows({name: encoded.examples for name, encoded in self.encoded.items()})]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()

    def refuse_full_disk(self, items: Sequence[int]) -> None:
        """Refuse where the features would take much of the disk; how many tokens examples have is told from a few."""
        batch, sizes = self.collate(self.context.train, items), self.context.train.sizes
        share = sum(lengths_of(batch, True)) / max(1, int(sizes[list(items)].sum())) if width_of(batch) else 0.0
        count = sum(len(encoded.examples) for encoded in self.encoded.values())
        tokens = share * sum(int(encoded.sizes.sum()) for encoded in self.encoded.values())
        needed = sum((tokens if field.long else count) * float(np.prod(field.shape)) * field.dtype.itemsize for field in self.used)
        free = shutil.disk_usage(self.context.folder).free
        if needed > SHARE * free:
            raise Refused(f"its outputs would take {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left")


def find(context: AccelerationContext) -> Accelerator:
    """Cache features where no weight of the backbone is ever trained and nothing speaks against it.

    Raises ResumeError where a run that began with features goes on where they cannot be had.
    """
    resumed = context.resumed and context.resumed.get(NAME, {}).get("used")
    prefix = getattr(context.model, "base_model_prefix", "")
    part = getattr(context.model, prefix, None) if prefix else None
    reason = frozen_backbone.against(context, part)
    if reason is None and context.resumed is not None and not resumed:
        reason = "the run began without"
    if reason is None:
        found = cached(context, part)
        if isinstance(found, FeatureCache):
            return found
        reason = found
    if resumed:
        raise processes.collective_error(ResumeError(f"the run began with features computed once, and now: {reason}.",
                                         hint="Its backbone had no dropout. Train anew with --overwrite."))
    return Accelerator(NAME, Decision(False, reason))


def cached(context: AccelerationContext, part: Any) -> FeatureCache | str:
    """The cache of a backbone, with its features computed; or the reason why they cannot be."""
    context.model.to(context.compute.device)
    cache = FeatureCache(context, Backbone(part))
    try:
        cache.make()
    except Refused as refused:
        cache.release()
        shutil.rmtree(cache.folder, ignore_errors=True)
        context.callbacks.on_info(f"no features cached, every step runs the whole model: {refused}")
        return str(refused)
    except BaseException:
        cache.release()
        raise
    context.callbacks.on_info(f"backbone frozen: features cached ({cache.bytes() / 1e6:.0f} MB, backbone dropout off)")
    return cache
