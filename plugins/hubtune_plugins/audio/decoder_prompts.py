"""Tokens that a speech model's decoder reads before the text: its start, and Whisper's language and task.

Whisper (Radford et al., arXiv:2212.04356) begins with `<|startoftranscript|><|de|><|transcribe|><|notimestamps|>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubtune import Base, ModelError

ENGLISH_ONLY = 51864
"""Size of the vocabulary of OpenAI's English-only Whisper models; the multilingual ones have more entries."""


@dataclass(frozen=True)
class DecoderPrompt:
    """Tokens before the text, and the attributes of a generation configuration that make `generate` begin with them."""

    ids: list[int]
    generation: Mapping[str, Any] = field(default_factory=dict)
    space: str = ""
    """What stands before a text: Whisper was trained on texts that begin with a space."""


def read_generation(base: Base) -> Any:
    """Return the generation configuration beside a model, or one made from its configuration."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(base.config.name_or_path, local_files_only=True)
    except (OSError, ValueError):
        return GenerationConfig.from_model_config(base.config)


def decoder_prompt(base: Base, tokenizer: Any, language: Any, task: Any, training: bool) -> DecoderPrompt:
    """Return what a model's decoder begins with.

    Args:
        language: as the model calls it, such as `de` or `german`; empty: that of the generation configuration.
        task: `transcribe`, `translate`, or `auto`: that of the generation configuration, else transcribe.
        training: texts are learnt, so that a multilingual model has to know their language.

    Raises:
        ModelError: the model takes no language or task, knows no such language, or needs to be told one.
    """
    generation = read_generation(base)
    start = first_of(base, generation, tokenizer)
    if base.config.model_type == "whisper":
        return whisper_prompt(base, tokenizer, generation, start, language, task, training)
    codes = getattr(tokenizer, "lang_code_to_id", None) or {}
    if task != "auto" or (language and language not in codes):
        raise ModelError("its decoder takes no task." if task != "auto" else unknown(language, codes), where=base.repo,
                         hint="Leave task.task and task.language out" + (", or name one of its languages." if codes else "."))
    forced = codes[language] if language else getattr(generation, "forced_bos_token_id", None)
    settings = {"decoder_start_token_id": start, **({"forced_bos_token_id": forced} if forced is not None else {})}
    return DecoderPrompt([start, *([forced] if forced is not None else [])], settings)


def first_of(base: Base, generation: Any, tokenizer: Any) -> int:
    """Return the token that a decoder begins with."""
    known = (getattr(generation, "decoder_start_token_id", None), getattr(base.config, "decoder_start_token_id", None),
             tokenizer.bos_token_id, tokenizer.eos_token_id)
    return int(next(token for token in known if token is not None))


def whisper_prompt(base: Base, tokenizer: Any, generation: Any, start: int, language: Any, task: Any,
                   training: bool) -> DecoderPrompt:
    """Return Whisper's prompt, which ends with `<|notimestamps|>`."""
    words = tokenizer.get_vocab()
    silent = getattr(generation, "no_timestamps_token_id", None) or words.get("<|notimestamps|>")
    settings: dict[str, Any] = {"decoder_start_token_id": start, "forced_decoder_ids": None, "return_timestamps": False}
    if silent is not None:
        settings["no_timestamps_token_id"] = silent
    after = [silent] if silent is not None else []
    if not is_multilingual(base, generation, words):
        if language or task != "auto":
            raise ModelError("it knows English alone, and takes neither a language nor a task.", where=base.repo,
                             hint="Leave task.language and task.task out, or take a multilingual Whisper.")
        return DecoderPrompt([start, *after], {**settings, "is_multilingual": False}, " ")
    ids, tasks = language_ids(words), {name: words[f"<|{name}|>"] for name in ("transcribe", "translate")}
    chosen = code_of(language or getattr(generation, "language", None), ids, base)
    task = (getattr(generation, "task", None) or "transcribe") if task == "auto" else task
    settings |= {"is_multilingual": True, "lang_to_id": ids, "task_to_id": tasks, "task": task}
    if chosen is None:
        if training:
            raise ModelError("it is multilingual, and has to know the language of the texts.", where=base.repo,
                             hint="Say it by its code, such as: --set task.language=en")
        return DecoderPrompt([start, *after], settings, " ")  # the language is found out while it writes
    return DecoderPrompt([start, ids[f"<|{chosen}|>"], tasks[task], *after], {**settings, "language": chosen}, " ")


def is_multilingual(base: Base, generation: Any, words: Mapping[str, int]) -> bool:
    """Tell whether a Whisper model takes a language and a task; the tokens are in every vocabulary of OpenAI's."""
    said = getattr(generation, "is_multilingual", None)
    if said is not None:
        return bool(said)
    return base.config.vocab_size != ENGLISH_ONLY and {"<|transcribe|>", "<|translate|>"} <= words.keys()


def language_ids(words: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of the language tokens that a vocabulary has, such as `<|de|>`."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    codes = sorted(set(TO_LANGUAGE_CODE.values()))
    return {f"<|{code}|>": words[f"<|{code}|>"] for code in codes if f"<|{code}|>" in words}


def code_of(language: Any, ids: Mapping[str, int], base: Base) -> str | None:
    """Return the code of a language that is named by its code or its English name; None for none.

    Raises:
        ModelError: the model does not know it.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    if not language:
        return None
    name = str(language).lower().removeprefix("<|").removesuffix("|>")
    code = str(TO_LANGUAGE_CODE.get(name, name))
    if f"<|{code}|>" not in ids:
        raise ModelError(unknown(language, [token[2:-2] for token in ids]), where=base.repo,
                         hint="Name one of its languages, such as: --set task.language=en")
    return code


def unknown(language: Any, known: Any) -> str:
    """Describe a language that a model does not know."""
    return f"it knows no language {language!r}" + (f"; it knows: {', '.join(sorted(known))}." if known else ".")
