"""What prefix tuning and prompt tuning share: how a model is wrapped in learnt tokens, published and loaded."""

import warnings

from hubtune import Export, ModelError, Strategy
from hubtune_plugins.layers.learning import learn
from hubtune_plugins.peft.forms import FORMS, SAVED_BY_PEFT, classes_of, formless
from hubtune_plugins.peft.merging import quiet
from hubtune_plugins.peft.structure import Head
from hubtune_plugins.peft.trial import answers, heeded


class Prompted(Strategy):
    """A method that learns states before the text, on a frozen model that is published beside: an adapter alone."""

    contract = 2
    requires = ("peft",)
    extra = "hubtune[peft]"
    loads_with = "peft"
    submodules = {}
    """How many parts of the model get learnt tokens, by PEFT's form; else one."""

    def refuse(self, task, config):
        return formless(task) or self.unfit(*classes_of(task, config), FORMS[task.model], config)

    def unfit(self, model, body, form, config):
        """Why an architecture cannot take the method, from its classes: the model's and its body's, or None."""
        raise NotImplementedError

    def config(self, model, form, **common):
        """PEFT's configuration, with sizes measured in the model."""
        raise NotImplementedError

    def num_virtual_tokens(self):
        return self.options.tokens

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
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ModelError(f"PEFT cannot put learnt tokens before its inputs: {said}",
                             hint="Use another strategy: --strategy lora") from error
        heeded(plain, learnt)
        return wrapped

    def wrap(self, model, form):
        """The model with learnt tokens before its inputs, and the head learning."""
        from peft import get_peft_model

        quiet()
        warnings.filterwarnings("ignore", message="Token type ids are not supported")
        return get_peft_model(model, self.config(
            model, form, task_type=form, num_virtual_tokens=self.options.tokens,
            modules_to_save=list(self.head.modules) or None,
            num_transformer_submodules=self.submodules.get(form, 1)))

    def export(self, model):
        model.peft_config["default"].modules_to_save = self.head.modules or None  # without what PEFT guessed
        return Export(root=model, loads_with="peft")

    def usage(self, task, repo, base):
        form = FORMS[task.model]
        named = form in SAVED_BY_PEFT and form != "QUESTION_ANS"
        return snippet(task.model, repo, base, told(base, named), writes=form.endswith("_LM"))


def told(base, labels):
    """What the base model must be told as it is loaded, since an adapter does not say it; labels: its names, too."""
    config = base.config
    known = {"revision": base.commit} if len(base.commit) == 40 else {}  # a folder's is a sha256
    if labels:
        known |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
    if getattr(config, "pad_token_id", None) is not None:
        known["pad_token_id"] = config.pad_token_id
    return known


def snippet(auto, repo, base, known, writes):
    """Python that loads the base model and the adapter. auto: the `Auto` class; writes: whether the model writes text."""
    arguments = "".join(f",\n    {name}={value!r}" for name, value in known.items())
    asked = ('inputs = tokenizer("What a lovely day", return_tensors="pt")\n'
             "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))" if writes else
             'print(model(**tokenizer("What a lovely day", return_tensors="pt")))')
    return (f"from peft import PeftModel\nfrom transformers import AutoTokenizer, {auto}\n\n"
            f'base = {auto}.from_pretrained(\n    "{base.repo}"{arguments},\n)\n'
            f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n' + asked)
