"""The strategies that need no package: what learns in each phase, at which rate, on unlike architectures."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from hubtune_plugins.finetuning.bitfit import BitFit
from hubtune_plugins.finetuning.depths import depths
from hubtune_plugins.finetuning.full import Full
from hubtune_plugins.finetuning.gradual import Gradual, GradualOptions
from hubtune_plugins.finetuning.head import Head
from hubtune_plugins.finetuning.layerwise import Layerwise, LayerwiseOptions
from hubtune_plugins.finetuning.lp_ft import LpFt, LpFtOptions
from hubtune_plugins.layers.stacks import blocks

import hubtune
from hubtune import ModelError, Plan
from hubtune.training.optimizers import make_optimizer

TYPES = ["bert", "distilbert", "roberta", "deberta-v2", "xlnet", "bart", "t5", "modernbert", "gpt2", "llama"]
WITHOUT_BIASES = ("t5", "modernbert", "llama")
STRATEGIES = (Full, Head, BitFit, Layerwise, Gradual, LpFt)
CLASSIFIES = SimpleNamespace(name="text-classification", model="AutoModelForSequenceClassification")
TINY = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"},
    "swin": {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2],
             "window_size": 4},
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.1, "min_depth": 8},
    "wav2vec2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                 "conv_dim": [8, 8], "conv_kernel": [3, 3], "conv_stride": [2, 2], "num_feat_extract_layers": 2,
                 "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
}


@pytest.fixture(scope="module")
def tiny(tiny_model):
    """tiny("bert"): a classifier on a pretrained body, and the names of its fresh parameters."""
    def build(model_type):
        torch.manual_seed(0)
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            tiny_model(model_type), num_labels=3, pad_token_id=0, output_loading_info=True)
        names = {name for name, _ in model.named_parameters()}
        return model.eval(), frozenset(map(str, report["missing_keys"])) & names

    return build


def pixels_or_sound(model_type):
    """A classifier of images or of sounds, without weights to speak of."""
    config = transformers.AutoConfig.for_model(model_type, **TINY[model_type])
    kind = "AudioClassification" if model_type == "wav2vec2" else "ImageClassification"
    return getattr(transformers, f"AutoModelFor{kind}").from_config(config)


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def moved(model, strategy, newly_initialized, steps=2):
    """Train as the engine does, and return what each phase let learn and the names that changed in it."""
    ids = torch.arange(6, 24).view(2, 9)
    if model.config.is_encoder_decoder:
        ids[:, -1] = model.config.eos_token_id  # where their answer is read
    model = strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    found = {}
    for phase in strategy.phases():
        strategy.start_phase(model, phase)
        groups = strategy.param_groups(model, 0.0)
        listed = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        assert all(group["params"] for group in groups)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = make_optimizer("adamw", strategy, groups, 1e-2)
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
            optimizer.step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        found[phase.name] = (learning(model), changed)
    return found


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.name)
def test_frozen_weights_stay_fresh_ones_train_and_every_weight_has_one_group(kind, model_type, tiny):
    model, newly_initialized = tiny(model_type)
    assert newly_initialized
    strategy = kind()
    if kind is BitFit and model_type in WITHOUT_BIASES:
        assert "no biases" in strategy.refuse(CLASSIFIES, model.config)
        return
    assert strategy.refuse(CLASSIFIES, model.config) is None
    phases = strategy.phases()
    assert sum(phase.share for phase in phases) == pytest.approx(1)
    found = moved(model, strategy, newly_initialized)
    assert list(found) == [phase.name for phase in phases]
    for allowed, changed in found.values():
        assert changed <= allowed
        assert newly_initialized <= changed
    final, changed = found[phases[-1].name]
    if kind is Head:
        assert final == newly_initialized
    elif kind is BitFit:
        assert final - newly_initialized
        assert all(name.endswith("bias") for name in final - newly_initialized)
    else:
        assert final == set(dict(model.named_parameters()))
        assert len(changed) > 0.8 * len(final)  # some get no gradient, such as those for a text's second part


@pytest.mark.parametrize(("model_type", "names"), [
    ("bert", ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
    ("t5", [f"transformer.{side}.block.{k}" for side in ("encoder", "decoder") for k in (0, 1)]),
    ("bart", [f"model.{side}.layers.{k}" for side in ("encoder", "decoder") for k in (0, 1)]),
    ("gpt2", ["transformer.h.0", "transformer.h.1"]),
    ("xlnet", ["transformer.layer.0", "transformer.layer.1"]),
])
def test_blocks_are_found_in_order(model_type, names, tiny):
    assert blocks(tiny(model_type)[0]) == names


@pytest.mark.parametrize(("model_type", "names"), [
    ("resnet", [f"resnet.encoder.stages.{place}" for place in ("0.layers.0", "1.layers.0", "1.layers.1")]),
    ("swin", ["swin.encoder.layers.0.blocks.0", "swin.encoder.layers.1.blocks.0", "swin.encoder.layers.1.blocks.1"]),
    ("mobilenet_v1", [f"mobilenet_v1.layer.{k}" for k in range(26)]),
    ("wav2vec2", ["wav2vec2.encoder.layers.0", "wav2vec2.encoder.layers.1"]),
])
def test_blocks_of_images_and_sounds_are_found_in_order(model_type, names):
    model = pixels_or_sound(model_type)
    assert blocks(model) == names
    known = depths(model, frozenset(name for name, _ in model.named_parameters() if "classifier" in name))
    assert set(known) == set(dict(model.named_parameters()))
    assert {known[name] for name in known if "classifier" in name} == {len(names) + 1}
    assert set(known.values()) - {0} == set(range(1, len(names) + 2))


def test_a_model_without_blocks_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match="blocks") as refused:
        depths(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), frozenset())
    assert "--strategy full" in refused.value.hint


def test_layerwise_rates_fall_with_depth(tiny):
    model, newly_initialized = tiny("bert")
    strategy = Layerwise(LayerwiseOptions(decay=0.5, head_rate=4.0))
    strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = strategy.param_groups(model, 0.1)
    rates = {names[id(p)]: group["rate"] for group in groups for p in group["params"]}
    for name, rate in rates.items():
        wanted = (4.0 if name in newly_initialized else 0.25 if "embeddings" in name else 0.5 if "layer.0" in name else 1.0)
        assert rate == wanted, name
    assert len(groups) == 8  # matrices and vectors of two layers, the embeddings and the head
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_full_gives_the_head_a_rate_of_its_own(tiny):
    model, newly_initialized = tiny("bert")
    strategy = Full()
    strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    heads = {id(p) for name, p in model.named_parameters() if name in newly_initialized}
    for group in strategy.param_groups(model, 0.1):
        assert group["rate"] == (10.0 if heads & {id(p) for p in group["params"]} else 1.0)


@pytest.mark.parametrize("model_type", ["bert", "t5", "gpt2"])
def test_gradual_unfreezes_from_the_top(model_type, tiny):
    model, newly_initialized = tiny(model_type)
    parts = len(blocks(model))
    strategy = Gradual(GradualOptions(parts=parts, share=0.4))
    strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    names, known = set(dict(model.named_parameters())), depths(model, newly_initialized)
    phases = strategy.phases()
    assert [phase.name for phase in phases] == ["head", *(f"blocks {k}/{parts}" for k in range(1, parts)), "all"]
    assert [phase.share for phase in phases] == pytest.approx([0.6 / parts] * parts + [0.4])
    seen = {}
    for phase in (*phases, *reversed(phases)):  # whatever came before
        strategy.start_phase(model, phase)
        assert seen.setdefault(phase.name, learning(model)) == learning(model)
    assert seen["head"] == newly_initialized
    assert seen["all"] == names
    for k in range(1, parts):
        assert seen[f"blocks {k}/{parts}"] == {name for name in names if known[name] > parts - k}


def test_gradual_takes_more_parts_than_blocks(tiny):
    model, newly_initialized = tiny("bert")
    strategy = Gradual(GradualOptions(parts=5))
    strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    counts = []
    for phase in strategy.phases():
        strategy.start_phase(model, phase)
        counts.append(len(learning(model)))
    assert counts == sorted(counts)
    assert counts[-1] == len(list(model.parameters()))


@pytest.mark.parametrize("kind", [Head, LpFt])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama"])
def test_a_head_trained_alone_has_rates_for_inputs_of_unit_size(kind, model_type, tiny):
    """Layers with small inputs get larger steps, by their size and at most 16 times; biases, and the whole model, none."""
    model, newly_initialized = tiny(model_type)
    ids = torch.arange(6, 24).view(2, 9)
    batch = SimpleNamespace(inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    task = SimpleNamespace(forward=lambda module, given: module(**given.inputs))
    sizes = {}
    layers = {name: layer for name, layer in model.named_modules() if f"{name}.weight" in newly_initialized}
    hooks = [layer.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: inputs[0].square().mean().sqrt()}))
             for name, layer in layers.items()]
    strategy = kind()
    model.train()
    strategy.prepare(model, newly_initialized, task, Plan(8, 1.0, 2, lambda: [batch, None]))  # one batch is enough
    for hook in hooks:
        hook.remove()
    assert model.training
    assert not any(layer._forward_pre_hooks for layer in layers.values())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sizes
    for phase in strategy.phases():
        strategy.start_phase(model, phase)
        rates = {names[id(p)]: group.get("rate", 1.0) for group in strategy.param_groups(model, 0.1) for p in group["params"]}
        alone = phase.name != "all" or kind is Head
        wanted = {f"{name}.weight": min(16.0, max(1.0, 1 / float(size))) for name, size in sizes.items()} if alone else {}
        assert rates == {name: pytest.approx(wanted.get(name, 1.0), rel=0.06) for name in rates}  # of two digits


def test_lp_ft_begins_with_the_head_at_its_own_rate(tiny):
    model, newly_initialized = tiny("bert")
    strategy = LpFt(LpFtOptions(share=0.25, head_rate=20.0))
    strategy.prepare(model, newly_initialized, CLASSIFIES, Plan(8, 1.0, 2))
    head, rest = strategy.phases()
    assert (head.share, head.rate, rest.share, rest.rate) == (0.25, 20.0, 0.75, 1.0)
    strategy.start_phase(model, rest)
    assert learning(model) == set(dict(model.named_parameters()))
    strategy.start_phase(model, head)
    assert learning(model) == newly_initialized


def test_a_model_without_biases_is_refused_by_its_weights_where_its_configuration_says_nothing():
    config = transformers.MistralConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                        num_key_value_heads=1, intermediate_size=32, vocab_size=50, pad_token_id=0)
    assert BitFit().refuse(CLASSIFIES, config) is None
    model = transformers.MistralForSequenceClassification(config)
    with pytest.raises(ModelError, match="no biases") as refused:
        BitFit().prepare(model, frozenset({"score.weight"}), CLASSIFIES, Plan(8, 1.0, 2))
    assert "--strategy lora" in refused.value.hint
    biased = transformers.LlamaConfig(attention_bias=True)
    assert BitFit().refuse(CLASSIFIES, biased) is None


@pytest.mark.parametrize("kind", [Head, Gradual, LpFt], ids=lambda kind: kind.name)
def test_what_begins_with_a_head_needs_a_new_one(kind, tiny):
    for name in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"):
        reason = kind().refuse(SimpleNamespace(name="some-task", model=name), None)
        assert "some-task" in reason
        assert "no new head" in reason
    for name in ("AutoModelForTokenClassification", "AutoModelForCTC", "AutoModelForObjectDetection"):
        assert kind().refuse(SimpleNamespace(name="some-task", model=name), None) is None
    with pytest.raises(ModelError, match="no new head"):
        kind().prepare(tiny("bert")[0], frozenset(), CLASSIFIES, Plan(8, 1.0, 2))


@pytest.mark.parametrize(("strategy", "said"), [
    (Layerwise(LayerwiseOptions(decay=1.5)), "strategy.decay is 1.5"),
    (LpFt(LpFtOptions(share=1.0)), "strategy.share is 1.0"),
    (Gradual(GradualOptions(parts=0)), "strategy.parts is 0"),
    (Gradual(GradualOptions(share=0.0)), "strategy.share 0.0"),
])
def test_options_that_make_no_sense_are_refused(strategy, said):
    assert said in strategy.refuse(CLASSIFIES, transformers.BertConfig())


@pytest.mark.parametrize("kind", [BitFit, Layerwise, Gradual, LpFt], ids=lambda kind: kind.name)
def test_every_strategy_trains_from_end_to_end(kind, tiny_model, tmp_path):
    rows = [{"text": f"a {word} day, number {n}", "label": word} for n in range(16) for word in ("good", "bad")]
    run = hubtune.train("text-classification", model=tiny_model("distilbert"), data=rows, strategy=kind.name,
                        set={"train.max_steps": 8, "train.batch_size": 4, "train.verify": False}, out=tmp_path / "run")
    assert set(run.metrics) >= {"accuracy"}
    assert run.predict(["a good day"])[0]["label"] in ("good", "bad")
