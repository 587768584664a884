"""Logits that are computed later give what logits that are computed at once give: losses and gradients, whoever looks at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import sample
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import hubtune
from hubtune.acceleration import chunked_loss, kernels, lazy_logits
from hubtune.devices import device

WORDS, WIDTH, PLACES = 60, 8, 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny vocabularies count as large ones, and pieces are small."""
    monkeypatch.setattr(lazy_logits, "SMALLEST", WORDS)
    monkeypatch.setattr(chunked_loss, "PLACES", PLACES)


@pytest.fixture(params=[True, False], ids=["torch's", "in pieces"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's fused loss, and as where torch has none."""
    monkeypatch.setattr(chunked_loss, "FUSED", request.param and chunked_loss.FUSED)


def of_parts(function: Callable[..., Tensor], later: bool, dtype: torch.dtype = torch.float64, half: bool = False) -> list[Any]:
    """What a function of logits gives, a bias beside the table among them, and the gradients of all that they are made of."""
    draw = torch.Generator().manual_seed(0)
    states, table, bias, beside = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
                                   for shape in ((3, 7, WIDTH), (WORDS, WIDTH), (WORDS,), (1, WORDS)))
    labels = torch.randint(WORDS, (3, 7), generator=draw)
    head = torch.nn.Linear(WIDTH, WORDS, device="meta")
    head.weight, head.bias = torch.nn.Parameter(table.detach()), torch.nn.Parameter(bias.detach())
    with kernels.use_kernels(head, ("logits",) if later else ()), torch.autocast("cpu", torch.bfloat16, enabled=half):
        made = head(states) + beside
        assert isinstance(made, lazy_logits.Logits) is later
        found = function(made, labels)
    (found * torch.linspace(1, 2, found.numel(), dtype=found.dtype).view(found.shape)).sum().backward()
    return [found.detach(), *(part.grad for part in (states, head.weight, head.bias, beside))]


def asked(found: Tensor, labels: Tensor, **how: Any) -> Tensor:
    """The loss as tasks compute it: of some places, in fp32 at least."""
    places = labels % 3 > 0
    labels = labels[places].clone()
    labels[1] = -100
    return functional.cross_entropy(hubtune.exact(found[:, -7:][places]), labels, **how)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("reduction", ["sum", "none", "mean"])
def test_a_loss_and_its_gradients_are_those_of_logits_that_are_there(reduction: str) -> None:
    at_once, later = (of_parts(lambda *given: asked(*given, reduction=reduction), later) for later in (False, True))
    for one, other in zip(at_once, later, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("each_way")
def test_no_places_are_a_loss_of_zero() -> None:
    found = of_parts(lambda made, labels: functional.cross_entropy(made[labels < 0], labels[labels < 0], reduction="sum"), True)
    assert all(float(part.abs().sum()) == 0 for part in found)


class Double(torch.autograd.Function):
    """What a library may do with logits, past torch's functions."""

    @staticmethod
    def forward(ctx: Any, found: Tensor) -> Tensor:
        return found * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * 2


def masked(found: Tensor, labels: Tensor) -> Tensor:
    """Logits that are changed in place, and then looked at."""
    found[..., :3] = -9.0
    found.mul_(0.5)
    return asked(found, labels, reduction="sum")


def through_a_view(found: Tensor, labels: Tensor) -> Tensor:
    """Logits that are changed through a part of them, and a part of what was changed."""
    last, first = found[:, -1], found[:, :3]
    last.mul_(0.5)
    found[..., 0] = -9.0
    return torch.stack([asked(found, labels, reduction="sum"), functional.cross_entropy(first[:, 1], labels[:, 1], reduction="sum")])


OTHERS: dict[str, Callable[[Any, Any], Tensor]] = {
    "capped": lambda found, labels: asked(torch.tanh(found / 5) * 5, labels, reduction="sum"),
    "some words": lambda found, labels: found[..., :5].exp(),
    "from the end": lambda found, labels: found[..., -1, :].log_softmax(-1),
    "rows": lambda found, labels: functional.cross_entropy(found.view(-1, WORDS), labels.view(-1)),
    "smoothed": lambda found, labels: asked(found, labels, label_smoothing=0.1),
    "weighed": lambda found, labels: asked(found, labels, weight=torch.linspace(1, 2, WORDS, dtype=torch.float64)),
    "chances": lambda found, labels: functional.cross_entropy(found[0], torch.full((7, WORDS), 1 / WORDS, dtype=torch.float64)),
    "joined": lambda found, labels: torch.cat([found, found[:1]]).square(),
    "of one place each": lambda found, labels: asked(found + found.detach()[:, :1], labels, reduction="none"),
    "changed in place": masked,
    "changed through a view": through_a_view,
    "a function of one's own": lambda found, labels: asked(Double.apply(found), labels, reduction="sum"),
    "computed again": lambda found, labels: checkpoint(lambda given: given.logsumexp(-1), found, use_reentrant=True),
}


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_whatever_else_is_done_with_them_is_done_with_the_numbers(function: Callable[..., Tensor]) -> None:
    at_once, later = (of_parts(function, later) for later in (False, True))
    assert type(later[0]) is Tensor
    for one, other in zip(at_once, later, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_half_precision_is_as_exact_as_it_is_at_once() -> None:
    """The loss is of fp32, and gradients of many pieces are not summed up in half precision."""
    def function(*given: Any) -> Tensor:
        return asked(*given, reduction="sum")

    exact = of_parts(function, False)
    at_once, later = (of_parts(function, later, torch.float32, half=True) for later in (False, True))
    assert later[0].dtype == torch.float32
    for true, one, other in zip(exact, at_once, later, strict=True):
        assert other.dtype == one.dtype
        assert float((other - true).norm()) < 1.2 * float((one - true).norm()) + 1e-6


class Largest(TorchDispatchMode):
    """The most numbers that an operation returned."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, list | tuple) else [found]:
            if isinstance(part, Tensor) and type(part) is not lazy_logits.Logits:
                self.most = max(self.most, part.numel())
        return found


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_never_more_logits_than_those_of_a_piece_are_there(half: bool, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "FUSED", False)  # the dispatcher does not look into torch's
    with Largest() as seen:
        of_parts(lambda *given: asked(*given, reduction=reduction), True, torch.float32, half)
    assert seen.most <= max(WORDS * WIDTH, PLACES * WORDS)


def task_for(kind: str, **options: Any) -> Any:
    from hubtune_plugins.generation.preference import Preference, PreferenceOptions
    from hubtune_plugins.generation.text2text_generation import Text2TextGeneration
    from hubtune_plugins.generation.text_generation import TextGeneration
    from hubtune_plugins.text.fill_mask import FillMask

    made = {"t5": Text2TextGeneration, "bart": Text2TextGeneration, "bert": FillMask, "pairs": Preference}
    return Preference(PreferenceOptions(sft=0.5)) if kind == "pairs" else made.get(kind, TextGeneration)()


def gradients_of(kind: str, folder: Path, wrap: Callable[[Any], Any] = lambda model: model) -> list[Any]:
    """What the model's logits are, the losses of a task and the gradients of all weights: without and with the kernel."""
    from tiny import prepared

    task, found = task_for(kind), []
    model, base, encoded = prepared(task, folder, sample(task, 6))
    for part in (part for name, part in model.named_buffers() if name == "final_logits_bias"):
        part.copy_(torch.linspace(-1, 1, part.numel()).view(part.shape))
    model = wrap(model).double().eval()
    batch = task.collate(list(encoded.examples), base, [encoded.example_rng(0, 0, item) for item in range(len(encoded.examples))])
    for names in ((), ("logits",)):
        with kernels.use_kernels(model, names):
            outputs = task.forward(model, batch)
            terms = task.loss(outputs, batch)
        model.zero_grad()
        torch.stack([term.total for term in (terms if isinstance(terms, list) else [terms])]).sum().backward()
        whole = not isinstance(outputs.logits, lazy_logits.Logits) or outputs.logits.numbers is not None
        found.append((whole, [term.total for term in (terms if isinstance(terms, list) else [terms])],
                      {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}))
    return found


def hold_alike(found: list[Any], whole: bool) -> None:
    """Equal losses and gradients, and whether all logits were there in the end."""
    (_, losses_at_once, at_once), (computed, losses_later, later) = found
    assert computed is whole
    torch.testing.assert_close(losses_later, losses_at_once, rtol=1e-9, atol=1e-9)
    assert at_once.keys() == later.keys()
    for name, gradient in at_once.items():
        torch.testing.assert_close(later[name], gradient, rtol=1e-9, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart", "bert", "pairs"])
def test_every_task_with_a_vocabulary_has_its_losses_and_gradients(kind: str, tiny_model: Callable[..., Path]) -> None:
    hold_alike(gradients_of(kind, tiny_model("llama" if kind == "pairs" else kind)), whole=False)


def test_a_model_that_caps_its_logits_has_them_all(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    config = Gemma2Config(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                          intermediate_size=32, head_dim=8, final_logit_softcapping=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hold_alike(gradients_of("gemma2", tmp_path), whole=True)


@pytest.mark.parametrize(("settings", "whole"), [
    ({"target_modules": ["q_proj", "v_proj"]}, False), ({"target_modules": ["q_proj", "lm_head"]}, True),
    ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
])
def test_lora_has_the_same_losses_and_gradients(settings: dict[str, Any], whole: bool, tiny_model: Callable[..., Path]) -> None:
    peft = pytest.importorskip("peft")

    def wrap(model: Any) -> Any:
        return peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False, **settings))

    hold_alike(gradients_of("llama", tiny_model("llama"), wrap), whole)


def test_nothing_is_put_off_without_a_gradient_or_for_a_small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, states = torch.nn.Linear(WIDTH, WORDS), torch.ones(2, WIDTH)
    with kernels.use_kernels(layer, ("logits",)):
        assert isinstance(layer(states), lazy_logits.Logits)
        with torch.no_grad():
            assert not isinstance(layer(states), lazy_logits.Logits)
        monkeypatch.setattr(lazy_logits, "SMALLEST", WORDS + 1)
        assert not isinstance(layer(states), lazy_logits.Logits)
    monkeypatch.setattr(lazy_logits, "SMALLEST", WORDS)
    assert not isinstance(layer(states), lazy_logits.Logits)


def test_lazy_logits_are_not_used_where_weights_are_sharded() -> None:
    assert kernels.select_kernels(device.KERNELS["cpu"], sharded=True) == ("attention",)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_is_that_of_plain_kernels(recompute: bool, tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    from dataclasses import replace

    choose = device.choose
    monkeypatch.setattr(device, "choose", lambda *given: replace(choose(*given), recompute=recompute))
    rows, own = sample(task_for("gpt2"), 24), chunked_loss.cross_entropy
    found = {}
    for way in ("plain", "auto"):
        seen: list[Any] = []

        def watched(*given: Any, seen: list[Any] = seen) -> Any:
            seen.append(given)
            return own(*given)

        monkeypatch.setattr(chunked_loss, "cross_entropy", watched)
        hubtune.train("text-generation", model=tiny_model("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), data=rows, out=tmp_path / way,
                      set={"train.precision": "fp64", "train.kernels": way, "train.max_steps": 3, "train.verify": False, "train.learning_rate": 1e-3})
        log = [json.loads(line) for line in (tmp_path / way / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        found[way] = [line["loss"] for line in log if "loss" in line and "lr" in line]
        assert bool(seen) is (way == "auto")
    assert len(found["auto"]) == 3
    assert found["auto"] == pytest.approx(found["plain"], rel=1e-9)


def test_hidden_states_that_were_changed_meanwhile_are_refused() -> None:
    hidden = torch.randn(3, 4, requires_grad=True).clone()
    put_off = lazy_logits.defer_linear(torch.nn.Linear(4, lazy_logits.SMALLEST), hidden)
    hidden.add_(1.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        put_off.sum()
