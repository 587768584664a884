"""The published modeling file: what it needs, what it computes, and that padding does not matter."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import bare_models
import pytest
import torch
from transformers import AutoConfig, BertConfig, BertForTokenClassification

from hubtune.hub.trust import HEAD_TYPE
from hubtune.models.heads import checkpoint, choice, modeling, publishing

SEQUENCE, TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"


def build(folder: Path, auto: str, **changes: Any) -> Any:
    """A model with a head on the tiny model in a folder."""
    config = choice.with_head(auto, AutoConfig.from_pretrained(folder))
    for name, value in {"num_labels": 3, **changes}.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model, report = checkpoint.load(choice.head_class(auto), config, folder, [], {"output_loading_info": True, "dtype": torch.float32})
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    return model


def test_the_file_needs_torch_and_transformers_alone() -> None:
    tree = ast.parse(publishing.SOURCE.read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in found} <= {"__future__", "inspect", "typing", "torch", "transformers"}
    assert modeling.HubtuneHeadConfig.model_type == HEAD_TYPE


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [[1.5], [4.0]]), ("first", [[1.0], [4.0]]), ("last", [[2.0], [4.0]])])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_is_by_the_mask_and_ignores_what_padding_holds(pooling: str, expected: list[Any], side: str) -> None:
    states, mask = [[1.0, 2.0, float("nan")], [4.0, float("inf"), 6.0]], [[1, 1, 0], [1, 0, 0]]
    if side == "left":
        states, mask = [[float("nan"), 1.0, 2.0], [float("inf"), 6.0, 4.0]], [[0, 1, 1], [0, 0, 1]]
    assert modeling.pool(torch.tensor(states)[..., None], torch.tensor(mask), pooling).tolist() == expected


def test_without_a_mask_all_states_count() -> None:
    states = torch.tensor([[[1.0], [2.0], [6.0]]])
    assert [modeling.pool(states, None, name).item() for name in ("mean", "first", "last")] == [3.0, 1.0, 6.0]


@pytest.mark.parametrize("auto", [SEQUENCE, TOKENS])
@pytest.mark.parametrize("model_type", list(bare_models.TEXTS))
def test_a_text_answers_alike_alone_and_padded(model_type: str, auto: str, tmp_path: Path) -> None:
    model = build(bare_models.make(tmp_path, model_type), auto).eval()
    short, long = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 8, 0, 0, 0], [9, 10, 11, 12, 13, 14, 15]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1] * 7])
    with torch.no_grad():
        alone = model(input_ids=short, attention_mask=torch.ones_like(short)).logits
        padded = model(input_ids=long, attention_mask=mask).logits
        spread = padded[:1] if auto == SEQUENCE else padded[:1, :4]
    assert torch.allclose(alone, spread, atol=1e-5)
    assert not torch.allclose(padded[0], padded[1], atol=1e-5)


@pytest.mark.parametrize("model_type", list(bare_models.TEXTS))
def test_gradients_reach_the_embedding_and_the_head(model_type: str, tmp_path: Path) -> None:
    model = build(bare_models.make(tmp_path, model_type), SEQUENCE, problem_type="single_label_classification")
    model.train()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    assert model.classifier.weight.grad.abs().sum() > 0
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert [name for name in unused if "pooler" in name or name.startswith("decoder")] == []


def test_losses_are_those_of_the_library(tmp_path: Path) -> None:
    from torch.nn import functional

    folder, ids = bare_models.make(tmp_path, "bert-generation"), torch.tensor([[5, 6, 7], [8, 9, 10]])
    for problem, labels, loss in (
        ("single_label_classification", torch.tensor([0, 2]), functional.cross_entropy),
        ("multi_label_classification", torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), functional.binary_cross_entropy_with_logits),
    ):
        found = build(folder, SEQUENCE, problem_type=problem).eval()(input_ids=ids, labels=labels)
        assert torch.allclose(found.loss, loss(found.logits, labels))
    number = build(folder, SEQUENCE, problem_type="regression", num_labels=1).eval()(input_ids=ids, labels=torch.tensor([0.5, 2.0]))
    assert torch.allclose(number.loss, functional.mse_loss(number.logits[:, 0], torch.tensor([0.5, 2.0])))
    tags = build(folder, TOKENS).eval()(input_ids=ids, labels=torch.tensor([[0, -100, 2], [1, 1, -100]]))
    assert torch.allclose(tags.loss, functional.cross_entropy(tags.logits.view(-1, 3), torch.tensor([0, -100, 2, 1, 1, -100])))


def test_spans_have_a_start_and_an_end_for_every_token(tmp_path: Path) -> None:
    model = build(bare_models.make(tmp_path, "mamba"), "AutoModelForQuestionAnswering").eval()
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    found = model(input_ids=ids, start_positions=torch.tensor([0, 1]), end_positions=torch.tensor([1, 2]))
    assert found.start_logits.shape == found.end_logits.shape == (2, 3)
    expected = [torch.nn.functional.cross_entropy(logits, places) for logits, places in (
        (found.start_logits, torch.tensor([0, 1])), (found.end_logits, torch.tensor([1, 2])))]
    assert torch.allclose(found.loss, sum(expected) / 2)


def test_choices_are_scored_one_by_one(tmp_path: Path) -> None:
    model = build(bare_models.make(tmp_path, "longt5"), "AutoModelForMultipleChoice").eval()
    ids = torch.tensor([[[5, 6, 7], [8, 9, 0]], [[5, 5, 5], [8, 9, 10]]])
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]]])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1]))
        alone = model(input_ids=ids[:1, 1:, :2], attention_mask=mask[:1, 1:, :2]).logits
    assert found.logits.shape == (2, 2)
    assert torch.allclose(found.logits[0, 1], alone[0, 0], atol=1e-5)
    assert torch.allclose(found.loss, torch.nn.functional.cross_entropy(found.logits, torch.tensor([0, 1])))


def test_with_the_same_weights_it_computes_what_a_class_of_transformers_does() -> None:
    config = BertConfig(**bare_models.WIDE, vocab_size=60, num_labels=3, hidden_dropout_prob=0.0)
    native = BertForTokenClassification(config).eval()
    ours = modeling.HubtuneForTokenClassification(modeling.HubtuneHeadConfig(
        backbone_config=config.to_dict(), width=32, num_labels=3)).eval()
    ours.pretrained.load_state_dict(native.bert.state_dict())
    ours.classifier.load_state_dict(native.classifier.state_dict())
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(ours(input_ids=ids).logits, native(input_ids=ids).logits, atol=1e-6)


def test_a_configuration_survives_saving(tmp_path: Path) -> None:
    config = choice.with_head(SEQUENCE, AutoConfig.from_pretrained(bare_models.make(tmp_path / "base", "clip")))
    config.save_pretrained(tmp_path / "saved")
    again = choice.open_head(tmp_path / "saved")
    assert again.to_dict() == config.to_dict()
    assert type(again.backbone_config).__name__ == "CLIPConfig"
    with pytest.raises(ValueError, match=HEAD_TYPE):
        AutoConfig.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("model_type", ["glpn", "vit_mae"])
def test_images_give_a_logit_per_label(model_type: str, tmp_path: Path) -> None:
    auto = "AutoModelForImageClassification"
    model = build(bare_models.make(tmp_path, model_type), auto).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = [model(pixel_values=pixels).logits for _ in range(2)]
    assert found[0].shape == (2, 3)
    assert torch.allclose(*found, atol=1e-6)


def test_sound_is_pooled_by_the_down_sampled_mask(tmp_path: Path) -> None:
    model = build(bare_models.make(tmp_path, "speech_to_text"), "AutoModelForAudioClassification").eval()
    features = torch.rand(2, 64, 16)
    mask = torch.ones(2, 64, dtype=torch.long)
    mask[0, 32:] = 0
    features[0, 32:] = 0
    with torch.no_grad():
        states, found = model.read({"input_features": features, "attention_mask": mask})
        padded = model(input_features=features, attention_mask=mask).logits
        alone = model(input_features=features[:1, :32], attention_mask=mask[:1, :32]).logits
    assert states.shape[1] == 16
    assert found.sum(1).tolist() == [8, 16]
    assert torch.allclose(padded[:1], alone, atol=1e-3)  # its convolutions see where padding begins


@pytest.mark.parametrize(("merged", "extra"), [(4, 0), (1, 0), (1, 1)])
def test_images_that_stand_behind_each_other_are_told_apart_by_their_grids(merged: int, extra: int) -> None:
    """Of 2 x 2 and 2 x 4 patches: one or four to a state, with a class token before each image or without."""
    lengths = [4 // merged + extra, 8 // merged + extra]
    states = torch.arange(float(sum(lengths)))[:, None]
    found, mask = modeling.unpack(states, {"image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 4]])})
    assert mask.sum(1).tolist() == lengths
    assert found[0, : lengths[0], 0].tolist() == states[: lengths[0], 0].tolist()
    assert found[1, :, 0].tolist() == states[lengths[0]:, 0].tolist()


def test_an_image_as_patches_answers_alike_alone_and_beside_a_larger_one() -> None:
    from transformers import PixtralVisionConfig

    inner = PixtralVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
                                image_size=32, patch_size=8)
    torch.manual_seed(0)
    model = modeling.HubtuneForImageClassification(modeling.HubtuneHeadConfig(backbone_config=inner, width=16)).eval()
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        both, alone = model(pixel_values=pixels).logits, [model(pixel_values=one[None]).logits[0] for one in pixels]
    torch.testing.assert_close(both, torch.stack(alone), atol=1e-5, rtol=0)


def test_buffers_that_are_not_saved_are_made_anew(tmp_path: Path) -> None:
    """FalconH1's multipliers stood in memory that nobody had written."""
    from transformers import FalconH1Config

    inner = FalconH1Config(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                           num_key_value_heads=1, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1,
                           ssm_multipliers=[0.5, 0.25, 2.0, 3.0, 4.0])
    model = modeling.HubtuneForSequenceClassification(modeling.HubtuneHeadConfig(backbone_config=inner, width=16))
    model.save_pretrained(tmp_path)
    again = modeling.HubtuneForSequenceClassification.from_pretrained(tmp_path)
    kept = dict(model.named_buffers())
    assert "pretrained.layers.0.mamba.mup_vector" in kept
    for name, value in again.named_buffers():
        torch.testing.assert_close(value, kept[name])
