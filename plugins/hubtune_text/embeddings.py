"""Texts as vectors: how a model's states become one vector, and what others need to know of it."""

import json

POOLED = {  # Python from `hidden` and `mask`, each (texts, length, ...), to (texts, hidden size)
    "mean": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)",
    "cls": "hidden[torch.arange(len(hidden)), mask.argmax(1)]  # each text's first token",
    "last": "hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]  # each text's last token",
}
SENTENCE_TRANSFORMERS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
ENCODERS_OF = ("t5", "mt5", "umt5", "longt5")
"""Encoder-decoders of which sentence-transformers loads the encoder, as we do; of others it reads the decoder."""


def pooling_for(config):
    """The last token for causal models, where only it has seen the whole text; the mean for all others."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if causal and not config.is_encoder_decoder else "mean"


def pool(hidden, mask, pooling):
    """One vector per text, (texts, hidden size), from `hidden` (texts, length, hidden size) and `mask` (texts, length)."""
    import torch

    hidden = hidden[:, -mask.shape[1]:]  # prompt tuning puts its own states before the text's
    if pooling == "mean":
        mask = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    steps = torch.arange(mask.shape[1], device=mask.device)
    place = (mask * (steps + 1 if pooling == "last" else len(steps) - steps)).argmax(1)
    return hidden[torch.arange(len(hidden), device=mask.device), place]


def snippet(repo, pooling, encoder):
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


def sentence_transformers_files(config, pooling):
    """What makes sentence-transformers read the folder as model, pooling and normalisation."""
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
