"""Python for model cards: how a published model is used with transformers alone."""

from __future__ import annotations

from typing import Any

PROVEN = 32
"""Tokens that are generated for a row of the proof at most."""


def continuing(repo: str, chat: Any, most: Any, ends: Any) -> str:
    """A decoder, asked a question in a `chat` or for more of a text. most: new tokens. ends: ids that end an answer."""
    asked = '[{"role": "user", "content": "What a lovely day"}]' if chat else '"Once upon a time"'
    answer = '[-1]["content"]' if chat else ""
    return f'''from transformers import pipeline

pipe = pipeline("text-generation", model="{repo}")
found = pipe({asked}, max_new_tokens={most}, do_sample=False, eos_token_id={ends})
print(found[0]["generated_text"]{answer})'''


def rewriting(repo: str, prefix: Any, arguments: Any) -> str:
    """An encoder with a decoder. prefix: what stands before every text. arguments: those of `generate`."""
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f'''from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForSeq2SeqLM.from_pretrained("{repo}")
inputs = tokenizer("{prefix}What a lovely day", return_tensors="pt")
written = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], {given})
print(tokenizer.decode(written[0], skip_special_tokens=True))'''


TALK = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Well, thank you."}]


def rewarding(repo: str, end: Any, special: Any) -> str:
    """A reward model, asked for the score of a conversation. end: what comes after the template's text. special: whether the
    tokenizer adds special tokens."""
    more = f" + {end!r}" if end else ""
    return f'''import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForSequenceClassification.from_pretrained("{repo}").eval()
messages = {TALK}
text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip(){more}
inputs = tokenizer(text, add_special_tokens={special}, return_tensors="pt")
with torch.no_grad():
    score = float(model(**inputs).logits[0, 0])
print(score)'''
