"""Texts as vectors: how a model's states become one vector, and what others need to know of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hubtune import Base, Batch, ModelError, ModelSetup, Prediction, Row, UserCall, exact
from hubtune_plugins.tokenization.texts import SeveralTexts, pad, pad_token

if TYPE_CHECKING:
    from torch import Tensor

POOLED = {  # Python from `hidden` and `mask`, each (texts, length, ...), to (texts, hidden size)
    "mean": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)",
    "cls": "hidden[torch.arange(len(hidden)), mask.argmax(1)]  # each text's first token",
    "last": "hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]  # each text's last token",
}
SENTENCE_TRANSFORMERS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
ENCODERS_OF = ("t5", "mt5", "umt5", "longt5")
"""Encoder-decoders of which sentence-transformers loads the encoder, as we do; of others it reads the decoder."""


class Embedding(SeveralTexts):
    """A task whose model gives each text of an example, in its `texts`, a vector. Its options have `pooling`."""

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        self.pooling = pooling_for(base.config) if self.options.pooling == "auto" else self.options.pooling
        return pad_token(base)

    def embed(self, outputs: Any, batch: Batch) -> Tensor:
        """Unit vectors of an example's texts, (examples, texts, hidden size)."""
        from torch.nn.functional import normalize

        vectors = pool(exact(states(outputs)), batch.inputs["attention_mask"], self.pooling)
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
        return UserCall("processor", {"text": row["text"]}, {"truncation": True})

    def usage(self, repo: str, base: Base) -> Any:
        return snippet(repo, self.pooling, base.config.is_encoder_decoder)

    def files(self, base: Base) -> dict[str, str]:
        return sentence_transformers_files(base.config, self.pooling)


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


def pool(hidden: Any, mask: Any, pooling: Any) -> Any:
    """One vector per text, (texts, hidden size), from `hidden` (texts, length, hidden size) and `mask` (texts, length)."""
    import torch

    hidden = hidden[:, -mask.shape[1]:]  # prompt tuning puts its own states before the text's
    if pooling == "mean":
        mask = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    steps = torch.arange(mask.shape[1], device=mask.device)
    place = (mask * (steps + 1 if pooling == "last" else len(steps) - steps)).argmax(1)
    return hidden[torch.arange(len(hidden), device=mask.device), place]


def snippet(repo: str, pooling: Any, encoder: Any) -> str:
    """Python that embeds two texts with transformers alone."""
    return f'''import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModel.from_pretrained("{repo}"){".get_encoder()" if encoder else ""}
texts = ["What a lovely day", "The weather is fine"]
batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
mask = batch["attention_mask"]
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
vectors = {POOLED[pooling]}
vectors = torch.nn.functional.normalize(vectors, dim=-1)
print(vectors @ vectors.T)  # cosine similarities'''


def sentence_transformers_files(config: Any, pooling: Any) -> dict[Any, Any]:
    """Return what makes sentence-transformers read the folder as model, pooling and normalisation."""
    if config.is_encoder_decoder and config.model_type not in ENCODERS_OF:
        return {}
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (path, name) in enumerate(modules)
    ]
    modes = {f"pooling_mode_{name}": key == pooling for key, name in SENTENCE_TRANSFORMERS.items()}
    said = {"word_embedding_dimension": config.get_text_config().hidden_size, **modes}
    files = {"modules.json": listed, "1_Pooling/config.json": said, "2_Normalize/config.json": {}}
    return {name: json.dumps(value, indent=2) + "\n" for name, value in files.items()}
