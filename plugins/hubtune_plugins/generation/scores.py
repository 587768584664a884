"""Similarity of a text to its references, by the field's own implementations."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

ROUGE = ("rouge1", "rouge2", "rougeL")


def text_scores(found: Any, wanted: Any, script: Any = "auto") -> Any:
    """chrF and BLEU of sacrebleu (0 to 100), ROUGE F1 of torchmetrics (0 to 1), of texts against one reference each.

    script: how words are told apart: `13a`, `zh` or `char`; auto: by the references.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    script = script_of(wanted) if script == "auto" else script
    scores = {"chrf": CHRF().corpus_score(found, [wanted]).score,
              "bleu": BLEU(tokenize=script).corpus_score(found, [wanted]).score}
    rows = [rouge(one, other, script != "13a") for one, other in zip(found, wanted, strict=True)]
    return scores | {name: sum(values) / len(rows) for name, values in zip(ROUGE, zip(*rows, strict=True), strict=True)}


def script_of(texts: Any) -> str:
    """zh where most texts are Chinese, char where they are in another script without blanks, else 13a."""
    def share(letters: Any) -> Any:
        return sum(bool(re.search(letters, text)) for text in texts) / len(texts)

    if share(r"[\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]") > 0.5:  # kana, Thai, Lao, Burmese, Khmer
        return "char"
    return "zh" if share(r"[\u4e00-\u9fff]") > 0.5 else "13a"


@lru_cache(maxsize=100_000)
def rouge(found: Any, wanted: Any, letters: Any) -> tuple[Any, ...]:
    """ROUGE-1, -2 and -L of a pair by words of any alphabet or by letters, no stemmer. Kept: scores are resampled."""
    from torchmetrics.functional.text.rouge import rouge_score

    scores = rouge_score(found, wanted, rouge_keys=ROUGE, normalizer=lambda text: re.sub(r"[\W_]+", " ", text.lower()),
                         tokenizer=(lambda text: list(text.replace(" ", ""))) if letters else None)
    return tuple(float(scores[f"{name}_fmeasure"]) for name in ROUGE)
