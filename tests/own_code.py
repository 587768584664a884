"""A base model with code of its own: a configuration and a model that transformers does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIGURATION = '''\
from transformers import PreTrainedConfig


class PondConfig(PreTrainedConfig):
    model_type = "pond"

    def __init__(self, vocab_size=400, hidden_size=16, num_hidden_layers=2, max_position_embeddings=64, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**kwargs)
'''
MODELING = '''\
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .configuration_pond import PondConfig


class PondBase(PreTrainedModel):
    config_class = PondConfig
    base_model_prefix = "pond"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0.0, 0.05)
            if getattr(module, "bias", None) is not None:
                module.bias.data.zero_()


class PondModel(PondBase):
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(nn.Linear(config.hidden_size, config.hidden_size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def set_input_embeddings(self, value):
        self.embed = value

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return BaseModelOutput(last_hidden_state=hidden)


class PondForSequenceClassification(PondBase):
    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pond = PondModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        hidden = self.pond(input_ids).last_hidden_state
        seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        seen = seen.unsqueeze(-1).to(hidden.dtype)
        return SequenceClassifierOutput(logits=self.score((hidden * seen).sum(1) / seen.sum(1)))
'''


def make(folder: Path, tokenizer_of: Path, mark: Path | None = None, size: int = 16) -> Path:
    """Write the model and its code into a folder, and return it.

    Args:
        tokenizer_of: a model whose tokenizer it takes.
        mark: a file that its code writes where it runs.
    """
    folder.mkdir(parents=True)
    for path in tokenizer_of.iterdir():
        if "tokenizer" in path.name or path.name in ("vocab.txt", "special_tokens_map.json"):
            shutil.copy(path, folder / path.name)
    vocabulary = json.loads((tokenizer_of / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = {
        "model_type": "pond", "architectures": ["PondModel"], "vocab_size": vocabulary, "hidden_size": size, "num_hidden_layers": 2,
        "max_position_embeddings": 64, "auto_map": {
            "AutoConfig": "configuration_pond.PondConfig", "AutoModel": "modeling_pond.PondModel",
            "AutoModelForSequenceClassification": "modeling_pond.PondForSequenceClassification"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    trace = "" if mark is None else f"open({str(mark)!r}, 'w').close()\n"
    (folder / "configuration_pond.py").write_text(CONFIGURATION + trace, encoding="utf-8")
    (folder / "modeling_pond.py").write_text(MODELING, encoding="utf-8")
    draw = torch.Generator().manual_seed(0)
    shapes = {"embed.weight": (vocabulary, size)}
    for layer in range(2):
        shapes |= {f"layers.{layer}.weight": (size, size), f"layers.{layer}.bias": (size,)}
    tensors = {f"pond.{name}": 0.1 * torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
