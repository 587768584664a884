"""Choice of a task's model: a class of transformers where it has one, else a head of hubtune's."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hubtune.hub.trust import HEAD_TYPE
from hubtune.models import added_modules, compat
from hubtune.models.heads import structure
from hubtune.models.heads.structure import NoStructure, Structure

PREFIX = "pretrained."
"""Beginning of the names of the pretrained part's weights."""
HEADS = {
    "AutoModelForSequenceClassification": ("HubtuneForSequenceClassification", "text"),
    "AutoModelForTokenClassification": ("HubtuneForTokenClassification", "text"),
    "AutoModelForQuestionAnswering": ("HubtuneForQuestionAnswering", "text"),
    "AutoModelForMultipleChoice": ("HubtuneForMultipleChoice", "text"),
    "AutoModelForImageClassification": ("HubtuneForImageClassification", "image"),
    "AutoModelForAudioClassification": ("HubtuneForAudioClassification", "sound"),
}
"""Our classes, and the kind of data that they read, by the `Auto*` class that a task names."""
PER_TOKEN = ("AutoModelForTokenClassification", "AutoModelForQuestionAnswering")
"""Classes whose head needs a state for every token."""
KEPT = 16
FOUND: OrderedDict[tuple[str, str], Structure | NoStructure] = OrderedDict()
"""Structures of the newest configurations, by their JSON and the kind of data."""


def is_head(config: Any) -> bool:
    """Tell whether a configuration is of a model with a head of ours."""
    return getattr(config, "model_type", None) == HEAD_TYPE


def head_class(auto: str) -> type[Any]:
    """Return our class in the place of an `Auto*` class."""
    from hubtune.models.heads import modeling

    kind: type[Any] = getattr(modeling, HEADS[auto][0])
    return kind


def class_of(auto: str, config: Any) -> type[Any] | None:
    """Return the class of a model that hubtune builds: with a head of ours, or with modules that a strategy added; else None."""
    if is_head(config):
        return added_modules.with_modules(head_class(auto), config)
    return added_modules.class_of(auto, config)


def is_native(auto: str, config: Any) -> bool:
    """Tell whether transformers, or the code beside the model, has a class for a configuration."""
    return compat.model_class(auto, config) is not None or bool(compat.own_class(auto, config))


def refusal(auto: str, config: Any) -> str | None:
    """Return why there is neither a class nor a head for a configuration; None if there is one."""
    if is_head(config):
        return head_refusal(auto, config)
    if is_native(auto, config):
        return None
    kind = auto.removeprefix("AutoModelFor")
    lacking = f"transformers has no {kind} class for '{config.model_type}' models"
    if auto not in HEADS:
        return lacking
    if added := added_modules.strategy_of(config):
        return f"{lacking}, and a head of hubtune's does not stand on the modules of '{added.name}'"
    if getattr(config, "auto_map", None):
        return f"its own code has no {kind} class"
    try:
        found = find(config, HEADS[auto][1])
    except NoStructure as error:
        return f"{lacking}, and a head of hubtune's does not fit: {error}"
    if auto in PER_TOKEN and not is_per_token(found):
        return f"{lacking}, and it has no state for every token, on which a head could stand"
    return None


def head_refusal(auto: str, config: Any) -> str | None:
    """Return why a model with a head of ours has none for an `Auto*` class."""
    if auto not in HEADS:
        return f"it was tuned with a head of hubtune's, for which there is no {auto.removeprefix('AutoModelFor')} class"
    kinds = dict(HEADS.values())
    (own, *_) = getattr(config, "architectures", None) or ("",)
    kind = HEADS[auto][1]
    if kinds.get(own, kind) != kind:
        return f"it was tuned for {kinds[own]}s, and has kept the part that reads these alone"
    if auto in PER_TOKEN and config.pooling == "none":
        return "it has no state for every token, on which a head could stand"
    return None


def is_per_token(found: Structure) -> bool:
    """Tell whether a text model has a state for every token. length: 0 where it is not known."""
    return found.pooling != "none" and found.length in (0, structure.LENGTH)


def find(config: Any, kind: str) -> Structure:
    """Return the structure of a model without a head, which is remembered.

    Raises:
        NoStructure: no head could stand on it.
    """
    key = (config.to_json_string(), kind)
    if key not in FOUND:
        try:
            FOUND[key] = structure.find(config, kind)
        except NoStructure as error:
            FOUND[key] = error
        while len(FOUND) > KEPT:
            FOUND.popitem(last=False)
    found = FOUND[key]
    if isinstance(found, NoStructure):
        raise found
    return found


def open_head(folder: Path) -> Any:
    """Load the configuration of a model with a head of ours, by our class and none beside it."""
    from hubtune.models.heads.modeling import HubtuneHeadConfig

    return HubtuneHeadConfig.from_pretrained(folder)


def with_head(auto: str, config: Any) -> Any:
    """Return the configuration of a head of ours over a model for which transformers has no class.

    Configurations that need none, or for which there is none, are returned as they are.
    """
    if is_head(config) or is_native(auto, config) or refusal(auto, config) is not None:
        return config
    from hubtune.models.heads.modeling import HubtuneHeadConfig

    found = find(config, HEADS[auto][1])
    inner = copy.deepcopy(config)
    if getattr(inner, "mask_ratio", None):
        inner.mask_ratio = 0.0  # masked autoencoders hide patches, which only pretraining wants
    dropout = getattr(inner.get_text_config(), "classifier_dropout", None)
    return HubtuneHeadConfig(
        backbone_config=inner, part=found.part, states=found.states, width=found.width,
        channels_last=found.channels_last, pooling=found.pooling, head_dropout=dropout or 0.0)


def pretrained_config(config: Any) -> Any:
    """Return the configuration of the pretrained model below a head of ours; else the same."""
    return config.backbone_config if is_head(config) else config


def describe(auto: str, config: Any) -> str | None:
    """Describe the head of ours that a task uses; None where it uses a class of transformers."""
    if auto not in HEADS or (not is_head(config) and is_native(auto, config)) or refusal(auto, config):
        return None
    if not is_head(config):
        return find(config, HEADS[auto][1]).describe(auto in PER_TOKEN)
    return Structure(config.part, config.states, config.width, config.channels_last,
                     config.pooling, 0).describe(auto in PER_TOKEN)
