"""Feature cache: outputs of a frozen backbone, computed once per example and kept on disk.

Steps then compute the head alone. The head's dropout stays, the backbone's is off, as run.json
records. Only tensors that the head reads are kept, and only if the head then gives the same
outputs. Switch: `train.kernels`.
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
from hubtune.acceleration.backbone import Backbone, Refused, find_tensors, replace_tensors
from hubtune.acceleration.feature_files import Field, Split, padded_width, token_counts
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
"""Maximum share of the free disk space for features."""
CLOSE = 1e-5
"""Tolerance of the head's loss and outputs, relative to values above 1."""
MANIFEST = "manifest.json"
NAME = "feature_cache"


class FeatureCache(Accelerator):
    """A model with cached outputs of its backbone.

    Passes outside of `batch` compute them as usual.
    """

    def __init__(self, context: AccelerationContext, backbone: Backbone) -> None:
        super().__init__(NAME, Decision(True, "the backbone is frozen"))
        self.context, self.callbacks = context, context.callbacks
        self.model, self.backbone = context.model, backbone
        self.folder = context.features or context.folder / "features"
        self.encoded = {"train": context.train, "validation": context.validation}
        self.splits = {name: Split(self.folder, name, len(found.examples))
                       for name, found in self.encoded.items()}
        self.like: Any = None
        self.fields: list[Field] = []
        self.used: list[Field] = []

    def batch(self, rows: BatchRows) -> AbstractContextManager[None]:
        return self.intercept(rows.split, rows.items, rows.batch)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {"used": True}

    @contextmanager
    def intercept(self, split: str, items: Sequence[int], batch: Batch) -> Iterator[None]:
        """Replace the backbone's outputs in the forward pass of these examples of a split."""
        with self.backbone.intercept(lambda: self.output(self.splits[split], items, batch)):
            yield

    def output(self, split: Split, items: Sequence[int], batch: Batch) -> Any:
        """Build the backbone's output from the files, with zeros for fields that are not read."""
        width, device = padded_width(batch) or 0, next(self.model.parameters()).device
        tensors = {}
        for field in self.fields:
            if field.used:
                tensors[field.name] = split.read(field, items, width).to(device)
            else:
                shape = (len(items), *((width,) if field.long else ()), *field.shape)
                tensors[field.name] = torch.zeros((), dtype=field.dtype,
                                                  device=device).expand(shape)
        return replace_tensors(self.like, tensors)

    def release(self, optimizer: Any = None) -> None:
        for split in self.splits.values():
            split.flat = {}

    def report(self) -> dict[str, Any]:
        return {**super().report(), "bytes": self.bytes(), "dropout": "off in the backbone"}

    def bytes(self) -> int:
        """Return the bytes on disk."""
        paths = (split.path(field.name) for split in self.splits.values() for field in self.used)
        return sum(path.stat().st_size for path in paths)

    def make(self) -> None:
        """Try a few examples, compute or reopen the features, and compare the head's outputs.

        Raises:
            Refused: the outputs cannot be cached.
        """
        items = frozen_backbone.select_probes(self.context)
        frozen_backbone.refuse_random_inputs(self.context, items)
        shortest = items[int(self.context.train.sizes[items].argmin())]
        # With padding and without.
        tries = [(some, self.collate(self.context.train, some)) for some in (items, [shortest])]
        with evaluation_mode(self.model):
            frozen_backbone.refuse_trainable_inputs(self.context.task, self.model, self.backbone,
                                                    tries[1][1])
            real = [self.inspect_output(tries[0][1])]
            with self.backbone.intercept(None) as seen:
                real.append(attempt(self.outcome, tries[1][1]))
                self.select_tensors(seen, tries[1][1])
            if not self.reopen():
                self.refuse_full_disk(items)
                self.compute()
                self.reopen()
            for expected, (some, batch) in zip(real, tries, strict=True):
                with self.intercept("train", some, batch):
                    found = attempt(self.outcome, batch)
                    if not equivalence.relative_difference(expected, found) < CLOSE:
                        raise Refused("with cached outputs the head gives other results")

    def collate(self, encoded: EncodedDataset, items: Sequence[int]) -> Batch:
        """Collate examples of a split as in evaluation."""
        examples = [encoded.examples[item] for item in items]
        return make_batch(self.model, self.context.task, examples, self.context.base)

    def outcome(self, batch: Batch) -> list[Any]:
        """Return the loss and the outputs of a batch."""
        task = self.context.task
        outputs = task.forward(self.model, batch)
        return [[float(term.total) for term in loss_terms(task, outputs, batch)],
                task.postprocess(outputs, batch, self.context.base)]

    def inspect_output(self, batch: Batch) -> list[Any]:
        """Record the backbone's output and the fields that the head reads; return its results."""
        with self.backbone.intercept(None) as seen:
            real: list[Any] = attempt(self.outcome, batch)
        if len(seen) != 1:
            raise Refused(f"the backbone is called {len(seen)} times in one pass")
        self.fields = frozen_backbone.find_fields(self.context.task, self.model, self.backbone,
                                                  seen[0], batch)
        self.used = [field for field in self.fields if field.used]
        # Its kind: the tensors are not needed any more.
        self.like = replace_tensors(seen[0], dict.fromkeys(field.name for field in self.fields))
        return real

    def compute(self) -> None:
        """Compute the features of all examples of all splits, then write the manifest."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        count = sum(len(encoded.examples) for encoded in self.encoded.values())
        self.callbacks.on_progress_start("computing features", count)
        try:
            for name, encoded in self.encoded.items():
                self.splits[name].write(self.compute_batches(encoded), self.used)
        finally:
            self.callbacks.on_progress_end()
        place = self.folder / MANIFEST
        place.write_text(json.dumps({"fingerprint": self.fingerprint}), encoding="utf-8")
        files.flush(place)

    def compute_batches(
            self,
            encoded: EncodedDataset) -> Iterator[tuple[list[int], list[int], dict[str, Tensor]]]:
        """Yield batches by size: their examples, the tokens of each, and the tensors to keep."""
        for items in batch_indices(self.model, encoded.sizes, self.context.compute.uniform):
            batch = self.collate(encoded, items)
            with self.backbone.intercept(None) as seen:
                self.context.task.forward(self.model, batch)
                counts = token_counts(batch, any(field.long for field in self.used))
                yield items, counts, self.select_tensors(seen, batch)
            self.callbacks.on_progress(len(items))

    def select_tensors(self, seen: Sequence[Any], batch: Batch) -> dict[str, Tensor]:
        """Return the tensors to keep of the backbone's output for a batch."""
        found = find_tensors(seen[0]) if len(seen) == 1 else {}
        for field in self.used:
            shape = (batch.size, *((padded_width(batch),) if field.long else ()), *field.shape)
            if field.name not in found or tuple(found[field.name].shape) != shape:
                raise Refused(
                    "the backbone's outputs have neither the length of the text nor a fixed one")
        return {field.name: found[field.name] for field in self.used}

    def reopen(self) -> bool:
        """Open complete features with the same fingerprint; return False without these."""
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
        """Hash of everything that the features depend on."""
        context, backbone = self.context, self.backbone.module
        weights = [float(value.detach().sum(dtype=torch.float64))
                   for value in (*backbone.parameters(), *backbone.buffers())]
        how = [getattr(context.compute, name)
               for name in ("device", "precision", "threads", "uniform", "onednn")]
        rows = hash_rows({name: encoded.examples for name, encoded in self.encoded.items()})
        said = [
            context.base.repo, context.base.commit, context.strategy.name, how,
            context.settings.seed, weights, [str(field) for field in self.fields],
            versions(), rows
        ]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()

    def refuse_full_disk(self, items: Sequence[int]) -> None:
        """Refuse features that would take much of the free disk, estimated from a few examples."""
        batch, sizes = self.collate(self.context.train, items), self.context.train.sizes
        share = 0.0
        if padded_width(batch):
            share = sum(token_counts(batch, True)) / max(1, int(sizes[list(items)].sum()))
        count = sum(len(encoded.examples) for encoded in self.encoded.values())
        tokens = share * sum(int(encoded.sizes.sum()) for encoded in self.encoded.values())
        needed = sum(
            (tokens if field.long else count) * float(np.prod(field.shape)) * field.dtype.itemsize
            for field in self.used)
        free = shutil.disk_usage(self.context.folder).free
        if needed > SHARE * free:
            raise Refused(f"its outputs would take {needed / 1e9:.1f} GB, "
                          f"and the disk has {free / 1e9:.1f} GB left")


def find(context: AccelerationContext) -> Accelerator:
    """Cache features if no weight of the backbone is trained and nothing else prevents it.

    Raises:
        ResumeError: a resumed run began with features, which cannot be computed now.
    """
    resumed = context.resumed and context.resumed.get(NAME, {}).get("used")
    prefix = getattr(context.model, "base_model_prefix", "")
    part = getattr(context.model, prefix, None) if prefix else None
    reason = frozen_backbone.refusal(context, part)
    if reason is None and context.resumed is not None and not resumed:
        reason = "the run began without"
    if reason is None:
        found = make_cache(context, part)
        if isinstance(found, FeatureCache):
            return found
        reason = found
    if resumed:
        raise processes.collective_error(ResumeError(
            f"the run began with cached features, which are impossible now: {reason}.",
            hint="Its backbone had no dropout. Train again with --overwrite."))
    return Accelerator(NAME, Decision(False, reason))


def make_cache(context: AccelerationContext, part: Any) -> FeatureCache | str:
    """Return the cache of a backbone with its features, or the reason why there is none."""
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
    context.callbacks.on_info(
        f"backbone frozen: features cached ({cache.bytes() / 1e6:.0f} MB, backbone dropout off)")
    return cache
