"""A linear head on any model of transformers: labels of texts, tokens, images and sound, spans and choices.

This file lies beside the weights of models that hubtune tuned, and needs torch and transformers
alone. `config.json` says under `backbone_config` of which pretrained model the states are, which
part of it is used, and how its states are pooled.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

SAME = {"image_grid_thw": "grid_thw", "image_position_ids": "pixel_position_ids", "image_merge_sizes": "merge_sizes"}
"""Names of inputs: those of image processors, and those of the part that reads images alone."""


class HubtuneHeadConfig(PreTrainedConfig):
    """Configuration of a linear head, and of the pretrained model below it.

    backbone_config: of the pretrained model, with its `model_type`.
    part: the submodule of it that is used, such as `encoder`; empty: all of it.
    states: the field of its output that is read.
    width: of a state.
    channels_last: whether a map of states is (rows, height, width, channels).
    pooling: `mean`, `first` or `last` over the states of a row that are no padding; `none` where
        the field holds one state per row.
    head_dropout: before the linear layer.
    """

    model_type = "hubtune-head"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: Any = None
    part: str = ""
    states: str = "last_hidden_state"
    width: int = 0
    channels_last: bool = False
    pooling: str = "mean"
    head_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            said = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(said.pop("model_type"), **said)
        super().__post_init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> Any:
        """Return the configuration of the pretrained model's text part, or of all of it."""
        inner = self.backbone_config
        return self if inner is None else inner.get_text_config(*args, **kwargs)


def without_pooler(config: Any) -> dict[str, bool]:
    """Return the argument that leaves out a pooler, for models that have one and take it."""
    kind = MODEL_MAPPING[type(config)]
    kind = kind[0] if isinstance(kind, (tuple, list)) else kind
    takes = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


def pool(states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Return one state per row, (rows, width), from (rows, length, width).

    mask: (rows, length), 0 for padding; None: there is none.
    """
    if mask is None:
        places = {"first": states[:, 0], "last": states[:, -1]}
        return states.mean(1) if pooling == "mean" else places[pooling]
    if pooling == "mean":
        weights = mask.to(states.dtype).unsqueeze(-1)
        # Padding is replaced, not multiplied: what a model computes there may be infinite.
        kept = states.masked_fill(weights == 0, 0.0)
        return kept.sum(1) / weights.sum(1).clamp(min=1)
    steps = torch.arange(mask.shape[1], device=mask.device)
    real = mask.to(steps.dtype)
    order = steps + 1 if pooling == "last" else len(steps) - steps
    place = (real * order).argmax(1)
    return states[torch.arange(len(states), device=states.device), place]


def unpack(states: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the states of images that stand one behind the other, (all, width), as (images, length, width), with their mask.

    Each image has the share of the states that it has of the patches; a class token before each is kept.
    """
    states = states.flatten(0, -2)
    if (grids := inputs.get("image_grid_thw")) is not None:
        counts = grids.prod(-1)
    elif (places := inputs.get("image_position_ids")) is not None:
        counts = (places >= 0).all(-1).sum(-1)
    else:
        counts = torch.ones(len(inputs["pixel_values"]), dtype=torch.long)
    total, rows, every = len(states), len(counts), int(counts.sum())
    extra = 1 if total > every and (total - rows) % every == 0 else 0
    lengths = (counts * (total - extra * rows)) // every + extra
    if int(lengths.sum()) != total:
        raise ValueError(f"{total} states cannot be told apart by {counts.tolist()} patches of each image: give one image at a time.")
    parts: list[Tensor] = list(torch.split(states, lengths.tolist()))
    padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    steps = torch.arange(padded.shape[1], device=padded.device)
    return padded, (steps < lengths.to(padded.device).unsqueeze(1)).long()


class HubtuneHead(PreTrainedModel):
    """A pretrained model with dropout and a linear layer on its states."""

    config_class = HubtuneHeadConfig
    config: HubtuneHeadConfig
    base_model_prefix = "pretrained"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: HubtuneHeadConfig) -> None:
        super().__init__(config)
        inner = config.backbone_config
        whole = AutoModel.from_config(inner, **without_pooler(inner))
        self.pretrained = whole.get_submodule(config.part)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.width, self.num_outputs(config))
        self.supports_gradient_checkpointing = any(
            hasattr(module, "gradient_checkpointing") for module in self.pretrained.modules())
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no: weights are initialized by transformers' functions, which know those that were loaded.

        Else it would leave out parts that have no weights of their own, whose buffers of FalconH1 would hold random memory.
        """
        return False

    @staticmethod
    def num_outputs(config: HubtuneHeadConfig) -> int:
        """Return how many numbers the linear layer gives."""
        return config.num_labels

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the pretrained part."""
        return self.pretrained.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the pretrained part."""
        self.pretrained.set_input_embeddings(value)

    def get_output_embeddings(self) -> None:
        """Return None: the head predicts no words."""

    def read(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the states of a batch, and the mask of those that are no padding.

        inputs: those that the pretrained part does not take are left out.

        Returns:
            (rows, length, width) and (rows, length), or (rows, width) and None.
        """
        takes = inspect.signature(self.pretrained.forward).parameters
        given = {name: value for name, value in inputs.items()
                 if name in takes and value is not None}
        given |= {own: inputs[name] for name, own in SAME.items()
                  if own in takes and name not in takes and inputs.get(name) is not None}
        if "use_cache" in takes:
            given["use_cache"] = False
        if "return_dict" in takes:
            given["return_dict"] = True
        outputs = self.pretrained(**given)
        states = getattr(outputs, self.config.states)
        if inputs.get("pixel_values") is not None and self.config.pooling != "none" and (
                states.ndim == 2 or (states.ndim == 3 and len(states) == 1)):
            return unpack(states, inputs)
        if states.ndim == 4 and not self.config.channels_last:
            states = states.flatten(2).transpose(1, 2)
        elif states.ndim > 3:
            states = states.flatten(1, -2)
        if states.ndim == 2:
            return states, None
        return states, self.mask_of(states, inputs, outputs)

    def mask_of(self, states: Tensor, inputs: dict[str, Any], outputs: Any) -> Tensor | None:
        """Return the mask of the states, (rows, length): that of the inputs, down-sampled for sound."""
        mask = inputs.get("attention_mask", inputs.get("pixel_attention_mask"))
        if mask is None or mask.ndim != 2:
            return None
        length = states.shape[1]
        if mask.shape[1] == length:
            return mask
        own = getattr(outputs, "attention_mask", None)
        if own is not None and own.shape == states.shape[:2]:
            return own
        if hasattr(self.pretrained, "_get_feature_vector_attention_mask"):
            return self.pretrained._get_feature_vector_attention_mask(length, mask)
        real = torch.ceil(mask.sum(1) * (length / mask.shape[1])).clamp(min=1)
        return (torch.arange(length, device=mask.device) < real.unsqueeze(1)).to(mask.dtype)

    def classify(self, inputs: dict[str, Any], labels: Tensor | None) -> SequenceClassifierOutput:
        """Return a logit per label for each row, and the loss where there are labels."""
        states, mask = self.read(inputs)
        if states.ndim == 3:
            states = pool(states, mask, self.config.pooling)
        logits = self.classifier(self.dropout(states))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits, logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class HubtuneForSequenceClassification(HubtuneHead):
    """A label, several labels or a number for each text."""

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None, **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Compute logits (texts, labels). labels: ids, or floats for several labels and numbers."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask,
                  "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds, **kwargs}
        return self.classify(inputs, labels)


class HubtuneForTokenClassification(HubtuneHead):
    """A label for each token."""

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None, **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Compute logits (texts, length, labels). labels: (texts, length), -100 for none."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask,
                  "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds, **kwargs}
        states, _ = self.read(inputs)
        logits = self.classifier(self.dropout(states))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=logits)


class HubtuneForQuestionAnswering(HubtuneHead):
    """The first and the last token of an answer in each text."""

    @staticmethod
    def num_outputs(config: HubtuneHeadConfig) -> int:
        """Return how many numbers the linear layer gives: of a start and of an end."""
        return 2

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None, end_positions: Tensor | None = None, **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Compute logits of starts and of ends, each (texts, length). positions: (texts,)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask,
                  "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds, **kwargs}
        states, _ = self.read(inputs)
        starts, ends = self.classifier(self.dropout(states)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(starts, ends, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=starts.contiguous(), end_logits=ends.contiguous())


class HubtuneForMultipleChoice(HubtuneHead):
    """A number for each choice of a row; the right one has the largest."""

    @staticmethod
    def num_outputs(config: HubtuneHeadConfig) -> int:
        """Return how many numbers the linear layer gives of a choice."""
        return 1

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Compute logits (rows, choices) from ids (rows, choices, length). labels: (rows,)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask,
                  "token_type_ids": token_type_ids, **kwargs}
        rows = {name: value.flatten(0, 1) for name, value in inputs.items()
                if isinstance(value, Tensor) and value.ndim > 2}
        choices = self.classify({**inputs, **rows}, None).logits
        logits = choices.view(-1, input_ids.shape[1]) if input_ids is not None else choices
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(loss=loss, logits=logits)


class HubtuneForImageClassification(HubtuneHead):
    """A label, several labels or a number for each image."""

    main_input_name = "pixel_values"

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Compute logits (images, labels). pixel_values: (images, channels, height, width), or patches, with their grid."""
        return self.classify({"pixel_values": pixel_values, **kwargs}, labels)


class HubtuneForAudioClassification(HubtuneHead):
    """A label, several labels or a number for each sound."""

    main_input_name = "input_features"

    def forward(
        self, input_values: Tensor | None = None, input_features: Tensor | None = None,
        attention_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Compute logits (sounds, labels), from samples or from features."""
        inputs = {"input_values": input_values, "input_features": input_features,
                  "attention_mask": attention_mask, **kwargs}
        return self.classify(inputs, labels)
