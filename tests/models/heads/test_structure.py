"""What a head stands on is told from the model: the part, its states, and how they are pooled."""

from __future__ import annotations

from pathlib import Path

import bare_models
import pytest
from transformers import AutoConfig, BertConfig, Wav2Vec2Config

from hubtune.models.heads import choice, structure
from hubtune.models.heads.structure import NoStructure

SEQUENCE = "AutoModelForSequenceClassification"


@pytest.mark.parametrize(("model_type", "part", "pooling"), [
    ("mamba", "", "last"), ("codegen", "", "last"), ("olmoe", "", "last"), ("longt5", "encoder", "mean"),
    ("m2m_100", "encoder", "mean"), ("bert-generation", "", "mean"), ("clip", "text_model", "last"),
])
def test_text_models(model_type: str, part: str, pooling: str, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(bare_models.make(tmp_path, model_type))
    found = choice.find(config, "text")
    assert (found.part, found.pooling, found.states, found.width) == (part, pooling, "last_hidden_state", 32)
    head = choice.with_head(SEQUENCE, config)
    assert head.model_type == choice.HEAD_TYPE
    assert head.get_text_config().vocab_size == config.get_text_config().vocab_size


@pytest.mark.parametrize(("model_type", "pooling", "width"), [
    ("clip_vision_model", "first", 32), ("siglip_vision_model", "mean", 32), ("vit_mae", "first", 32), ("dinov3_vit", "first", 32),
    ("glpn", "mean", 32), ("clip", "first", 32),
])
def test_image_models(model_type: str, pooling: str, width: int, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(bare_models.make(tmp_path, model_type))
    found = choice.find(config, "image")
    assert (found.part, found.pooling, found.width) == ("vision_model" if model_type == "clip" else "", pooling, width)


def test_pretraining_that_hides_patches_is_turned_off(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(bare_models.make(tmp_path, "vit_mae"))
    assert config.mask_ratio > 0
    assert choice.with_head("AutoModelForImageClassification", config).backbone_config.mask_ratio == 0


@pytest.mark.parametrize(("model_type", "part"), [("speech_to_text", "encoder"), ("moonshine", "encoder"), ("parakeet_encoder", "")])
def test_sound_models(model_type: str, part: str, tmp_path: Path) -> None:
    found = choice.find(AutoConfig.from_pretrained(bare_models.make(tmp_path, model_type)), "sound")
    assert (found.part, found.pooling, found.width) == (part, "mean", 32)


def test_a_class_of_transformers_is_used_where_there_is_one() -> None:
    config = BertConfig()
    assert choice.with_head(SEQUENCE, config) is config
    assert choice.refusal(SEQUENCE, config) is None
    assert choice.describe(SEQUENCE, config) is None


def test_what_reads_no_texts_is_refused_with_the_reason() -> None:
    with pytest.raises(NoStructure, match="no part of 'wav2vec2' models reads texts alone"):
        structure.find(Wav2Vec2Config(), "text")
    said = choice.refusal(SEQUENCE, Wav2Vec2Config())
    assert said is not None
    assert said.startswith("transformers has no SequenceClassification class for 'wav2vec2' models, and a head of hubtune's does not fit")


def test_a_task_without_such_a_head_is_refused() -> None:
    said = choice.refusal("AutoModelForObjectDetection", BertConfig())
    assert said == "transformers has no ObjectDetection class for 'bert' models"
