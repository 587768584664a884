"""Transcriptions as characters, and the tokenizers that write them for a model trained with CTC."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from hubtune import Base, Column, ModelError

TEXT = Column("text", ("transcription", "text", "sentence", "transcript", "normalized_text"), needed="train")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "|")
"""The first ids of a vocabulary that is made here: the pad is CTC's blank, the bar stands between words."""
CASES: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "upper": str.upper}


def spoken(text: str, punctuation: Any = "auto") -> str:
    """A transcription in one unicode form, with single spaces and without what no voice says, but for apostrophes."""
    text = unicodedata.normalize("NFKC", str(text)).replace("\u2019", "'").replace("|", " ")
    if punctuation != "keep":
        text = "".join(" " if unicodedata.category(c).startswith("P") and c != "'" else c for c in text)
    return " ".join(text.split())


def in_case(text: str, case: Any) -> Any:
    """A text in one of `CASES`."""
    return CASES[case](text)


def ids_of(tokenizer: Any, text: str) -> Any:
    """The ids of a text's characters, and nothing before or behind them."""
    return tokenizer(text, add_special_tokens=False).input_ids


def found_tokenizer(base: Base) -> Any:
    """The tokenizer that the model came with, or None."""
    from transformers import AutoTokenizer

    if hasattr(base.processor, "tokenizer"):
        return base.processor.tokenizer
    try:  # the base holds a feature extractor only: tokenizers stand beside its configuration
        return AutoTokenizer.from_pretrained(base.config._name_or_path, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, ImportError):
        return None


def case_of(tokenizer: Any, characters: Any, casing: Any) -> Any:
    """The casing under which a tokenizer writes all characters and reads them back; None where it cannot."""
    if tokenizer is None or tokenizer.pad_token_id is None:
        return None
    for name in CASES if casing == "auto" else (casing,):
        wanted = set(CASES[name]("".join(characters))) - {" "}
        if all(tokenizer.decode(ids_of(tokenizer, c)) == c for c in wanted):
            return name
    return None


def made_tokenizer(characters: Any, case: Any) -> Any:
    """A tokenizer with one id per character."""
    import tempfile
    from pathlib import Path

    from transformers import Wav2Vec2CTCTokenizer

    letters = sorted(set(CASES[case]("".join(characters))) - {" "})
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "vocab.json"
        path.write_text(json.dumps({token: index for index, token in enumerate([*SPECIAL, *letters])}))
        return Wav2Vec2CTCTokenizer(str(path))


def processor_of(base: Base, tokenizer: Any) -> Any:
    """The processor of the model's type, around its feature extractor and a tokenizer."""
    from transformers import Wav2Vec2Processor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if getattr(base.processor, "tokenizer", None) is tokenizer:
        return base.processor
    extractor = getattr(base.processor, "feature_extractor", base.processor)
    return PROCESSOR_MAPPING.get(type(base.config), Wav2Vec2Processor)(feature_extractor=extractor, tokenizer=tokenizer)


def settled(base: Base, dataset_info: Mapping[str, Any], casing: Any) -> tuple[Any, Any, Any]:
    """Tokenizer, casing and the size of the head. The tokenizer is the model's own where that can write the characters found."""
    own, characters = found_tokenizer(base), dataset_info.get("characters")
    if characters is None:
        if own is None:
            raise ModelError("it has no tokenizer, so that it cannot write what it hears.", where=base.repo)
        return own, case_of(own, "a", casing) or "keep", head_size(own, base.config)
    case = case_of(own, characters, casing)
    if case:
        return own, case, head_size(own, base.config)
    case = "lower" if casing == "auto" else casing
    made = made_tokenizer(characters, case)
    return made, case, letters(made)


def head_size(tokenizer: Any, config: Any) -> Any:
    """Return how many characters a head has room for that was trained for this tokenizer; added tokens may be left out of it."""
    return config.vocab_size if config.vocab_size >= tokenizer.vocab_size else letters(tokenizer)


def letters(tokenizer: Any) -> Any:
    """Return how many characters a head needs to write all that a tokenizer reads."""
    return max(tokenizer.get_vocab().values()) + 1


def error_rates(gold: Any, found: Any) -> dict[str, Any]:
    """Word and character error rates of texts, by jiwer: edits in relation to what is right, over all texts together."""
    import jiwer

    return {"wer": float(jiwer.wer(gold, found)), "cer": float(jiwer.cer(gold, found))}
