"""PEFT's forms of prompt learning, which say how a kind of model is asked, and which architectures can take them."""

import inspect

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


def takes(kind, argument):
    """Whether a class' forward names the argument; "on": whether it passes unknown ones on."""
    parameters = inspect.signature(kind.forward).parameters if kind is not None else {}
    if argument == "on":
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return argument in parameters


def counts_words(kind):
    """Whether a class' forward looks for a word by its number, as for the last one that is no padding."""
    return "_token_id" in inspect.getsource(kind.forward)
