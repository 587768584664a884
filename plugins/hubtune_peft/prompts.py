"""What prefix tuning and prompt tuning share: which models take them, how they are wrapped, how they are loaded."""

import inspect

from hubtune import Export, ModelError, Strategy
from hubtune_peft.structure import Head, quiet

FORMS = {
    "AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS", "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""PEFT's task type by the transformers class that makes the model."""
SAVED_BY_PEFT = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"),
                 "QUESTION_ANS": ("qa_outputs",)}
"""Heads that PEFT's forms add to those that are saved, by the end of their name."""


class Prompted(Strategy):
    """A method that learns states before the text, on a frozen model that is published beside: an adapter alone."""

    contract = 1
    needs = ("peft",)
    extra = "hubtune[peft]"
    loads_with = "peft"

    def refuse(self, task, config):
        if task.model == "AutoModel":
            return "what loads models that make vectors cannot load learnt tokens: they are no part of the weights."
        if task.model not in FORMS:
            return (f"learnt tokens stand before a text, in a form that PEFT must know, and it knows none for "
                    f"{task.model.removeprefix('AutoModelFor')} models.")
        return self.unfit(classes_of(task, config), FORMS[task.model], config)

    def unfit(self, classes, form, config):
        """Why an architecture cannot take the method, from its classes: the model's and its body's."""
        raise NotImplementedError

    def config(self, model, form, **common):
        """PEFT's configuration, with sizes measured in the model."""
        raise NotImplementedError

    def positions(self):
        return self.options.tokens

    def prepare(self, model, fresh, task, plan):
        import warnings

        from peft import get_peft_model

        quiet()
        warnings.filterwarnings("ignore", message="Token type ids are not supported")
        form = FORMS[task.model]
        self.head = Head(model, fresh, SAVED_BY_PEFT.get(form, ()))
        if self.head.bare:
            raise ModelError(f"PEFT's format cannot hold its new weights {', '.join(self.head.bare[:3])}.",
                             hint="Use a strategy that is published merged: --strategy lora")
        for parameter in model.parameters():
            parameter.requires_grad = False
        try:
            plain = answers(model, form)
            wrapped = get_peft_model(model, self.config(
                model, form, task_type=form, num_virtual_tokens=self.options.tokens,
                modules_to_save=list(self.head.modules) or None, num_transformer_submodules=self.submodules(form)))
            learnt = answers(wrapped, form)
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            raise ModelError(f"PEFT cannot put learnt tokens before its inputs: {(str(error).splitlines() or [type(error).__name__])[0][:200]}",
                             hint="Use another strategy: --strategy lora") from error
        self.compare(plain, learnt)
        return wrapped

    def submodules(self, form):
        return 1

    def compare(self, plain, learnt):
        """Refuse what runs, but wrongly: learnt tokens that change nothing, or that make padding matter."""
        if plain["together"].shape == learnt["together"].shape and bool((plain["together"] == learnt["together"]).all()):
            raise ModelError("its outputs do not depend on the learnt tokens.", hint="Use: --strategy lora")
        gaps = [float((a["alone"] - a["together"]).abs().max()) / max(1e-3, float(a["alone"].abs().max()))
                for a in (plain, learnt)]
        if gaps[1] > 1e-3 >= gaps[0]:
            raise ModelError("with learnt tokens before it, an answer would change with the padding behind it.",
                             hint="Use another strategy: --strategy lora")

    def export(self, model):
        model.peft_config["default"].modules_to_save = self.head.modules or None  # without what PEFT guessed
        return Export(root=model, loads_with="peft")

    def usage(self, task, repo, base):
        config = base.config
        told = {"revision": base.commit} if len(base.commit) == 40 else {}  # a folder's is a sha256
        if FORMS[task.model] in SAVED_BY_PEFT and FORMS[task.model] != "QUESTION_ANS":
            told |= {"id2label": dict(config.id2label), "label2id": dict(config.label2id)}
        if getattr(config, "pad_token_id", None) is not None:
            told["pad_token_id"] = config.pad_token_id
        arguments = "".join(f",\n    {name}={value!r}" for name, value in told.items())
        return (f"from peft import PeftModel\nfrom transformers import AutoTokenizer, {task.model}\n\n"
                f'base = {task.model}.from_pretrained(\n    "{base.repo}"{arguments},\n)\n'
                f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n'
                f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
                + ('inputs = tokenizer("What a lovely day", return_tensors="pt")\n'
                   "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))"
                   if FORMS[task.model].endswith("_LM") else
                   'print(model(**tokenizer("What a lovely day", return_tensors="pt")))'))


def classes_of(task, config):
    """The transformers class that a task's model will have, and that of its body, or None."""
    import transformers

    def first(auto):
        mapping = getattr(transformers, auto)._model_mapping
        found = mapping.get(type(config), None)
        return found[0] if isinstance(found, tuple | list) else found

    return first(task.model), first("AutoModel")


def takes(kind, argument):
    """Whether a class' forward names the argument; "on": whether it passes unknown ones on."""
    parameters = inspect.signature(kind.forward).parameters if kind is not None else {}
    if argument == "on":
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return argument in parameters


def answers(model, form, vectors=None):
    """What a model says of a short text alone, and beside a longer one, of the text's own places: {"alone", "together"}.

    vectors: embeds the words, where the model shall read vectors.
    """
    import torch

    config, device = model.config.get_text_config(), next(model.parameters()).device
    ids = (torch.arange(18, device=device).view(2, 9) * 7 + 3) % (config.vocab_size - 8) + 8  # none of the special ones
    mask = torch.ones_like(ids)
    ids[0, 6:], mask[0, 6:] = getattr(config, "pad_token_id", None) or 0, 0

    def said(rows, length):
        words = ids[:rows, :length]
        inputs = {"input_ids": words} if vectors is None else {"inputs_embeds": vectors(words)}
        if form == "SEQ_2_SEQ_LM":
            inputs["decoder_input_ids"] = ids[:rows, :6].clone()
        outputs = model(attention_mask=mask[:rows, :length], **inputs)
        return outputs.logits if "logits" in outputs else outputs.start_logits

    training = model.training
    model.eval()
    with torch.no_grad():
        alone, together = said(1, 6)[0], said(2, 9)[0]
    model.train(training)
    if form == "SEQ_CLS":
        return {"alone": alone, "together": together}
    learnt = len(alone) - 6
    return {"alone": alone[learnt:], "together": together[learnt:learnt + 6]}
