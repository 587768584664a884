"""Connectionist temporal classification, CTC (Graves et al., ICML 2006): a text is learnt without knowing where in the
sound its letters are. At every step a model says a character or the blank; equal ones that follow each other are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import DataError, Example, exact, row_numbers
from hubtune_plugins.audio.sounds import output_lengths

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass
class Heard:
    """Outputs of a model for sounds. logits: (sounds, steps, characters); lengths: (sounds,), the steps that are no padding."""

    logits: Any
    lengths: Any


def heard(model: Module, logits: Tensor, mask: Any) -> Any:
    """A model's output with its lengths. mask: that of the inputs, or None where all sounds are equally long."""
    import torch

    lengths = output_lengths(model, mask, logits.shape[1])
    whole = torch.full((len(logits),), logits.shape[1], device=logits.device)
    return Heard(logits, whole if lengths is None else lengths)


HINT = "Does each text belong to its sound? Correct these rows or take them out."


def refuse_empty(texts: Sequence[str]) -> None:
    """Refuse rows of train whose text has no letter."""
    empty = [row for row, text in enumerate(texts) if not text]
    if empty:
        raise DataError(f"{len(empty)} of {len(texts)} rows have a transcription without a letter: {row_numbers(empty)} of train.",
                        hint=HINT)


def crowded_rows(texts: Sequence[str], frames: Sequence[int]) -> str:
    """Name the rows of train with more letters than frames, which CTC cannot learn; an empty text where there are none."""
    long = [row for row, text in enumerate(texts) if len(text) > frames[row]]
    return f"{len(long)} of {len(texts)} rows have more letters than frames of sound (20 ms): {row_numbers(long)} of train" if long else ""


def refuse_crowded(rows: str | None) -> None:
    """Refuse what `crowded_rows` has found."""
    if rows:
        raise DataError(f"{rows}. CTC cannot learn them.", hint=HINT)


def targets_of(examples: Sequence[Example]) -> dict[str, Any] | None:
    """The `ids` of texts, (examples, characters) and padded, and their `lengths`; None where an example has no text."""
    import torch

    if not all("ids" in example for example in examples):
        return None
    ids = [torch.tensor(example["ids"], dtype=torch.long) for example in examples]
    return {"ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            "lengths": torch.tensor([len(each) for each in ids])}


def ctc_losses(outputs: Any, targets: Any, blank: Any) -> Any:
    """The loss of each text in nats, (sounds,): infinite ones, of texts that do not fit into their sound, are 0."""
    from torch.nn import functional as F

    return F.ctc_loss(exact(outputs.logits).log_softmax(-1).transpose(0, 1), targets["ids"], outputs.lengths,
                      targets["lengths"], blank=blank, reduction="none", zero_infinity=True)


def likeliest(outputs: Any) -> list[Any]:
    """The ids of the best character at every step, by sound, repeated ones and blanks included: tokenizers merge these."""
    best = outputs.logits.argmax(-1).tolist()
    return [ids[:length] for ids, length in zip(best, outputs.lengths.tolist(), strict=True)]
