"""The base of the methods that learn states before the text: which models take them, how they are
wrapped and published."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune import Base, Export, ModelError, Plan, Strategy, Task
from hubtune_plugins.layers.learning import learn
from hubtune_plugins.peft.layer_trial import FAULTS, first_line, silence_deprecations
from hubtune_plugins.peft.methods import config_class
from hubtune_plugins.peft.prompt_trial import check_prompt_effect, compute_answers
from hubtune_plugins.peft.structure import Head

if TYPE_CHECKING:
    from torch.nn import Module

FORMS = {
    "AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS", "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""PEFT's task type by the transformers class that makes the model."""
TABLES = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
}
"""Tables of transformers with the model classes of configurations, by `Auto` class."""
SAVED_BY_PEFT: dict[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Heads that PEFT's forms add to those that are saved, by the end of their name."""


def form_refusal(task: Task[Any]) -> str | None:
    """Return the reason why PEFT has no task type for a task's models, or None."""
    if task.model == "AutoModel":
        return (
            "what loads models that make vectors cannot load learnt tokens: they are no part of "
            "the weights."
        )
    if task.model not in FORMS:
        return (
            "learnt tokens stand before a text, in a form that PEFT must know, and it knows none "
            "for "
            f"{task.model.removeprefix('AutoModelFor')} models."
        )
    return None


def model_classes(task: Task[Any], config: Any) -> tuple[type[Any] | None, type[Any] | None]:
    """Return the transformers class of a task's model and that of its body; None where there is
    none."""
    import transformers

    def find_class(table: str) -> type[Any] | None:
        found = getattr(transformers, table).get(type(config), None)
        kind: type[Any] | None = found[0] if isinstance(found, tuple | list) else found
        return kind

    return find_class(TABLES[task.model]), find_class("MODEL_MAPPING")


def finds_last_token(kind: type[Any]) -> bool:
    """Return whether a class' forward searches token ids, as for the last one that is no
    padding."""
    return "_token_id" in inspect.getsource(kind.forward)


class PromptMethod(Strategy[Any]):
    """Base of methods that learn states before the text of a frozen model; published as an
    adapter."""

    contract = 2
    requires = ("peft",)
    extra = "hubtune[peft]"
    loads_with = "peft"
    method: ClassVar[str] = ""
    """PEFT's name of the method."""
    submodules: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Number of parts of the model that get learnt tokens, by PEFT's task type; else one."""

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        unsuitable = form_refusal(task) or self.architecture_refusal(
            *model_classes(task, config), FORMS[task.model], config
        )
        if unsuitable:
            return unsuitable
        try:
            config_class(self.method)(task_type=FORMS[task.model], **self.settings())
        except FAULTS as error:
            return f"PEFT refuses {self.method} for {task.model}: {first_line(error)}"
        return None

    def architecture_refusal(
        self, model: type[Any] | None, body: type[Any] | None, form: str, config: Any
    ) -> str | None:
        """Return the reason why an architecture cannot take the method, or None.

        Args:
            model: The model's class.
            body: The class of its body.
            form: PEFT's task type.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the user's options as arguments of PEFT's configuration."""
        raise NotImplementedError

    def measured_settings(self, model: Any, form: str) -> dict[str, Any]:
        """Return arguments of PEFT's configuration that are measured in the model."""
        raise NotImplementedError

    def num_virtual_tokens(self) -> int:
        config = config_class(self.method)(task_type="CAUSAL_LM", **self.settings())
        tokens: int = config.num_virtual_tokens
        return tokens

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        form = FORMS[task.model]
        self.head = Head(model, newly_initialized, SAVED_BY_PEFT.get(form, ()))
        if self.head.bare:
            raise ModelError(
                f"PEFT's format cannot hold its new weights {', '.join(self.head.bare[:3])}.",
                hint="Use a strategy that is published merged: --strategy lora",
            )
        learn(model, ())
        try:
            plain = compute_answers(model, form)
            wrapped: Module = self.wrap(model, form)
            learnt = compute_answers(wrapped, form)
        except FAULTS as error:
            raise ModelError(
                f"PEFT's {self.method} cannot put learnt tokens before its inputs: "
                f"{first_line(error)}",
                hint="Use another strategy: --strategy lora",
            ) from error
        check_prompt_effect(plain, learnt)
        return wrapped

    def wrap(self, model: Module, form: str) -> Any:
        """Put learnt tokens before the model's inputs, and make its head trainable."""
        from peft import get_peft_model

        silence_deprecations()
        warnings.filterwarnings("ignore", message="Token type ids are not supported")
        return get_peft_model(
            model,
            config_class(self.method)(
                **{
                    "task_type": form,
                    "modules_to_save": list(self.head.modules) or None,
                    "num_transformer_submodules": self.submodules.get(form, 1),
                    **self.measured_settings(model, form),
                    **self.settings(),
                }
            ),
        )

    def export(self, model: Any) -> Export:
        model.peft_config["default"].modules_to_save = (
            self.head.modules or None
        )  # without what PEFT guessed
        return Export(root=model, loads_with="peft")

    def usage(self, task: Task[Any], repo: str, base: Base) -> str:
        return adapter_usage(task, repo, base)


def adapter_usage(task: Task[Any], repo: str, base: Base) -> str:
    """Return Python that uses an adapter and its base model."""
    labels = (
        bool(getattr(base.config, "problem_type", None)) or FORMS.get(task.model) == "TOKEN_CLS"
    )
    return snippet(task.model, repo, base, base_arguments(base, labels))


def base_arguments(base: Base, labels: bool) -> dict[str, Any]:
    """Return arguments to load the base model with, which an adapter does not hold; labels: with
    label names."""
    config = base.config
    known: dict[str, Any] = {}
    if len(base.commit) == 40:  # a folder's is a sha256
        known["revision"] = base.commit
    if labels:
        known |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    if getattr(config, "pad_token_id", None) is not None:
        known["pad_token_id"] = config.pad_token_id
    return known


def snippet(auto: str, repo: str, base: Base, known: Mapping[str, Any]) -> str:
    """Return Python that loads base model and adapter.

    Args:
        auto: The `Auto` class.
        known: Arguments for the base model.
    """
    form = FORMS.get(auto)
    arguments = "".join(f",\n    {name}={value!r}" for name, value in known.items())
    asked = (
        'inputs = tokenizer("What a lovely day", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"
        if (form or "").endswith("_LM")
        else 'print(model(**tokenizer("What a lovely day", return_tensors="pt")))'
    )
    text = f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n{asked}' if form else ""
    return (
        "from peft import PeftModel\n"
        f"from transformers import {'AutoTokenizer, ' if form else ''}{auto}\n\n"
        f'base = {auto}.from_pretrained(\n    "{base.repo}"{arguments},\n)\n'
        f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n' + text
    )
