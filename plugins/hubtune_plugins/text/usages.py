"""Python for model cards: how a published model is used with transformers alone."""

from __future__ import annotations

from typing import Any


def piped(tag: Any, repo: str, text: str, more: Any = "") -> str:
    """A pipeline that is shown a text; `more`: further arguments of it, each after a comma."""
    return f'from transformers import pipeline\n\npipe = pipeline("{tag}", model="{repo}"{more})\nprint(pipe("{text}"))'


def several_labels(repo: str, threshold: float | str) -> str:
    """A pipeline that gives every label above its threshold. threshold: of all, or `auto`, which the configuration has by label."""
    several = piped("text-classification", repo, "What a lovely day", ", top_k=None")
    several = several.replace('print(pipe("What a lovely day"))', 'scores = pipe(["What a lovely day"], truncation=True)[0]')
    limit = 'pipe.model.config.hubtune["thresholds"][found["label"]]' if threshold == "auto" else str(threshold)
    return f'{several}\nprint([found["label"] for found in scores if found["score"] >= {limit}])'


def choosing(repo: str) -> str:
    """There is no pipeline for choices."""
    return CHOOSING.replace("{repo}", repo)


def answering(repo: str) -> str:
    """transformers 5 has no pipeline for answers any more."""
    return ANSWERING.replace("{repo}", repo)


def reranking(repo: str, sigmoid: Any) -> str:
    """Scores of a query's passages; transformers has no pipeline that ranks."""
    return RERANKING.replace("{repo}", repo).replace("{sigmoid}", ".sigmoid()" if sigmoid else "")


CHOOSING = '''import torch
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForMultipleChoice.from_pretrained("{repo}").eval()
question, choices = "The kettle boils. She", ["makes tea.", "swims home.", "is a chair."]
inputs = tokenizer([question] * len(choices), choices, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**{name: value[None] for name, value in inputs.items()}).logits[0]
print(choices[int(logits.argmax())], logits.softmax(-1).tolist())'''

ANSWERING = '''import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForQuestionAnswering.from_pretrained("{repo}").eval()
question, context = "Where does the river rise?", "The river rises in Wales. It flows through four towns to the sea."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt", return_offsets_mapping=True)
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    output = model(**inputs)
outside = torch.tensor([text != 1 for text in inputs.sequence_ids(0)])
start, end = (logits[0].masked_fill(outside, float("-inf")) for logits in (output.start_logits, output.end_logits))
spans = (start[:, None] + end[None, :]).masked_fill(torch.ones(len(start), len(start)).tril(-1).bool(), float("-inf"))
first, last = divmod(int(spans.argmax()), len(start))
print(context[places[first][0] : places[last][1]].strip())'''

RERANKING = '''import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForSequenceClassification.from_pretrained("{repo}").eval()
query, passages = "How do I boil water?", ["Fill the kettle and switch it on.", "The river rises in Wales."]
inputs = tokenizer([query] * len(passages), passages, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs).logits[:, 0]{sigmoid}
for place in scores.argsort(descending=True):
    print(float(scores[place]), passages[place])
# or: sentence_transformers.CrossEncoder("{repo}").rank(query, passages)'''
