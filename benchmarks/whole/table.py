"""The rows of the table: task, data, base model, and the peers that are measured beside hubtune."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A row of the table.

    data: a function of `data`. base: a function of `bases`. script: the module in `peers`.
    rows: to learn from. lr: of both. strategy: hubtune's. peers: name and further arguments of the
    script. sets: further recipe keys. packed: tokens of a packed row are about those of a batch.
    """

    name: str
    task: str
    data: str
    base: str
    script: str
    rows: int
    epochs: int = 2
    batch_size: int = 16
    lr: float = 1e-4
    max_length: int = 128
    strategy: str = "full"
    peers: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"Trainer": ()})
    sets: dict[str, object] = field(default_factory=dict)


TRL = {"TRL": (), "TRL, packing": ("--packing", "1344")}
LORA = {name: (*words, "--lora") for name, words in TRL.items()}
CAUSAL = {"batch_size": 8, "max_length": 512, "epochs": 1}

ROWS = (
    Row("sentiment_uci", "text-classification", "sentiment_uci", "minilm", "text_classification", 1440, epochs=3),
    Row("banking77", "text-classification", "banking77", "minilm", "text_classification", 1440, epochs=3),
    Row("gsm8k", "text-classification", "gsm8k", "minilm", "text_classification", 720, max_length=512),
    Row("wnut17", "token-classification", "wnut17", "minilm", "token_classification", 1080),
    Row("causal-full", "text-generation", "prompts", "llama", "language_model", 240, peers=TRL, **CAUSAL),
    Row("causal-lora", "text-generation", "prompts", "llama", "language_model", 240, peers=LORA,
        lr=1e-3, strategy="lora", **CAUSAL),
    Row("sts2016", "sentence-similarity", "sts2016", "minilm", "similarity", 477,
        peers={"sentence-transformers": ()}),
    Row("digits", "image-classification", "digits", "vit", "image_classification", 270),
    Row("speech", "automatic-speech-recognition", "speech", "wav2vec2", "speech", 320),
    Row("translation", "text2text-generation", "translation", "bart", "text2text", 1440, epochs=1),
    Row("xquad", "question-answering", "xquad", "minilm", "question_answering", 400, epochs=1, max_length=384),
    Row("preference", "preference", "preference", "llama", "preference", 120, peers={"TRL DPO": ()}, **CAUSAL),
)
BY_NAME = {row.name: row for row in ROWS}
