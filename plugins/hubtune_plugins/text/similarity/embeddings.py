"""Texts as vectors: how a model's states become one vector, and what others need to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hubtune import Base, Batch, ModelError, ModelSetup, Prediction, Row, UserCall, exact
from hubtune_plugins.text.similarity import layout as layouts
from hubtune_plugins.text.similarity.layout import Layout, pool
from hubtune_plugins.tokenization.texts import SeveralTexts, pad, pad_token

if TYPE_CHECKING:
    from torch import Tensor

POOLED = {  # Python from `hidden` and `mask`, each (texts, length, ...), to (texts, hidden size)
    "mean": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)",
    "cls": "hidden[torch.arange(len(hidden)), mask.argmax(1)]  # each text's first token",
    "last": "hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]  # each text's last token",
    "max": "hidden.masked_fill(mask.unsqueeze(-1) == 0, float('-inf')).max(1).values",
    "mean-sqrt": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).sqrt()",
    "weighted-mean": "(hidden * (weights := mask.cumsum(1) * mask).unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)",
}
QUERIES = ("query",)
DOCUMENTS = ("document", "passage", "corpus")
"""Names of prompts of a question, and of what answers it, the best first, as sentence-transformers looks for them."""
ENCODERS_OF = ("t5", "mt5", "umt5", "longt5")
"""Encoder-decoders of which sentence-transformers loads the encoder, as we do; of others it reads the decoder."""


class Embedding(SeveralTexts):
    """A task whose model gives each text of an example, in its `texts`, a vector. Its options have `pooling` and `prompts`.

    A model with a layout of sentence-transformers keeps it: pooling, dense layers, prompts and length.
    """

    base_files = layouts.FILES
    is_kept = False
    """Whether the model came with a layout."""
    kind: str | None = None

    @property
    def is_asymmetric(self) -> bool:
        """Whether the first text of a row asks, and the second answers."""
        return self.kind == "pairs"

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        """The model's own layout, with the pooling that was chosen; a plain one where it has none."""
        found = layouts.read(base)
        if found and base.config.is_encoder_decoder and base.config.model_type not in ENCODERS_OF:
            layouts.refuse(base, f"sentence-transformers reads the decoder of '{base.config.model_type}' models")
        chosen = self.options.pooling
        self.is_kept = found is not None
        self.layout = found or Layout((pooling_for(base.config),), (None,))
        if chosen != "auto":
            self.layout = replace(self.layout, pooling=(chosen,))
        check_widths(self.layout, base)
        length = self.layout.length
        return pad_token(base) | ModelSetup(tokenizer={"model_max_length": length} if length else {})

    def prompt(self, side: str, is_asymmetric: bool) -> str:
        """What stands before a text. side: `text` or `text_pair`. is_asymmetric: the first asks, and the second answers."""
        if self.options.prompts == "none":
            return ""
        prompts = self.layout.prompts
        names = (QUERIES if side == "text" else DOCUMENTS) if is_asymmetric else ()
        found = next((name for name in names if name in prompts), self.layout.default)
        return prompts.get(found or "", "")

    def read(self, texts: Sequence[str], side: str, is_asymmetric: bool) -> list[str]:
        """The texts as the model reads them: behind their prompt, and in lower case where it says so."""
        before = self.prompt(side, is_asymmetric)
        found = [before + text for text in texts] if before else list(texts)
        return [text.lower() for text in found] if self.layout.lower else found

    def embed(self, outputs: Any, batch: Batch) -> Tensor:
        """Unit vectors of an example's texts, (examples, texts, hidden size)."""
        import torch
        from torch.nn.functional import normalize

        hidden, mask = exact(states(outputs)), batch.inputs["attention_mask"]
        vectors = torch.cat([pool(hidden, mask, one) for one in self.layout.pooling], -1)
        for step in self.layout.steps:
            vectors = normalize(vectors, dim=-1) if step is None else step(vectors)
        units = normalize(vectors, dim=-1)
        return units.view(batch.size, -1, units.shape[-1])

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        """A text's vector; of two texts also their cosine."""
        vectors = self.embed(outputs, batch).float().cpu()
        if vectors.shape[1] == 1:
            return [{"embedding": vector} for vector in vectors[:, 0].tolist()]
        cosines = (vectors[:, 0] * vectors[:, 1]).sum(-1).tolist()
        return [{"similarity": cosine, "embedding": one, "embedding_pair": other}
                for cosine, (one, other) in zip(cosines, vectors.tolist(), strict=True)]

    def show(self, prediction: Prediction) -> Prediction:
        return {"similarity": prediction["similarity"]} if "similarity" in prediction else prediction

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        if base.config.is_encoder_decoder:  # of which the encoder alone is asked
            return None
        (text,) = self.read([row["text"]], "text", self.is_asymmetric)
        return UserCall("processor", {"text": text}, {"truncation": True})

    def usage(self, repo: str, base: Base) -> Any:
        return snippet(repo, self.layout, base.config.is_encoder_decoder, self.prompt("text", self.is_asymmetric))

    def files(self, base: Base) -> Mapping[str, str | bytes]:
        """The layout as sentence-transformers reads it; nothing for models of which it reads another part."""
        if base.config.is_encoder_decoder and base.config.model_type not in ENCODERS_OF:
            return {}
        width = base.config.get_text_config().hidden_size
        return layouts.written(self.layout, width, getattr(base.processor, "model_max_length", None), self.is_kept)


def check_widths(layout: Layout, base: Base) -> None:
    """Refuse a dense layer that is not as wide as what it reads, such as after another pooling was chosen."""
    width = base.config.get_text_config().hidden_size * len(layout.pooling)
    for step in layout.steps:
        if step is not None and step.weight.shape[1] != width:
            raise ModelError(f"a dense layer behind its pooling reads {step.weight.shape[1]:,} numbers, and "
                             f"{' and '.join(layout.pooling)} pooling gives {width:,}.", where=base.repo,
                             hint="Leave the pooling as it is: --set task.pooling=auto")
        width = width if step is None else step.weight.shape[0]


def padded_texts(base: Base, lists: Any) -> Any:
    """The texts of all examples as padded inputs, (all texts, longest), those of an example after each other."""
    import torch

    inputs = pad(base, [text for texts in lists for text in texts])
    if base.config.is_encoder_decoder:  # its encoder is what we use; the decoder is given the least it takes
        start = getattr(base.config, "decoder_start_token_id", None)
        inputs["decoder_input_ids"] = torch.full_like(inputs["input_ids"][:, :1], start or 0)
    return inputs


def states(outputs: Any) -> Any:
    """The states of all tokens, (texts, length, hidden size): of an encoder-decoder those of the encoder."""
    hidden = getattr(outputs, "encoder_last_hidden_state", None)
    hidden = getattr(outputs, "last_hidden_state", None) if hidden is None else hidden
    if hidden is None or hidden.ndim != 3:
        raise ModelError("it gives no state for each token, of which a text's vector could be made.",
                         hint="Take a text encoder or a causal model. See: hubtune show MODEL")
    return hidden


def pooling_for(config: Any) -> str:
    """The last token for causal models, where only it has seen the whole text; the mean for all others."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if causal and not config.is_encoder_decoder else "mean"


def snippet(repo: str, layout: Layout, encoder: bool, prompt: str) -> str:
    """Python that embeds two texts: with transformers alone, or where dense layers follow, with sentence-transformers."""
    before = f"texts = [{prompt!r} + text for text in texts]\n" if prompt else ""
    if not layout.is_plain:
        named = f", prompt={prompt!r}" if prompt else ""
        return f'''from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{repo}")
texts = ["What a lovely day", "The weather is fine"]
vectors = model.encode(texts{named})
print(vectors @ vectors.T)  # cosine similarities'''
    return f'''import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModel.from_pretrained("{repo}"){".get_encoder()" if encoder else ""}
texts = ["What a lovely day", "The weather is fine"]
{before}batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
mask = batch["attention_mask"]
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
vectors = {POOLED[layout.pooling[0]]}
vectors = torch.nn.functional.normalize(vectors, dim=-1)
print(vectors @ vectors.T)  # cosine similarities'''
