"""Where a model's head is and of which blocks it is built, told from the structure, not from names."""

from hubtune import ModelError

OWN_HEAD = ("", "ForCausalLM", "ForImageTextToText", "ForMaskedLM", "ForMultimodalLM", "ForPreTraining", "ForSeq2SeqLM",
            "ForSpeechSeq2Seq")
"""The kinds of transformers model that have no head, or one that was pretrained with the rest."""


def headless(task):
    """Why a method that begins with a new head cannot apply to a task, or None."""
    if task.model.removeprefix("AutoModel") not in OWN_HEAD:
        return None
    return f"the task '{task.name}' tunes a pretrained model as it is, and there is no new head to train by itself."


def needed_head(fresh):
    """The names of the head's parameters; an error where there are none."""
    if not fresh:
        raise ModelError("all of its weights were pretrained: there is no new head to train by itself.",
                         hint="Tune it whole: --strategy full")
    return fresh


def learn(model, names):
    """Let the parameters of these names learn, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names and parameter.is_floating_point()


def rated(groups, rates):
    """Parameter groups split by learning rate; rates: what multiplies the run's, by the id of a parameter."""
    split = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            split.setdefault((index, rates[id(parameter)]), []).append(parameter)
    return [{**groups[index], "params": part, "rate": rate} for (index, rate), part in sorted(split.items(), key=first)]


def first(item):
    """What a pair begins with, to sort by."""
    return item[0]


def depths(model, fresh):
    """How far up each parameter is, by name: embeddings 0, the blocks 1 and up, the head one more than the last block.

    What stands between blocks, such as a final norm or a pooler, counts to the block before it.
    """
    from torch.nn import Embedding

    def owned(name):
        return [f"{name}.{inner}" for inner, _ in model.get_submodule(name).named_parameters()]

    found = [name for name in blocks(model) if not fresh.issuperset(owned(name))]
    if not found:
        raise ModelError("it is not built of blocks that follow each other, so there is no order of layers to go by.",
                         hint="Tune it whole: --strategy full")
    inside = {parameter: number for number, name in enumerate(found, 1) for parameter in owned(name)}
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Embedding)}
    last, known = 0, {}
    for name, _ in model.named_parameters():
        last = inside.get(name, last)
        known[name] = len(found) + 1 if name in fresh else 0 if name in tables and name not in inside else last
    return known


def blocks(model):
    """The blocks by full name, from the inputs up: an encoder's before its decoder's, a pyramid's stage by stage."""
    found = stacked(model, "", False, residual)
    if found:
        return found
    bare = stacked(model, "", False, weighty)  # norms stand beside the blocks, as in XLM: part by part, layer by layer
    return sorted(bare, key=lambda name: int(name.rpartition(".")[2]))


def stacked(module, path, nested, counts):
    """The blocks in a module, of those that `counts` takes for one.

    A block that is itself little more than a stack of blocks, such as a stage of Swin, gives way to them.
    """
    from torch.nn import ModuleList, Sequential

    kinds = {type(child) for child in module.children()}
    stack = isinstance(module, ModuleList | Sequential) and (
        len(kinds) == 1 or (isinstance(module, ModuleList) and not nested))  # T5's blocks are lists of unlike parts
    found = []
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        inner = stacked(child, full, nested or stack, counts)
        most = sum(weight(child.get_submodule(block[len(full) + 1 :])) for block in inner) > 0.5 * weight(child)
        if not stack or isinstance(child, ModuleList | Sequential) or (inner and most):
            found += inner
        elif counts(child):
            found.append(full)
    return found


def weight(module):
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def weighty(module):
    """Whether a module holds a matrix."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def residual(module):
    """Whether a module holds matrices and a normalisation, as a residual block does and a single expert does not."""
    matrices = sum(parameter.ndim > 1 for parameter in module.parameters())
    return matrices > 1 and any("norm" in type(part).__name__.lower() for part in module.modules())
