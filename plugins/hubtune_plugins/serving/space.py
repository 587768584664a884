"""A Gradio Space for a published model: an app that loads it with transformers alone, at the commit that was published."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hubtune import Model, ModelError, RecipeError, Run

GRADIO = "6.31.0"
"""The release of Gradio that the app was tried with."""
LABELS = "gr.Label(num_top_classes=10)"


@dataclass(frozen=True)
class Form:
    """Inputs and outputs of an app. body: of `predict(given)`, which calls `pipe`. needs: packages beyond transformers and torch."""

    body: str
    given: str
    shown: str
    needs: tuple[str, ...] = ()


SCORES = 'return {one["label"]: one["score"] for one in %s}'
FORMS = {
    "text-classification": Form(SCORES % "pipe(given, top_k=None, truncation=True)", 'gr.Textbox(label="Text", lines=4)', LABELS),
    "token-classification": Form(
        'return {"text": given, "entities": pipe(given, aggregation_strategy="simple")}', 'gr.Textbox(label="Text", lines=4)',
        "gr.HighlightedText()"),
    "fill-mask": Form('return {one["sequence"]: one["score"] for one in pipe(given)}',
                      'gr.Textbox(label="Text with one mask", value=f"What a {pipe.tokenizer.mask_token} day", lines=4)', LABELS),
    "text-generation": Form('return pipe(given, max_new_tokens=200, return_full_text=False)[0]["generated_text"]',
                            'gr.Textbox(label="Prompt", lines=4)', 'gr.Textbox(label="Answer", lines=8)'),
    "image-classification": Form(SCORES % "pipe(given)", 'gr.Image(type="pil", label="Image")', LABELS, ("pillow",)),
}
"""Forms by the Hub's name for what a model does."""
APP = '''"""A demo of {repo}, written by hubtune."""

import gradio as gr
from transformers import pipeline

pipe = pipeline("{tag}", model="{repo}", revision="{commit}")


def predict(given):
    if not given:
        raise gr.Error("There is nothing to predict.")
    {body}


demo = gr.Interface(predict, {given}, {shown}, title="{repo}", description="{task}", flagging_mode="never")

if __name__ == "__main__":
    demo.launch()
'''
README = '''---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
models:
- {repo}
---

A demo of [{repo}](https://huggingface.co/{repo}) at `{commit}`, for {task}. It loads the model with transformers alone. Where that repository is private, give the
Space a secret `HF_TOKEN` that may read it.
'''


def published(model: Model) -> tuple[str, str]:
    """Return the repository of a model and its commit.

    Raises:
        RecipeError: it is not published on main.
    """
    if isinstance(model, Run):
        found = model.record.get("published")
        if not found or found.get("pr"):
            raise RecipeError("the run is not published on main, and a Space loads its model from the Hub.", where=str(model.folder),
                              hint=f"Publish it first: hubtune publish {model.folder} REPO")
        return found["repo"], found["commit"]
    if Path(model.name).exists():
        raise RecipeError("a folder is not published, and a Space loads its model from the Hub.", hint="Name the run or the repository.")
    return model.origin.repo, model.origin.commit


def write(model: Model, folder: Path) -> list[str]:
    """Write a Space into a folder; return the names of its files.

    Raises:
        ModelError: the task has no form, or the model needs more than transformers.
    """
    repo, commit = published(model)
    tag = model.task.pipeline_tag
    if tag not in FORMS:
        raise ModelError(f"no Space is written for '{model.task.name}'.", where=repo, hint=f"There are forms for: {', '.join(FORMS)}")
    if model.model_record.get("loads_with", "transformers") != "transformers":
        raise ModelError("it does not load with transformers alone, which the Space's app does.", where=repo,
                         hint="Serve it with: hubtune serve")
    form = FORMS[tag]
    words = {"repo": repo, "commit": commit, "tag": tag, "task": model.task.name, "title": repo.rpartition("/")[2], "gradio": GRADIO,
             "body": form.body, "given": form.given, "shown": form.shown}
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "transformers", *form.needs)]
    files = {"app.py": APP.format(**words), "README.md": README.format(**words), "requirements.txt": "\n".join(pins) + "\n"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(files)
