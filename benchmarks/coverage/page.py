"""docs/coverage.md: which architectures were trained for which task, and why others were not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

STATES = ("passed", "refused", "failed", "not built")
ASKED = {"text-classification": 330, "token-classification": 310, "image-classification": 105, "audio-classification": 45,
         "text-generation": 180}
"""Architectures that are to pass with `full`."""
WORDS = (
    (r".*requires the (\w+) library but it was not found.*", r"needs the package \1, which is not installed here"),
    (r".*Missing optional dependencies: torchvision.*", "its image processor needs the package torchvision, which is not installed here"),
    (r".*size: ValueError: too big: (\d+) parameters.*", r"its smallest model that could be made has \1 parameters, too many for this run"),
    (r".*(?:StrictDataclass\w*Error|config: ValueError).*", "the configuration of a tiny model breaks one of its own rules"),
    (r".*init: (\w+Error: .*)", r"a tiny model of it cannot be made: \1"),
    (r".*not enough values to unpack \(expected 5, got 4\).*", "it reads videos; an image repeated as frames is no video"),
    (r".*one of the variables needed for gradient computation has been modified.*", "its code changes a value that the gradient needs"),
    (r".*its weights lack (\d+) of (\d+) tensors.*are missing: ([\w.]+).*", r"its weights lack \1 of \2 tensors, such as \3"),
)
"""Reasons of libraries, and what they mean."""
HEAD = """\
# Coverage

Which architectures of transformers {transformers} hubtune trains, by the task and the strategy. Written by `python -m benchmarks.coverage`: for each
architecture a tiny model of random weights is made from its configuration class, trained for a few steps by `hubtune.train`, saved,
and loaded by plain transformers in a process without hubtune. **What is shown is that it trains, saves and loads right, never how good it is.**

- *passed*: the loss falls, gradients reach the embedding and the head, and the saved model gives the trained model's outputs and answers (1e-4).
- *refused*: hubtune says why before training; the reasons are below.
- *failed*: an error of another library, a loss that does not fall, or other outputs after loading.
- *not built*: no tiny model could be made of it, so nothing is known.

Where a part of a model is tried that has no processor of its own, such as a vision tower, it gets that of the whole model. Convolutional models with
batch norms that vanish at their first weights (EfficientNet, MobileViT, HGNet-V2 and others), and SAM, whose configuration says weights of 1e-10, begin with
He's weights and with statistics that fit them, as every pretrained model has.

Architectures are those with a base model (`AutoModel`) that read this kind of data, alone or with others{drawn}.
"""


def render(lines: Sequence[Mapping[str, Any]], drawn: str, transformers: str) -> str:
    """Return the page as Markdown. drawn: how architectures were chosen, where not all were tried."""
    parts = [HEAD.format(drawn=drawn, transformers=transformers), table(lines)]
    for task in dict.fromkeys(line["task"] for line in lines):
        parts.append(of_task(task, [line for line in lines if line["task"] == task]))
    return "\n".join(parts)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return how many trials ended in each state, by task and strategy."""
    by_place: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    heads: Counter[tuple[str, str]] = Counter()
    for line in lines:
        place = (line["task"], line["strategy"])
        by_place[place][line["state"]] += 1
        heads[place] += bool(line["state"] == "passed" and line.get("head"))
    text = ["| task | strategy | tried | passed | of these by a head of hubtune's | refused | failed | not built |",
            "|---|---|--:|--:|--:|--:|--:|--:|"]
    for (task, strategy), found in by_place.items():
        numbers = [found.total(), found["passed"], heads[task, strategy], *(found[state] for state in STATES[1:])]
        text.append(f"| {task} | {strategy} | {' | '.join(map(str, numbers))} |")
    return "\n".join([*text, "", *(reached(task, count) for (task, strategy), count in by_place.items() if strategy == "full")]) + "\n"


def reached(task: str, count: Counter[str]) -> str:
    """Return how many passes are asked for, and how many there could be at most."""
    most = count.total() - count["not built"]
    return (f"- {task}: {count['passed']} pass with `full`; {ASKED[task]} are asked for. At most {most} of {count.total()} could: of "
            f"{count['not built']} no tiny model could be made.")


def of_task(task: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lists of a task."""
    text = [f"## {task}\n"]
    passed = [line for line in lines if line["state"] == "passed"]
    names = {(line["model_type"], line["strategy"]) for line in passed}
    types = sorted({name for name, _ in names})
    strategies = sorted({line["strategy"] for line in lines})
    whole = [name for name in types if all((name, strategy) in names for strategy in strategies)]
    ours = {line["model_type"] for line in passed if line.get("head")}
    text.append(paragraph(f"Passed with {' and '.join(strategies)}, by a class of transformers", [name for name in whole if name not in ours]))
    text.append(paragraph(f"Passed with {' and '.join(strategies)}, by a head of hubtune's", [name for name in whole if name in ours]))
    text.append(paragraph("Outputs change with padding, so that rows of one length share a batch, in training and afterwards",
                          sorted({line["model_type"] for line in passed if line.get("padding")})))
    rest = [line for line in lines if line["state"] != "passed"]
    if rest:
        text += ["| architecture | strategy | | reason |", "|---|---|---|---|"]
        text += [f"| {line['model_type']} | {line['strategy']} | {line['state']} | {plain(line.get('reason') or '')} |"
                 for line in sorted(rest, key=lambda one: (STATES.index(one["state"]), one["model_type"], one["strategy"]))]
    return "\n".join(part for part in text if part) + "\n"


def paragraph(title: str, names: Sequence[str]) -> str:
    """Return a list of architectures as a paragraph; empty without any."""
    return f"{title} ({len(names)}): {', '.join(names)}.\n" if names else ""


def plain(reason: str) -> str:
    """Return a reason for a cell, in words where it is a library's, without paths and line breaks."""
    for pattern, words in WORDS:
        if re.fullmatch(pattern, " ".join(reason.split())):
            reason = re.sub(pattern, words, " ".join(reason.split()))
            break
    return re.sub(r"\s+", " ", reason).replace("|", "\\|").strip()[:220]
