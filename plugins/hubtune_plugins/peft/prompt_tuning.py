"""Prompt tuning: learnt word vectors before the text, at the input of a frozen model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubtune import Export, Plan, Strategy, Task, hookimpl, option
from hubtune_plugins.peft.prompt_trial import accepts, check_word_vectors
from hubtune_plugins.peft.prompts import FORMS, PromptMethod, finds_last_token

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class PromptOptions:
    tokens: int = option(20, "learnt word vectors before the text")


class PromptTuning(PromptMethod):
    """Learnt word vectors before the text, with the head trained whole; published as a PEFT
    adapter."""

    name = "prompt-tuning"
    summary = "learnt word vectors before the text"
    paper = (
        "Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv:2104.08691"
    )
    Options = PromptOptions
    method = "prompt_tuning"
    defaults = {"train.learning_rate": 1e-2, "train.weight_decay": 0.0}

    def architecture_refusal(
        self, model: type[Any] | None, body: type[Any] | None, form: str, config: Any
    ) -> str | None:
        if form in ("TOKEN_CLS", "QUESTION_ANS"):
            return (
                "the published model would answer for the learnt tokens, too: its outputs would "
                "stand beside the "
                "wrong words. Prefix tuning does not have this fault: --strategy prefix-tuning"
            )
        if model is None or not accepts(model, "inputs_embeds"):
            return f"'{config.model_type}' models take no word vectors in the place of words."
        if form == "SEQ_CLS" and finds_last_token(model):
            return (
                f"'{config.model_type}' models find a text's last word by its number, which learnt "
                "tokens do not "
                "have. Prefix tuning does not have this fault: --strategy prefix-tuning"
            )
        return None

    def settings(self) -> dict[str, Any]:
        return {"num_virtual_tokens": self.options.tokens, "prompt_tuning_init": "SAMPLE_VOCAB"}

    def measured_settings(self, model: Any, form: str) -> dict[str, Any]:
        return {
            "token_dim": model.get_input_embeddings().weight.shape[1],
            "num_layers": 1,
            "num_attention_heads": 1,
        }

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        wrapped = super().prepare(model, newly_initialized, task, plan)
        form = FORMS[task.model]
        peft_model: Any = wrapped
        check_word_vectors(peft_model.get_base_model(), form, vectors=peft_model.word_embeddings)
        if form == "CAUSAL_LM":
            drop_prompt_logits(peft_model, self.num_virtual_tokens())
        return wrapped

    def export(self, model: Any) -> Export:
        model.__dict__.pop("forward", None)
        return super().export(model)


def drop_prompt_logits(wrapped: Any, tokens: int) -> None:
    """Leave out the logits of learnt tokens, which PEFT returns before those of the text."""
    own = wrapped.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        outputs = own(*arguments, **named)
        outputs.logits = outputs.logits[:, tokens:]
        return outputs

    wrapped.forward = forward


@hookimpl
def hubtune_strategies() -> list[type[Strategy[Any]]]:
    return [PromptTuning]
