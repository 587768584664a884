"""What every task is shown on: its data, a model, and the settings of its training. A table, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MINILM, MOBILENET, STORIES = "MiniLM-L6", "mobilenet_v2_0.35_224", "stories260K"
"""Pretrained models; any other model is made with random weights, by its type."""


@dataclass(frozen=True)
class Figure:
    """A training, with the scores before and after it.

    model: a pretrained one, or the type of a made one, whose configuration has the changes `made`. sets: recipe keys. heart: learn so
    many rows by heart, and be asked these. answers: the model can be asked before its training as it is; otherwise the untrained
    model is one whose head was not trained, or an answer without one: guess, the column whose commonest value is always said. shown: the scores of the page.
    """

    task: str
    data: str
    model: str
    shown: tuple[str, ...]
    sets: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    heart: int = 0
    answers: bool = False
    guess: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """What the figure is called: task and data, and whether these are all rows."""
        return f"{self.task}: {self.data}" + (f", {self.heart} rows" if self.heart else "")


HEART = {"train.keep": "last", "train.early_stopping_patience": 0, "train.schedule": "cosine"}
"""Who learns by heart goes on to the end."""
SEES = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_detection_tokens": 30, "patch_size": 32}
SEGMENTS = {"hidden_sizes": [16, 32, 64, 64], "decoder_hidden_size": 64}
HEARS = {"hidden_size": 64, "intermediate_size": 128}

FIGURES = (
    Figure("fill-mask", "banking77", "distilbert", ("loss", "perplexity"), {"train.epochs": 3, "train.learning_rate": 2e-3}, answers=True),
    Figure("text-generation", "self_instruct_seed", STORIES, ("perplexity", "token_accuracy"), {"train.epochs": 8, "train.learning_rate": 2e-3}, answers=True),
    Figure("text-generation", "gsm8k_preference", STORIES, ("perplexity", "token_accuracy"), {"train.epochs": 3, "train.learning_rate": 2e-3},
           answers=True, note="the prompts and the chosen answers"),
    Figure("preference", "gsm8k_preference", STORIES, ("accuracy",), {"train.epochs": 3, "train.learning_rate": 1e-3}, answers=True),
    Figure("reward-model", "gsm8k_preference", STORIES, ("accuracy", "margin"), {"train.epochs": 4, "train.learning_rate": 1e-3}),
    Figure("text2text-generation", "tatoeba_en_zh", "t5", ("chrf", "bleu"),
           {**HEART, "train.max_steps": 400, "train.batch_size": 16, "train.learning_rate": 5e-3}, heart=16, answers=True),
    Figure("text2text-generation", "scitldr", "t5", ("rouge1", "rouge2", "rougeL", "chrf"),
           {**HEART, "train.max_steps": 800, "train.batch_size": 16, "train.learning_rate": 5e-3}, heart=16, answers=True),
    Figure("image-classification", "digits_png", MOBILENET, ("accuracy", "f1_macro"), {"train.epochs": 8}, guess="label"),
    Figure("object-detection", "bccd_detection", "yolos", ("map", "map_50"),
           {**HEART, "train.max_steps": 1000, "train.batch_size": 16, "train.learning_rate": 3e-3}, SEES, heart=16),
    Figure("image-segmentation", "nuclei_segmentation", "segformer", ("mean_iou", "pixel_accuracy"),
           {**HEART, "train.max_steps": 500, "train.batch_size": 16, "train.learning_rate": 5e-3}, SEGMENTS, heart=16),
    Figure("audio-classification", "spoken_digits", "wav2vec2-bert", ("accuracy", "f1_macro"), {"train.epochs": 10, "train.learning_rate": 2e-3},
           HEARS, guess="label"),
    Figure("automatic-speech-recognition", "spoken_digits", "wav2vec2-bert", ("wer", "cer"), {"train.epochs": 30, "train.learning_rate": 3e-3}, HEARS),
    Figure("automatic-speech-recognition", "spoken_digits", "wav2vec2-bert", ("wer", "cer"),
           {**HEART, "train.max_steps": 150, "train.batch_size": 16, "train.learning_rate": 3e-3}, HEARS, heart=16),
    Figure("automatic-speech-recognition", "ljspeech_mini", "wav2vec2-bert", ("wer", "cer"),
           {**HEART, "train.max_steps": 200, "train.batch_size": 8, "train.learning_rate": 3e-3}, HEARS, heart=8, note="all rows that there are"),
    Figure("sentence-similarity", "sts2016", MINILM, ("spearman", "pearson"), {"train.epochs": 3}, answers=True),
    Figure("sentence-similarity", "banking77", MINILM, ("recall@1", "recall@5", "ndcg@10"), {"train.epochs": 1}, answers=True),
    Figure("reranking", "banking77", MINILM, ("ndcg@10", "mrr@10", "map"),
           {"data.query": "text", "data.positive": "label", "task.hard_negatives": MINILM, "train.max_steps": 250, "train.batch_size": 16},
           note="questions and the names of their intents, each among the seven nearest others"),
    Figure("reranking", "sts2016", MINILM, ("spearman",), {"train.epochs": 4}),
    Figure("multiple-choice", "codah", MINILM, ("accuracy",), {"train.epochs": 2, "train.learning_rate": 1e-4}, guess="label"),
    Figure("token-classification", "wnut17", MINILM, ("f1", "precision", "recall"), {"train.epochs": 2, "train.learning_rate": 1e-4}),
    Figure("question-answering", "xquad_en", MINILM, ("exact_match", "f1"), {"train.epochs": 3, "train.learning_rate": 2e-4}),
)
