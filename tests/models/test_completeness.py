"""Models whose weights are not whole: refused by name before weights are fetched, and nothing right is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.contract import registry
from hubtune.errors import ModelError
from hubtune.hub.headers import read_headers
from hubtune.hub.origin import local_origin
from hubtune.models import completeness, configuration, loading, peft_adapters
from hubtune.models.heads import choice
from hubtune.recipe import PluginChoice

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def check(folder: Path, task: str = "text-classification", **more: Any) -> dict[str, Any]:
    return hubtune.check(task, model=folder, data=ROWS, out=folder.parent / "run", **more)


@pytest.mark.parametrize(("part", "named"), [
    ("encoder.layer.1.", "encoder.layer.1.attention.output.LayerNorm.bias (32,)"),
    ("encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.weight (32, 32)"),
    ("embeddings.word_embeddings", "embeddings.word_embeddings.weight"),
    ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.weight (32,)"),
])
def test_a_missing_part_of_the_backbone_is_refused_before_weights_are_loaded(
    part: str, named: str, tiny_model: Any, tmp_path: Path
) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")
    change_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(part)})
    with pytest.raises(ModelError, match="would begin at random") as caught:
        check(folder)
    assert named in caught.value.message
    assert "Fetch the model again" in str(caught.value.hint)


@pytest.mark.parametrize(("values", "shapes"), [
    ({"intermediate_size": 48}, "intermediate.dense.bias (64,), by config.json (48,)"),
    ({"vocab_size": 1000}, "by config.json (1000, 32)"),
    ({"max_position_embeddings": 64}, "position_embeddings.weight (128, 32), by config.json (64, 32)"),
    ({"hidden_size": 16}, "another shape"),
    ({"num_hidden_layers": 3}, "encoder.layer.2."),
])
def test_a_configuration_of_another_model_is_refused_with_both_shapes(
    values: dict[str, int], shapes: str, tiny_model: Any, tmp_path: Path
) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")
    change_config(folder, **values)
    with pytest.raises(ModelError) as caught:
        check(folder)
    assert shapes in caught.value.message


def test_fewer_layers_than_the_weights_have_are_warned_of(tiny_model: Any, tmp_path: Path) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")
    change_config(folder, num_hidden_layers=1)
    (warning,) = [text for text in check(folder)["warnings"] if "does not use" in text]
    assert "encoder.layer.1." in warning


def test_a_language_model_without_its_head_is_refused_for_generation(tiny_model: Any, tmp_path: Path) -> None:
    folder = copy(tiny_model("llama"), tmp_path / "model")
    change_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    assert verdict(folder, "text-classification") is None
    assert "lm_head.weight" in str(verdict(folder, "text-generation"))


def test_a_part_of_a_masked_language_models_head_is_damage_and_none_of_it_is_said(
    tiny_model: Any, tmp_path: Path
) -> None:
    folder, said = copy(tiny_model("distilbert"), tmp_path / "model"), list[str]()
    change_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "vocab_transform.bias"})
    assert "vocab_transform.bias" in str(verdict(folder, "fill-mask"))
    change_tensors(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("vocab_")})
    assert verdict(folder, "fill-mask", said) is None
    assert "vocab_layer_norm.bias, vocab_layer_norm.weight" in said[0]


def test_statistics_of_batch_norms_belong_to_the_backbone(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="images need: pip install 'hubtune[vision]'")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "model")
    assert verdict(tmp_path / "model", "image-classification") is None
    name = "resnet.embedder.embedder.normalization.running_var"
    change_tensors(tmp_path / "model", lambda tensors: {k: v for k, v in tensors.items() if k != name})
    assert name in str(verdict(tmp_path / "model", "image-classification"))


def verdict(folder: Path, task: str, said: list[str] | None = None) -> str | None:
    """Return why the model in a folder is refused for a task, by its headers; None if it is not."""
    origin = local_origin(folder)
    config = configuration.open_config(folder, origin)
    if task == "question-answering":
        config.num_labels = 2  # as the task's own settings say
    kind = registry.load().task(PluginChoice(task))
    config = choice.with_head(kind.model, config)
    model = loading.meta_model(hubtune.Base(origin.repo, origin.commit, config, None), kind)
    report = completeness.load_on_meta(model, read_headers(origin))
    assert report is not None
    try:
        completeness.check_completeness(origin, model, report, [].append if said is None else said.append)
    except ModelError as error:
        return error.message
    return None


# ---------------------------------------------------------------------- what has to be accepted

TEXT = ("text-classification", "token-classification", "question-answering", "sentence-similarity")


@pytest.mark.parametrize(("model_type", "auto"), [
    ("bert", "AutoModel"), ("bert", "AutoModelForPreTraining"), ("bert", "AutoModelForMaskedLM"),
    ("bert", "AutoModelForQuestionAnswering"), ("bert", "AutoModelForSequenceClassification"),
    ("distilbert", "AutoModel"), ("distilbert", "AutoModelForSequenceClassification"),
    ("roberta", "AutoModel"), ("roberta", "AutoModelForTokenClassification"),
    ("modernbert", "AutoModel"), ("deberta-v2", "AutoModel"), ("gpt2", "AutoModel"), ("llama", "AutoModel"),
    ("t5", "AutoModel"), ("bart", "AutoModel"), ("xlnet", "AutoModel"),
])
def test_checkpoints_of_any_class_are_accepted_for_any_head(
    model_type: str, auto: str, tiny_model: Any, tmp_path: Path
) -> None:
    kind = getattr(transformers, auto)
    model = kind.from_pretrained(tiny_model(model_type), num_labels=5) if "Classification" in auto \
        else kind.from_pretrained(tiny_model(model_type))
    model.save_pretrained(tmp_path / "model")
    config = configuration.open_config(tmp_path / "model", local_origin(tmp_path / "model"))
    plugins = registry.load()
    fitting = [task for task in TEXT if configuration.unsupported_reason(config, plugins.tasks[task]) is None]
    assert "sentence-similarity" in fitting
    assert {task: verdict(tmp_path / "model", task) for task in fitting} == dict.fromkeys(fitting)


@pytest.mark.parametrize(("model_type", "task"), [
    ("gpt2", "text-generation"), ("llama", "text-generation"), ("t5", "text2text-generation"),
    ("bart", "text2text-generation"), ("distilbert", "fill-mask"), ("roberta", "fill-mask"), ("xlnet", "text-generation"),
])
def test_tied_and_pretrained_heads_are_accepted(model_type: str, task: str, tiny_model: Any) -> None:
    said: list[str] = []
    assert verdict(tiny_model(model_type), task, said) is None
    assert said == []


def test_a_decoder_finds_the_words_that_the_whole_model_shares(tiny_model: Any) -> None:
    assert verdict(tiny_model("bart"), "text-generation") is None


def test_names_of_old_releases_are_accepted(tiny_model: Any, tmp_path: Path) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(tensors: dict[str, Any]) -> dict[str, Any]:
        for new, name in old.items():
            tensors = {f"bert.{k}".replace(new, name).replace("bert.bert.", "bert."): v for k, v in tensors.items()}
        return {**tensors, "cls.seq_relationship.weight": torch.ones(2, 32),
                "bert.embeddings.position_ids": torch.arange(128)[None]}

    change_tensors(folder, rename)
    assert {task: verdict(folder, task) for task in TEXT} == dict.fromkeys(TEXT)


def test_weight_norms_of_old_releases_and_the_mask_of_augmentation_are_accepted(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=[8, 8],
        conv_kernel=[4, 4], conv_stride=[4, 4], num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path / "model")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(tensors: dict[str, Any]) -> dict[str, Any]:
        for new, name in old.items():
            tensors = {k.replace(new, name): v for k, v in tensors.items()}
        return {k: v for k, v in tensors.items() if k != "masked_spec_embed"}

    change_tensors(tmp_path / "model", rename)
    assert verdict(tmp_path / "model", "audio-classification") is None
    assert verdict(tmp_path / "model", "automatic-speech-recognition") is None


# ------------------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_blamed_with_the_tensors_name(
    value: float, tiny_model: Any, tmp_path: Path
) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")

    def damage(tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["embeddings.word_embeddings.weight"][-1, 3] = value  # of a word that no row has
        return tensors

    change_tensors(folder, damage)
    rows = len(load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"])
    with pytest.raises(ModelError, match=r"bert\.embeddings\.word_embeddings\.weight .* NaN|NaN or infinite") as caught:
        hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run", set={"train.max_steps": 1})
    assert f"bert.embeddings.word_embeddings.weight ({rows}, 32), 1 of {rows * 32:,}, in rows {rows - 1}" in caught.value.message
    assert "no learning rate mends it" in str(caught.value.hint)


def test_large_finite_weights_are_numbers(tiny_model: Any, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(tiny_model("bert"))
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.fill_(3e38)  # their sum is infinite
    completeness.check_finite("tiny", model)


@pytest.mark.parametrize(("part", "change", "says"), [
    ("classifier.weight", lambda value: None, "classifier.weight"),
    ("classifier.weight", lambda value: value * float("nan"), "NaN or infinite"),
    ("prompt_embeddings", lambda value: value[:, :-1].contiguous(), "cannot be loaded"),
    ("prompt_embeddings", lambda value: None, "cannot be loaded"),
])
def test_an_adapter_has_to_be_whole_too(part: str, change: Any, says: str, adapter: Path, tmp_path: Path) -> None:
    folder = copy(adapter, tmp_path / "run")
    path = folder / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if part in name)
    changed = {key: change(value) if key == name else value for key, value in tensors.items()}
    save_file({key: value for key, value in changed.items() if value is not None}, path)
    with pytest.raises(ModelError) as caught:
        hubtune.load(folder).predict(["a row"])
    assert says in caught.value.message


@pytest.fixture(scope="module")
def adapter(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is an adapter over its base."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter") / "run"
    hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, strategy="prompt-tuning", out=folder,
                  set={"train.max_steps": 1, "train.verify": False})
    return folder


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_missing_updates_of_layers_which_peft_only_warns_of_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_model("bert"))
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if "lora_A" in name)

    def attach() -> Any:
        fresh = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_model("bert"))
        return peft_adapters.attach_adapter(fresh, tmp_path, "org/adapter")

    attach()
    save_file({name: value for name, value in tensors.items() if name != lost}, path)
    with pytest.raises(ModelError, match="lacks 1 of the adapter's") as caught:
        attach()
    assert lost in caught.value.message


def test_heads_of_other_tasks_inside_a_backbone_are_not_warned_of(tiny_model: Any, tmp_path: Path) -> None:
    folder, said = copy(tiny_model("bert"), tmp_path / "model"), list[str]()
    change_tensors(folder, lambda tensors: {**tensors, "encoder.lm_head.weight": torch.ones(2, 2)})
    assert verdict(folder, "text-classification", said) is None
    assert said == []
    change_tensors(folder, lambda tensors: {**tensors, "encoder.layer.2.output.dense.weight": torch.ones(2, 2)})
    assert verdict(folder, "text-classification", said) is None
    assert "encoder.layer.2.output.dense.weight" in said[0]
    assert "lm_head" not in said[0]
