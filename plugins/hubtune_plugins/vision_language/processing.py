"""Conversations with images as a model's own processor makes them: token ids with the places of the images, and pixels.

Token ids are made by the processor, once to know the labels and once for the batch; images are read again for each batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hubtune import Base, DataError, Example, ModelError
from hubtune_plugins.generation import chat
from hubtune_plugins.generation.turns.messages import Message, shared
from hubtune_plugins.vision.images import load_rgb
from hubtune_plugins.writing.likelihood import IGNORED

FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)
"""Errors of processors for images or texts that they do not take."""


def text_base(base: Base) -> Base:
    """Return a base whose processor is the tokenizer alone, with the chat template of the whole processor."""
    tokenizer = copy.copy(base.processor.tokenizer)
    tokenizer.chat_template = getattr(base.processor, "chat_template", None) or tokenizer.chat_template
    return replace(base, processor=tokenizer, max_length=None)


def opened(base: Base) -> Any:
    """Return the processor with a pad token; refuse one that reads no images, or writes no chats.

    Raises:
        ModelError: it has no image processor, no tokenizer or no chat template.
    """
    processor = base.processor
    for part, what in (("image_processor", "image processor"), ("tokenizer", "tokenizer")):
        if getattr(processor, part, None) is None:
            raise ModelError(f"its processor has no {what}, so that it does not read images and texts together.", where=base.repo,
                             hint="Take a vision-language model, such as an Idefics3, LLaVA or Gemma 3; for texts alone: "
                             "hubtune train text-generation")
    words = text_base(base)
    if not words.processor.chat_template:
        raise ModelError("it has no chat template, which says how a question about an image is asked.", where=base.repo,
                         hint="Take the model that was tuned for chats, often with -Instruct or -it in its name.")
    setup = chat.missing(words.processor)
    if setup:
        processor = copy.deepcopy(processor)
        for name, value in setup.items():
            setattr(processor.tokenizer, name, value)
    return processor


def framed(base: Base, text: str) -> str:
    """Return a rendered text with the token that begins every text, where the tokenizer would add it and the template does not.

    The processor adds it likewise when it is asked by its chat template (transformers' `apply_chat_template`).
    """
    tokenizer = base.processor.tokenizer
    begins = tokenizer.bos_token
    if not begins or text.startswith(begins) or tokenizer("a").input_ids[0] != tokenizer.bos_token_id:
        return text
    return f"{begins}{text}"


def processed(base: Base, texts: Sequence[str], images: Sequence[Any], **options: Any) -> dict[str, Any]:
    """Return what the processor makes of texts and the images of each, as tensors.

    Rows without an image are processed apart, since not every processor takes both in one call, and `merged` with the others.
    """
    def call(rows: list[int]) -> dict[str, Any]:
        seen = [images[row] for row in rows]
        given = {"images": seen} if seen[0] else {}
        return dict(base.processor(text=[texts[row] for row in rows], add_special_tokens=False, return_tensors="pt",
                                   **given, **options))

    groups = [rows for rows in ([row for row, found in enumerate(images) if bool(found) is has] for has in (True, False)) if rows]
    return call(groups[0]) if len(groups) == 1 else merged(base, [(rows, call(rows)) for rows in groups], len(texts))


def merged(base: Base, groups: Sequence[tuple[list[int], dict[str, Any]]], count: int) -> dict[str, Any]:
    """Join two groups of rows: what there is for every token is padded on the right, (rows, longest); pixels stay as they are."""
    import torch

    longest = max(found["input_ids"].shape[1] for _, found in groups)
    joined: dict[str, Any] = {}
    for rows, found in groups:
        shape = found["input_ids"].shape
        for name, value in found.items():
            if value.shape != shape:
                joined[name] = value
                continue
            fill = base.processor.tokenizer.pad_token_id or 0 if name == "input_ids" else 0
            whole = joined.setdefault(name, torch.full((count, longest), fill, dtype=value.dtype))
            whole[rows, : shape[1]] = value
    return joined


def encoded(base: Base, said: list[Message], images: list[Any], row: int) -> Example:
    """Return a conversation as an example: the `text` before its last answer, its `images`, the ids of the `answer`, the `labels` of
    both, and how many `tokens` they are. Without an answer, the last two are missing.

    The answer's ids are made apart, as `generate` writes them after the text. row: from 0, for errors.

    Raises:
        DataError: an image cannot be read, or the row is longer than the model reads.
    """
    words = text_base(base)
    plain, pieces = chat.encoded(words, said), chat.pieces(words, said)
    start = plain.get("start", len(plain["input_ids"]))
    text = framed(base, "".join(piece for piece, _ in (pieces[:-1] if "labels" in plain else pieces)))
    pictures = [load_rgb(image, row) for image in images]
    try:
        ids = processed(base, [text], [pictures])["input_ids"][0].tolist()
    except FAULTS as error:
        raise DataError(f"the model's processor does not take it: {' '.join(str(error).split())[:200]}", where=f"row {row + 1}",
                        hint="Look at the row's images and at the words that stand for them in its texts.") from error
    answer = list(plain["input_ids"][start:])
    size = len(ids) + len(answer)
    if base.max_length is not None and size > base.max_length:
        raise DataError(f"it has {size:,} tokens with its {len(images)} image{'s' * (len(images) != 1)}, and {base.max_length:,} "
                        "are read at most.", where=f"row {row + 1}",
                        hint="Make its images smaller or fewer, or its texts shorter; or take the row out.")
    example: Example = {"text": text, "images": images, "row": row, "tokens": size}
    if "labels" not in plain:
        return example
    # An image's place is longer than its word in the text; earlier answers after the last image keep their labels.
    tail = shared(ids[::-1], plain["input_ids"][:start][::-1])
    labels = [IGNORED] * (len(ids) - tail) + list(plain["labels"][start - tail:])
    return {**example, "answer": answer, "labels": labels}


def collated(base: Base, examples: Sequence[Example]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return examples as the model's inputs, padded on the right, and as targets where all have an answer."""
    import torch

    images = [[load_rgb(image, example["row"]) for image in example["images"]] for example in examples]
    inputs = processed(base, [example["text"] for example in examples], images, padding=True, padding_side="right")
    if not all("labels" in example for example in examples):
        return inputs, None
    lengths = [len(example["labels"]) for example in examples]
    starts = [length - len(example["answer"]) for length, example in zip(lengths, examples, strict=True)]
    whole = {name: value for name, value in inputs.items() if value.shape != inputs["input_ids"].shape}
    for name in inputs.keys() - whole.keys():
        fill = base.processor.tokenizer.pad_token_id or 0 if name == "input_ids" else 0
        whole[name] = torch.full((len(examples), max(lengths)), fill, dtype=inputs[name].dtype)
        for row, (example, start) in enumerate(zip(examples, starts, strict=True)):
            whole[name][row, :start] = inputs[name][row, :start]
            added = {"input_ids": example["answer"], "attention_mask": [1] * len(example["answer"])}.get(name)
            if added is not None:
                whole[name][row, start : start + len(added)] = torch.tensor(added)
    labels = [[*example["labels"], *[IGNORED] * (max(lengths) - len(example["labels"]))] for example in examples]
    return {name: whole[name] for name in inputs}, {"labels": torch.tensor(labels), "starts": torch.tensor(starts)}


def questions(base: Base, inputs: dict[str, Any], lengths: Sequence[int]) -> dict[str, Any]:
    """Return inputs cut to their questions, padded on the left as `generate` takes them. lengths: tokens of each question."""
    import torch

    shape, longest = inputs["input_ids"].shape, max(lengths)
    found = dict(inputs)
    for name, value in inputs.items():
        if value.shape != shape:
            continue
        fill = base.processor.tokenizer.pad_token_id or 0 if name == "input_ids" else 0
        found[name] = torch.full((shape[0], longest), fill, dtype=value.dtype, device=value.device)
        for row, length in enumerate(lengths):
            found[name][row, longest - length:] = value[row, :length]
    return found
