"""The strategies from PEFT: what is frozen stays, what is fresh learns, and what is saved is what
was trained."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from hubtune_plugins.peft.adalora import AdaLora, AdaLoraOptions, adapter_parameters, schedule
from hubtune_plugins.peft.ia3 import Ia3
from hubtune_plugins.peft.lora import Lora
from hubtune_plugins.peft.prefix_tuning import PrefixTuning
from hubtune_plugins.peft.prompt_tuning import PromptTuning
from hubtune_plugins.peft.prompts import FORMS, TABLES, model_classes
from hubtune_plugins.peft.qlora import QLora
from hubtune_plugins.peft.structure import Head, linear_layers
from hubtune_plugins.text.text_classification import TextClassification
from safetensors.torch import load_file, save_file
from tiny import skip_where_versions_disagree
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

import hubtune
from hubtune import ModelError, Plan, StepStrategy
from hubtune.data import encoding
from hubtune.evaluation import verification
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading, saving
from hubtune.training.optimizers import make_optimizer

ROWS = [
    {"text": f"the {thing} is {word}", "label": label}
    for thing in ("food", "room", "film", "phone")
    for word, label in (("good", "positive"), ("bad and slow", "negative"))
]
STEPS = 8
CASES = [
    (Lora, "t5"),
    (AdaLora, "bert"),
    (AdaLora, "t5"),
    (AdaLora, "gpt2"),
    (Ia3, "bert"),
    (Ia3, "gpt2"),
    (PrefixTuning, "bert"),
    (PrefixTuning, "roberta"),
    (PrefixTuning, "llama"),
    (PromptTuning, "distilbert"),
    (PromptTuning, "deberta-v2"),
]


def loaded_for(folder, task, strategy):
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(
        base, task.model_config(task.validate_data({"train": ROWS}), base)
    )
    reason = strategy.refuse(task, base.config)
    skip_where_versions_disagree(reason)
    assert reason is None
    return origin, base, loading.load(origin, base, task, strategy, seed=0)


def step(strategy, model, optimizer, task, batch, number, steps=STEPS):
    loss = task.loss(task.forward(model, batch), batch)
    objective = loss.total / batch.counts[loss.name]
    penalty = strategy.regularization(model) if isinstance(strategy, StepStrategy) else None
    (objective if penalty is None else objective + penalty).backward()
    optimizer.step()
    if isinstance(strategy, StepStrategy):
        strategy.after_step(model, number, steps)
    optimizer.zero_grad()


def trained(kind, folder, place):
    """Train a strategy's model for a few steps, and save it with its outputs."""
    task, strategy = TextClassification(), kind()
    origin, base, loaded = loaded_for(folder, task, strategy)
    batch = task.collate(encoding.encode(task, ROWS, base, 60).examples, base, None)
    base_weights = {name: (p, p.detach().clone()) for name, p in loaded.model.named_parameters()}
    torch.manual_seed(0)
    model = strategy.prepare(loaded.model, loaded.newly_initialized, task, Plan(STEPS, 1.0, 8))
    learning = {
        name: (p, p.detach().clone()) for name, p in model.named_parameters() if p.requires_grad
    }
    groups = strategy.param_groups(model, 0.01)
    optimizer = make_optimizer("adamw", strategy, groups, 1e-2)
    model.train()
    for number in range(STEPS):
        step(strategy, model, optimizer, task, batch, number)
    model.eval()
    with torch.no_grad():
        logits = task.forward(model, batch).logits
    save_file(
        {"out.0.logits": logits, **{f"in.0.{k}": v for k, v in batch.inputs.items()}},
        place / "seen.safetensors",
    )
    seen = SimpleNamespace(
        moved={name for name, (p, old) in base_weights.items() if not p.equal(old)},
        stuck={name for name, (p, old) in learning.items() if p.equal(old)},
        newly_initialized=loaded.newly_initialized,
        base=base,
        task=task,
        strategy=strategy,
        learning=[id(p) for p, _ in learning.values()],
        grouped=[id(p) for group in groups for p in group["params"]],
    )
    export = strategy.export(model)
    saving.save(export, base, place / "model", origin, {})
    names = ("id2label", "label2id", "problem_type", "pad_token_id")
    config = {name: getattr(base.config, name, None) for name in names}
    seen.saved = verification.SavedModel(
        place / "model", task.model, export.loads_with, place / "seen.safetensors", folder, config
    )
    return seen


def title(case):
    return f"{case[0].name}-{case[1]}"


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    return {
        case: trained(case[0], tiny_model(case[1]), tmp_path_factory.mktemp(title(case)))
        for case in CASES
    }


@pytest.fixture(scope="module")
def reloaded(made):
    """Verify every saved model in one clean process."""
    return dict(
        zip(made, verification.verify_models([seen.saved for seen in made.values()]), strict=True)
    )


@pytest.mark.parametrize("case", CASES, ids=title)
def test_pretrained_weights_stay_bit_for_bit(case, made):
    assert made[case].moved == set()  # the head's too: what learns is a copy


@pytest.mark.parametrize("case", CASES, ids=title)
def test_every_weight_that_may_learn_does(case, made):
    seen = made[case]
    assert seen.stuck == set()
    assert len(seen.learning) > len(seen.newly_initialized)


@pytest.mark.parametrize("case", CASES, ids=title)
def test_groups_hold_each_trainable_weight_once(case, made):
    assert sorted(made[case].grouped) == sorted(made[case].learning)


@pytest.mark.parametrize("case", CASES, ids=title)
def test_a_fresh_process_gives_the_same_logits(case, reloaded):
    found = reloaded[case]
    assert isinstance(found, dict), found
    assert found["largest_difference"] <= 1e-5


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[0] in (PrefixTuning, PromptTuning)], ids=title
)
def test_the_printed_usage_loads_an_adapter_with_peft_alone(case, made, tiny_model):
    seen = made[case]
    code = seen.strategy.usage(seen.task, "me/adapter", seen.base)
    code = code.replace('"me/adapter"', repr(str(seen.saved.folder))).replace(
        f'"{seen.base.repo}"', repr(str(tiny_model(case[1]))))
    named = {}
    torch.manual_seed(7)  # another head than the one that training began with
    exec(code, named)
    tensors = load_file(seen.saved.recorded)
    with torch.no_grad():
        logits = named["model"](
            **{k[5:]: v for k, v in tensors.items() if k.startswith("in.")}
        ).logits
    assert torch.allclose(logits, tensors["out.0.logits"], atol=1e-5)
    assert named["base"].config.id2label == seen.base.config.id2label


def task_for(model):
    return SimpleNamespace(model=model, name=model)


@pytest.mark.parametrize(("kind", "model_type", "model", "reason"), [
    (PrefixTuning, "vit", "AutoModelForImageClassification", "before a text"),
    (PromptTuning, "bert", "AutoModelForMultipleChoice", "MultipleChoice"),
    (PrefixTuning, "deberta-v2", "AutoModelForSequenceClassification", "take none"),
    (PrefixTuning, "t5", "AutoModelForSequenceClassification", "encoder-decoder"),
    (PromptTuning, "bert", "AutoModelForTokenClassification", "wrong words"),
    (PromptTuning, "bert", "AutoModelForQuestionAnswering", "wrong words"),
    (PrefixTuning, "bert", "AutoModelForMaskedLM", "it knows none"),
    (PromptTuning, "gpt2", "AutoModelForSequenceClassification", "last word"),
    (PromptTuning, "bart", "AutoModelForSequenceClassification", "last word"),
    (PrefixTuning, "bert", "AutoModel", "make vectors"),
])
def test_a_method_that_cannot_apply_says_why_before_weights_are_fetched(
    kind, model_type, model, reason, tiny_model
):
    assert reason in kind().refuse(
        task_for(model), AutoConfig.from_pretrained(tiny_model(model_type))
    )


def test_qlora_is_refused_where_the_weights_are_quantized_already():
    assert "quantized already" in QLora().refuse(
        task_for("AutoModelForCausalLM"), SimpleNamespace(quantization_config={"bits": 4})
    )
    assert QLora().refuse(task_for("AutoModelForCausalLM"), SimpleNamespace()) is None


def test_adalora_s_penalty_is_peft_s_own_term(tiny_model):
    task, strategy = TextClassification(), AdaLora(AdaLoraOptions(dropout=0.0))
    _, base, loaded = loaded_for(tiny_model("bert"), task, strategy)
    model = strategy.prepare(
        loaded.model, loaded.newly_initialized, task, Plan(STEPS, 1.0, 8)
    ).eval()
    batch = task.collate(encoding.encode(task, ROWS, base, 60).examples, base, None)
    with torch.no_grad():
        told = model.base_model(**batch.inputs, labels=batch.targets)
        bare = torch.nn.functional.cross_entropy(told.logits, batch.targets)
        assert float(strategy.regularization(model)) == pytest.approx(
            float(told.loss - bare), rel=1e-5
        )


def test_adalora_s_ranks_fall_to_the_budget(tiny_model):
    task, strategy = TextClassification(), AdaLora(AdaLoraOptions(start_rank=6, rank=2))
    _, base, loaded = loaded_for(tiny_model("bert"), task, strategy)
    model = strategy.prepare(loaded.model, loaded.newly_initialized, task, Plan(20, 1.0, 8))
    batch = task.collate(encoding.encode(task, ROWS, base, 60).examples, base, None)
    optimizer = make_optimizer("adamw", strategy, strategy.param_groups(model, 0.0), 1e-2)
    ranks = []
    for number in range(20):
        step(strategy, model, optimizer, task, batch, number, 20)
        ranks.append(
            sum(
                int((p != 0).sum())
                for _, p, _, key in adapter_parameters(model)
                if key.endswith("E")
            )
        )
    layers = sum(1 for _, _, _, key in adapter_parameters(model) if key.endswith("E"))
    assert ranks[1] == 6 * layers
    assert ranks[-1] == 2 * layers
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_adalora_has_a_schedule_for_short_runs(steps):
    found = schedule(steps, warmup=0.1, settle=0.3)
    assert found["total_step"] == steps
    assert 0 <= found["tinit"] < steps - found["tfinal"] <= steps


@pytest.mark.parametrize("after", [4, 13])
def test_adalora_resumed_is_adalora_uninterrupted(after, tmp_path, tiny_model, reviews, whole_run):
    class Stop(hubtune.Callbacks):
        left = after

        def on_progress(self, units, **shown):
            self.left -= units if shown else 0
            if self.left <= 0 and shown:
                raise MemoryError("stopped on purpose")

    with pytest.raises(hubtune.EnvironmentProblem):
        run(tmp_path / "run", tiny_model, reviews, plan=str(whole_run.folder), callbacks=Stop())
    again = hubtune.resume(tmp_path / "run")
    one, other = (load_file(r.folder / "model" / "model.safetensors") for r in (whole_run, again))
    assert [name for name in one if not one[name].equal(other[name])] == []


def run(out, tiny_model, reviews, plan=None, **more):
    return hubtune.train(
        "sentiment",
        model=tiny_model("bert"),
        data=reviews,
        strategy="adalora",
        out=out,
        set={
            "train.epochs": 3.0,
            "train.batch_size": 8,
            "data.limit": 40,
            "train.early_stopping_patience": 0,
            "train.save_minutes": 0.0,
            "train.verify": False,
            "train.learning_rate": 0.01,
            "train.keep": "last",
            "train.plan": plan,
        },
        **more,
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, tiny_model, reviews):
    return run(tmp_path_factory.mktemp("whole") / "run", tiny_model, reviews)


@pytest.mark.parametrize(("auto", "model_type"), [
    (AutoModelForCausalLM, "gpt2"), (AutoModelForSeq2SeqLM, "t5"), (AutoModelForMaskedLM, "bert")])
def test_tied_heads_of_language_models_are_neither_wrapped_nor_parted(
    auto, model_type, tiny_model, tmp_path
):
    model, report = auto.from_pretrained(tiny_model(model_type), output_loading_info=True)
    newly_initialized = frozenset(report["missing_keys"]) & {
        name for name, _ in model.named_parameters()
    }
    layers = linear_layers(model, Head(model, newly_initialized))
    assert model.get_output_embeddings() not in layers.values()
    strategy = Lora()
    wrapped = strategy.prepare(
        model, newly_initialized, task_for(auto.__name__), Plan(2, 1.0, 8)
    ).eval()
    inputs = {"input_ids": torch.arange(8, 16)[None]}
    inputs |= {"decoder_input_ids": inputs["input_ids"]} if model_type == "t5" else {}
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        logits = wrapped(**inputs).logits
        root = strategy.export(wrapped).root
        root.save_pretrained(tmp_path)
        again = auto.from_pretrained(tmp_path).eval()
        assert torch.allclose(again(**inputs).logits, logits, atol=1e-5)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_a_fresh_weight_beside_pretrained_ones_learns_where_it_is_and_no_adapter_is_published():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
            self.scale = torch.nn.Parameter(torch.ones(4))
            self.config = SimpleNamespace(to_dict=dict, get=lambda *_: None)

        def forward(self, x):
            return self.classifier(self.body(x) * self.scale)

    model, strategy = Odd(), Lora()
    wrapped = strategy.prepare(
        model, frozenset({"scale", "classifier.weight", "classifier.bias"}), None, Plan(1, 1.0, 1)
    )
    assert strategy.head.modules == ["classifier"]
    assert model.scale.requires_grad
    assert not model.body.weight.requires_grad
    assert strategy.export(wrapped).beside == {}


def test_a_net_of_convolutions_alone_has_them_adapted(tiny_model):
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(
        tiny_model("mobilenet_v2"), num_labels=3, ignore_mismatched_sizes=True
    )
    newly_initialized = frozenset(
        name for name, _ in model.named_parameters() if name.startswith("classifier.")
    )
    strategy = Lora()
    wrapped = strategy.prepare(
        model, newly_initialized, task_for("AutoModelForImageClassification"), Plan(2, 1.0, 8)
    ).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        logits = wrapped(pixels).logits
        assert torch.allclose(
            strategy.export(wrapped).root.eval()(pixels).logits, logits, atol=1e-5
        )


def test_a_model_without_layers_to_adapt_says_so():
    with pytest.raises(ModelError, match="no plain linear layers"):
        linear_layers(
            torch.nn.Sequential(torch.nn.LayerNorm(4)), Head(torch.nn.LayerNorm(4), frozenset())
        )
    with pytest.raises(ModelError, match="no layer's name ends in"):
        linear_layers(
            torch.nn.Sequential(torch.nn.Linear(4, 4)),
            Head(torch.nn.Linear(4, 4), frozenset()),
            ["q"],
        )


def test_a_model_with_running_states_is_refused_a_prefix_by_its_cache():
    from hubtune_plugins.peft.prompt_trial import keeps_running_state

    config = transformers.FalconH1Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    assert "running state" in PrefixTuning().refuse(task_for("AutoModelForCausalLM"), config)
    assert not keeps_running_state(transformers.LlamaConfig())
    assert not keeps_running_state(transformers.BertConfig())


@pytest.mark.parametrize("auto", FORMS)
def test_transformers_has_a_public_table_of_each_form(auto):
    assert hasattr(transformers, TABLES[auto]), (
        f"transformers {transformers.__version__} has no {TABLES[auto]}: mend TABLES in prompts"
    )
    config = transformers.T5Config() if "Seq2Seq" in auto else transformers.LlamaConfig()
    model, body = model_classes(task_for(auto), config)
    with torch.device("meta"):
        assert type(getattr(transformers, auto).from_config(config)) is model
        assert type(transformers.AutoModel.from_config(config)) is body


def test_convolutions_that_standardize_their_weights_are_not_adapted() -> None:
    """An update would be merged into weights that BiT then standardizes: outputs after reload differed by 2.08."""
    from transformers import BitConfig, BitForImageClassification

    config = BitConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_groups=2, layer_type="preactivation")
    model = BitForImageClassification(config)
    with pytest.raises(ModelError, match="no plain linear layers"):
        linear_layers(model, Head(model, frozenset({"classifier.1.weight", "classifier.1.bias"})))


@pytest.mark.parametrize("towers", ["language", "vision", "all"])
def test_lora_adapts_the_towers_that_are_asked_for(towers, tmp_path):
    pytest.importorskip("PIL")
    from hubtune.testing import tiny_model

    model = transformers.AutoModelForImageTextToText.from_pretrained(tiny_model("llava", tmp_path / "llava"))
    found = linear_layers(model, Head(model, frozenset()), towers=towers)
    kinds = {"vision" if "vision_tower" in name.split(".") else "language" for name in found}
    assert kinds == {"language": {"language"}, "vision": {"vision"}, "all": {"language", "vision"}}[towers]
