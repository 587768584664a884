"""What a backbone gives that stays as it is: computed once per example and kept on disk, so that steps run the head alone.

The head's own dropout stays, the backbone's is off: `run.json` says so, and `train.kernels=plain` does without. Only the
tensors that the head looks at are kept, and only if it then answers as it does on the real ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hubtune import files
from hubtune.acceleration import frozen_backbone
from hubtune.acceleration.backbone import Backbone, Refused, rebuilt, tensors_in
from hubtune.acceleration.feature_files import Field, Split, lengths_of, width_of
from hubtune.acceleration.frozen_backbone import attempt
from hubtune.callbacks import Callbacks
from hubtune.contract import Batch
from hubtune.data.dataset import EncodedDataset
from hubtune.evaluation import inference
from hubtune.files import of_rows
from hubtune.record import versions

if TYPE_CHECKING:
    from torch.nn import Module

    from hubtune.training.context import TrainingContext

SHARE = 0.25
"""The share of the free disk that features may take."""
CLOSE = 1e-5
"""How far the head's loss and answers may be from those on the real outputs, relative to values above 1."""
MANIFEST = "manifest.json"


class Nothing:
    """No features: every step and every validation runs the whole model."""

    cached = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def train(self, items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
        """These examples of the training split are computed next, as this batch."""
        return inference.unknown(items, batch)

    def validation(self, items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
        """The same of the validation split."""
        return inference.unknown(items, batch)

    def release(self) -> None:
        """Let the model be as it was."""

    def described(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"cached": False, "reason": self.reason}


class Features(Nothing):
    """A model whose backbone's outputs are known. What is not asked within `train` or `validation` is computed as ever."""

    cached = True

    def __init__(self, context: TrainingContext, model: Module, backbone: Backbone, callbacks: Callbacks) -> None:
        super().__init__("the backbone does not learn")
        self.context, self.model, self.backbone, self.callbacks = context, model, backbone, callbacks
        self.folder = context.folder / "features"
        self.encoded = {"train": context.train, "validation": context.validation}
        self.splits = {name: Split(self.folder, name, len(found.examples)) for name, found in self.encoded.items()}
        self.like: Any = None
        self.fields: list[Field] = []
        self.used: list[Field] = []

    def train(self, items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
        return self.of("train", items, batch)

    def validation(self, items: Sequence[int], batch: Batch) -> AbstractContextManager[None]:
        return self.of("validation", items, batch)

    @contextmanager
    def of(self, split: str, items: Sequence[int], batch: Batch) -> Iterator[None]:
        """These examples of a split are computed next, as this batch."""
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

    def release(self) -> None:
        self.backbone.release()
        for split in self.splits.values():
            split.flat = {}

    def described(self) -> dict[str, Any]:
        return {"cached": True, "reason": self.reason, "bytes": self.bytes(), "dropout": "the backbone's is off"}

    def bytes(self) -> int:
        """What is kept on disk."""
        return sum(split.path(field.name).stat().st_size for split in self.splits.values() for field in self.used)

    def make(self) -> None:
        """Try a few examples, compute all or find them computed, and see that the head answers as it did. May raise Refused."""
        items = frozen_backbone.tried(self.context)
        frozen_backbone.refuse_drawn(self.context, items)
        shortest = items[int(self.context.train.sizes[items].argmin())]
        tries = [(some, self.batch(self.context.train, some)) for some in (items, [shortest])]  # with padding and without
        with inference.evaluating(self.model):
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
                with self.train(some, batch):
                    if not inference.gap(expected, attempt(self.outcome, batch)) < CLOSE:
                        raise Refused("on kept outputs the head does not answer as on the real ones")

    def batch(self, encoded: EncodedDataset, items: Sequence[int]) -> Batch:
        """Examples of a split, as evaluation has them."""
        return inference.batch_for(self.model, self.context.task, [encoded.examples[item] for item in items], self.context.base)

    def outcome(self, batch: Batch) -> list[Any]:
        """The loss of a batch, and its answers."""
        task = self.context.task
        outputs = task.forward(self.model, batch)
        return [[float(term.total) for term in inference.as_terms(task.loss(outputs, batch))], task.postprocess(outputs, batch, self.context.base)]

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
        for items in inference.batches_of(self.model, encoded.sizes, self.context.compute.uniform):
            batch = self.batch(encoded, items)
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
                of_rows({name: encoded.examples for name, encoded in self.encoded.items()})]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()

    def refuse_full_disk(self, items: Sequence[int]) -> None:
        """Refuse where the features would take much of the disk; how many tokens examples have is told from a few."""
        batch, sizes = self.batch(self.context.train, items), self.context.train.sizes
        share = sum(lengths_of(batch, True)) / max(1, int(sizes[list(items)].sum())) if width_of(batch) else 0.0
        count = sum(len(encoded.examples) for encoded in self.encoded.values())
        tokens = share * sum(int(encoded.sizes.sum()) for encoded in self.encoded.values())
        needed = sum((tokens if field.long else count) * float(np.prod(field.shape)) * field.dtype.itemsize for field in self.used)
        free = shutil.disk_usage(self.context.folder).free
        if needed > SHARE * free:
            raise Refused(f"its outputs would take {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left")


def find(context: TrainingContext, model: Module, learned: frozenset[str], processes: int, callbacks: Callbacks, began: bool | None = None) -> Nothing:
    """Features where no weight of the backbone ever learns and nothing speaks against them; else nothing, and why.

    began: of a run that goes on, whether it had them before.
    """
    prefix = getattr(model, "base_model_prefix", "")
    part = getattr(model, prefix, None) if prefix else None
    reason = frozen_backbone.against(context, model, part, learned, processes)
    if reason is not None or began is False:
        return Nothing(reason or "the run began without")
    model.to(context.compute.device)
    found = Features(context, model, Backbone(part), callbacks)  # type: ignore[arg-type]
    try:
        found.make()
    except Refused as refused:
        found.release()
        shutil.rmtree(found.folder, ignore_errors=True)
        callbacks.on_info(f"every step runs the whole model: {refused}")
        return Nothing(str(refused))
    except BaseException:
        found.release()
        raise
    callbacks.on_info(f"the backbone does not learn: its outputs are computed once, {found.bytes() / 1e6:.0f} MB, without its dropout")
    return found
