"""What the tasks that write text share: padding, the likelihood of target tokens, and generation."""

from hubtune import DataError, ModelError
from hubtune_generation.chat import IGNORED


def padded(base, lists, fill=None, left=False):
    """Lists of ids as (lists, longest) and their attention mask; `fill`: by default the pad token."""
    import torch

    longest = max(map(len, lists))
    fill = (base.processor.pad_token_id or 0) if fill is None else fill
    rows, mask = [], []
    for ids in lists:
        space = longest - len(ids)
        rows.append([fill] * space + list(ids) if left else [*ids, *[fill] * space])
        mask.append([0] * space + [1] * len(ids) if left else [1] * len(ids) + [0] * space)
    return torch.tensor(rows), torch.tensor(mask)


def labels_of(batch):
    """The labels of a batch, (examples, length)."""
    return batch.targets["labels"]


def target_count(labels):
    """How many labels of (examples, length) are learnt, the first place of a row not counted: nothing predicts it."""
    return int((labels[:, 1:] != IGNORED).sum())


def following(logits, labels):
    """Logits and the labels that they predict, one place on. Logits of prompts that a strategy adds are left out."""
    return logits[:, -labels.shape[1]:][:, :-1], labels[:, 1:]


def token_losses(logits, labels):
    """What each label costs in nats, (examples, length), 0 where there is none, and whether it is the likeliest token.

    Only places with a label are taken into fp32 (fp64 where the model computes in it): vocabularies are large.
    """
    import torch
    from torch.nn import functional as F

    places = labels != IGNORED
    chosen = logits[places]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    losses = torch.zeros(labels.shape, dtype=chosen.dtype, device=chosen.device)
    losses[places] = F.cross_entropy(chosen, labels[places], reduction="none")
    hits = torch.zeros_like(places)
    hits[places] = chosen.argmax(-1) == labels[places]
    return losses, hits


def judged(logits, labels):
    """Per example: what its labels cost in nats in all, how many they are, and how many were the likeliest token."""
    losses, hits = token_losses(logits, labels)
    tokens = (labels != IGNORED).sum(1)
    return [{"nll": nll, "tokens": count, "hits": right}
            for nll, count, right in zip(losses.sum(1).tolist(), tokens.tolist(), hits.sum(1).tolist(), strict=True)]


def likelihood_scores(predictions):
    """Loss in nats a token, the share of tokens that were likeliest, perplexity."""
    import math

    if not all("nll" in prediction for prediction in predictions):
        raise DataError("the rows have no answers to compare with.", hint="Give rows with answers, or predict instead.")
    tokens = max(1, sum(p["tokens"] for p in predictions))
    loss = sum(p["nll"] for p in predictions) / tokens
    return {"loss": loss, "token_accuracy": sum(p["hits"] for p in predictions) / tokens,
            "perplexity": math.exp(min(loss, 700.0))}


def without_counts(prediction):
    """A prediction for the user: its text alone, where there is one."""
    return {"text": prediction["text"]} if "text" in prediction else prediction


def continued(model, base, prompts, ends, most, temperature=0.0):
    """The texts that a decoder writes after lists of ids: `most` tokens each at most, greedy at temperature 0.

    Prompts are padded on the left, with positions counted from the first real token. Only prompts of one length meet
    where that is not possible: in models that take no positions, or that keep a state (such as Mamba) and would read
    the padding.
    """
    from inspect import signature

    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside PEFT's
    apart = getattr(inner, "_is_stateful", False) or "position_ids" not in signature(inner.forward).parameters

    room = most if base.max_length is None else min(most, max(1, base.max_length // 2))
    if base.max_length is not None:
        prompts = [ids[-(base.max_length - room):] for ids in prompts]
    groups = {}
    for index, ids in enumerate(prompts):
        groups.setdefault(len(ids) if apart else 0, []).append(index)
    texts = [""] * len(prompts)
    device = next(model.parameters()).device
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for items in groups.values():
            ids, mask = (part.to(device) for part in padded(base, [prompts[i] for i in items], left=True))
            written = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=room, do_sample=temperature > 0, num_beams=1,
                eos_token_id=ends or None, pad_token_id=base.processor.pad_token_id, **sampling,
            )
            for index, found in zip(items, written[:, ids.shape[1]:].tolist(), strict=True):
                texts[index] = base.processor.decode(found, skip_special_tokens=True).strip()
    return texts


def packed(examples):
    """Examples in one row, (1, all tokens): positions that start anew tell transformers' masks where each begins."""
    import torch

    ids = [token for example in examples for token in example["input_ids"]]
    places = [place for example in examples for place in range(len(example["input_ids"]))]
    labels = [label for example in examples for label in example["labels"]]
    return ({"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([places]), "use_cache": False},
            torch.tensor([labels]))


def refuse_leaks(model, inputs):
    """Refuse to pack where an example's logits change with the one before it; whether there were two to compare."""
    import torch

    starts = [*(inputs["position_ids"][0] == 0).nonzero().flatten().tolist(), inputs["position_ids"].shape[1]]
    if len(starts) < 3:
        return False
    start, end = starts[1:3]

    def logits(first):
        part = {name: value[:, first:end] if torch.is_tensor(value) else value for name, value in inputs.items()}
        return model(**part).logits[:, start - first:]

    modes = {module: module.training for module in model.modules()}
    with torch.no_grad(), torch.autocast(inputs["input_ids"].device.type, enabled=False):
        model.eval()
        beside, alone = logits(0), logits(start)
    for module, mode in modes.items():
        module.training = mode
    if float((beside - alone).abs().max()) > 1e-3 * max(1e-3, float(alone.abs().max())):
        raise ModelError("its attention does not tell examples in one row apart.",
                         hint="Train with: --set task.packing=false")
    return True
