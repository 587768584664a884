"""The base of the methods that learn states before the text: which models take them, how they are wrapped and published."""

import inspect
import warnings

from hubtune import Export, ModelError, Strategy
from hubtune_plugins.layers.learning import learn
from hubtune_plugins.peft.layer_trial import FAULTS, quiet, reason
from hubtune_plugins.peft.methods import config_class
from hubtune_plugins.peft.prompt_trial import answers, heeded
from hubtune_plugins.peft.structure import Head

FORMS = {
    "AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS", "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""PEFT's task type by the transformers class that makes the model."""
SAVED_BY_PEFT = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"),
                 "QUESTION_ANS": ("qa_outputs",)}
"""Heads that PEFT's forms add to those that are saved, by the end of their name."""


def formless(task):
    """Why no form suits a task's models, or None."""
    if task.model == "AutoModel":
        return "what loads models that make vectors cannot load learnt tokens: they are no part of the weights."
    if task.model not in FORMS:
        return (f"learnt tokens stand before a text, in a form that PEFT must know, and it knows none for "
                f"{task.model.removeprefix('AutoModelFor')} models.")
    return None


def classes_of(task, config):
    """The transformers class that a task's model will have, and that of its body, or None."""
    import transformers

    def first(auto):
        mapping = getattr(transformers, auto)._model_mapping
        found = mapping.get(type(config), None)
        return found[0] if isinstance(found, tuple | list) else found

    return first(task.model), first("AutoModel")


def counts_words(kind):
    """Whether a class' forward looks for a word by its number, as for the last one that is no padding."""
    return "_token_id" in inspect.getsource(kind.forward)


class Prompted(Strategy):
    """A method that learns states before the text, on a frozen model that is published beside: an adapter alone."""

    contract = 2
    requires = ("peft",)
    extra = "hubtune[peft]"
    loads_with = "peft"
    method = ""
    """PEFT's name of the method."""
    submodules = {}
    """How many parts of the model get learnt tokens, by PEFT's form; else one."""

    def refuse(self, task, config):
        unsuitable = formless(task) or self.unfit(*classes_of(task, config), FORMS[task.model], config)
        if unsuitable:
            return unsuitable
        try:
            config_class(self.method)(task_type=FORMS[task.model], **self.settings())
        except FAULTS as error:
            return f"PEFT refuses {self.method} for {task.model}: {reason(error)}"
        return None

    def unfit(self, model, body, form, config):
        """Why an architecture cannot take the method, from its classes: the model's and its body's, or None."""
        raise NotImplementedError

    def settings(self):
        """The user's options, as arguments of PEFT's configuration."""
        raise NotImplementedError

    def sizes(self, model, form):
        """Arguments of PEFT's configuration that are measured in the model."""
        raise NotImplementedError

    def num_virtual_tokens(self):
        return config_class(self.method)(task_type="CAUSAL_LM", **self.settings()).num_virtual_tokens

    def prepare(self, model, newly_initialized, task, plan):
        form = FORMS[task.model]
        self.head = Head(model, newly_initialized, SAVED_BY_PEFT.get(form, ()))
        if self.head.bare:
            raise ModelError(f"PEFT's format cannot hold its new weights {', '.join(self.head.bare[:3])}.",
                             hint="Use a strategy that is published merged: --strategy lora")
        learn(model, ())
        try:
            plain = answers(model, form)
            wrapped = self.wrap(model, form)
            learnt = answers(wrapped, form)
        except FAULTS as error:
            raise ModelError(f"PEFT's {self.method} cannot put learnt tokens before its inputs: {reason(error)}",
                             hint="Use another strategy: --strategy lora") from error
        heeded(plain, learnt)
        return wrapped

    def wrap(self, model, form):
        """The model with learnt tokens before its inputs, and the head learning."""
        from peft import get_peft_model

        quiet()
        warnings.filterwarnings("ignore", message="Token type ids are not supported")
        return get_peft_model(model, config_class(self.method)(**{
            "task_type": form, "modules_to_save": list(self.head.modules) or None,
            "num_transformer_submodules": self.submodules.get(form, 1), **self.sizes(model, form), **self.settings()}))

    def export(self, model):
        model.peft_config["default"].modules_to_save = self.head.modules or None  # without what PEFT guessed
        return Export(root=model, loads_with="peft")

    def usage(self, task, repo, base):
        return adapter_usage(task, repo, base)


def adapter_usage(task, repo, base):
    """Python that uses an adapter that is published beside its base model."""
    labels = bool(getattr(base.config, "problem_type", None)) or FORMS.get(task.model) == "TOKEN_CLS"
    return snippet(task.model, repo, base, told(base, labels))


def told(base, labels):
    """What the base model must be told as it is loaded, since an adapter does not say it; labels: its names, too."""
    config = base.config
    known = {"revision": base.commit} if len(base.commit) == 40 else {}  # a folder's is a sha256
    if labels:
        known |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    if getattr(config, "pad_token_id", None) is not None:
        known["pad_token_id"] = config.pad_token_id
    return known


def snippet(auto, repo, base, known):
    """Python that loads the base model and the adapter. auto: the `Auto` class; known: arguments for the base model."""
    form = FORMS.get(auto)
    arguments = "".join(f",\n    {name}={value!r}" for name, value in known.items())
    asked = ('inputs = tokenizer("What a lovely day", return_tensors="pt")\n'
             "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))" if (form or "").endswith("_LM") else
             'print(model(**tokenizer("What a lovely day", return_tensors="pt")))')
    text = f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n{asked}' if form else ""
    return (f"from peft import PeftModel\nfrom transformers import {'AutoTokenizer, ' if form else ''}{auto}\n\n"
            f'base = {auto}.from_pretrained(\n    "{base.repo}"{arguments},\n)\n'
            f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n' + text)
