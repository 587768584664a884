"""The languages of models that know many, and what their decoders begin with."""

from __future__ import annotations

from typing import Any

from hubtune import Base, ModelError


def languages_of(base: Base, source: Any, target: Any) -> Any:
    """Attributes that tell a tokenizer the languages of texts and targets, as it calls them; an empty string says none."""
    processor, found = base.processor, {}
    for name, language in (("src_lang", source), ("tgt_lang", target)):
        if language:
            if not hasattr(processor, name) or language_id(processor, language) in (None, processor.unk_token_id):
                raise ModelError(f"its tokenizer knows no language {language!r}.", where=base.repo,
                                 hint="Leave task.source_lang and task.target_lang out, or name one of its own.")
            found[name] = language
    return found


def language_id(processor: Any, name: str) -> Any:
    """The id of a language's token."""
    own = getattr(processor, "get_lang_id", None)
    return own(name) if own else processor.convert_tokens_to_ids(name)


def start_token(base: Base, target: Any) -> Any:
    """Return what the decoder begins with: as its configuration says, else the target's language, else the first mark."""
    if target and not forced_token(base, target):
        return language_id(base.processor, target)
    text = base.config.get_text_config(decoder=True)
    known = (getattr(base.config, "decoder_start_token_id", None), getattr(text, "decoder_start_token_id", None),
             base.processor.bos_token_id, base.processor.pad_token_id, base.processor.eos_token_id)
    return next(token for token in known if token is not None)


def forced_token(base: Base, target: Any) -> dict[str, Any]:
    """Return what the first written token must be, for generate: the language, where targets begin with it."""
    if not target:
        return {}
    language = language_id(base.processor, target)
    return {"forced_bos_token_id": language} if base.processor(text_target="a").input_ids[0] == language else {}
