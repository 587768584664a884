"""Fill-mask: words that are hidden in a text; also how an encoder is made familiar with the texts of a field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubtune import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Metric,
    ModelSetup,
    Prediction,
    Row,
    Rows,
    Task,
    UserCall,
    hookimpl,
    option,
)
from hubtune_plugins.text import masking, usages
from hubtune_plugins.text.tokens.pieces import PieceTask, piece_batch, piece_targets
from hubtune_plugins.text.tokens.windows import framed_windows
from hubtune_plugins.tokenization.texts import pad


@dataclass(frozen=True)
class MaskOptions:
    probability: float = option(0.15, "the share of a text's pieces that are to be found")


class FillMask(PieceTask):
    """The pieces of a text that are hidden, from all others (Devlin et al., BERT, arXiv:1810.04805).

    Of the chosen pieces 80% are masked, 10% replaced by a random piece and 10% left. In training they are drawn anew in
    every epoch; in evaluation from the text itself, so that two models are asked the same. Training on the texts of a
    field adapts a model to it before another task (Gururangan et al., arXiv:2004.10964).
    """

    name = "fill-mask"
    summary = "the words that are hidden in a text; adapts a model to a field's texts"
    model = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    fixture = "hubtune_plugins.text.fixtures:MaskedTexts"
    metric = Metric("loss", higher_is_better=False)
    Options = MaskOptions
    columns = (Column("text", ("text", "sentence", "content", "review", "body", "document", "abstract", "message",
                               "comment", "tweet", "passage", "title", "sentence1", "question")),)

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        masking.refuse_unfit(base, self.options.probability)
        return super().model_config(dataset_info, base)

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        mask = base.processor.mask_token_id
        for windows in framed_windows(base, [row["text"] for row in rows]):
            asked = any(mask in ids for ids in windows)  # by the user, who wants the masks filled
            yield [{"input_ids": ids, "asked": asked} for ids in windows]

    def collate(
        self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None
    ) -> Batch:
        """targets (examples, longest): the piece to be found, -100 elsewhere."""
        drawn = [None] * len(examples) if rngs is None else [draw.random() for draw in rngs]
        made = [masking.hidden(example, base, self.options.probability, draw)
                for example, draw in zip(examples, drawn, strict=True)]
        inputs = pad(base, [{"input_ids": shown} for shown, _ in made])
        return piece_batch(inputs, piece_targets(inputs, [targets for _, targets in made]), len(examples))

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        rows = zip(self.logits(outputs, batch), batch.inputs["input_ids"], batch.targets, strict=True)
        return [masking.found(*row, base.processor) for row in rows]

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        return masking.joined(parts, row["text"], str(base.processor.mask_token))

    def show(self, prediction: Prediction) -> Prediction:
        """The fills; for a text without masks, how well its pieces were found."""
        if "fills" in prediction:
            return {"fills": prediction["fills"], "text": prediction["text"]}
        return masking.totals([prediction]) if prediction["tokens"] else {}

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        return masking.totals(predictions)

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        return UserCall("processor", {"text": row["text"]}, {"truncation": True})

    def usage(self, repo: str, base: Base) -> Any:
        return usages.piped(self.pipeline_tag, repo, f"What a {base.processor.mask_token} day")


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [FillMask]
