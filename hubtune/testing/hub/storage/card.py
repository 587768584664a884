"""The YAML front matter of a README: reading it, finding what is wrong with it, and the tags that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A(?:\ufeff)?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LISTS = (
    "language",
    "license",
    "tags",
    "datasets",
    "metrics",
    "base_model",
    "task_categories",
    "size_categories",
    "new_version",
)
_STRINGS = ("pipeline_tag", "library_name", "base_model_relation", "pretty_name", "license_name", "license_link")
_RELATIONS = ("adapter", "finetune", "merge", "quantized")
_RESULT_KEYS = ("task", "dataset", "metrics")


def read(readme: str) -> dict[str, Any]:
    """The front matter, empty where there is none or where it cannot be read."""
    try:
        data = _load(readme)
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def problems(readme: str, kind: str) -> tuple[list[str], list[str]]:
    """The errors, which make the Hub refuse the README, and the warnings."""
    try:
        data = _load(readme)
    except yaml.YAMLError as error:
        return [f"YAML metadata cannot be read: {error}"], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping"], []
    errors = list(_errors(data))
    warnings = []
    if kind == "model" and "base_model_relation" in data and data["base_model_relation"] not in _RELATIONS:
        errors.append(f'"base_model_relation" must be one of {", ".join(_RELATIONS)}')
    if data.get("license") == "other" and "license_name" not in data:
        warnings.append('"license: other" should come with "license_name" and "license_link"')
    return errors, warnings


def tags(data: dict[str, Any], kind: str) -> list[str]:
    """The tags the Hub shows for a card, in the order it shows them."""
    found = [*_texts(data.get("tags")), *_texts(data.get("language"))]
    if kind == "model":
        bases, relation = _texts(data.get("base_model")), data.get("base_model_relation")
        found += [f"dataset:{one}" for one in _texts(data.get("datasets"))]
        found += [f"base_model:{one}" for one in bases]
        found += [f"base_model:{relation}:{one}" for one in bases if relation]
        found += ["model-index"] if data.get("model-index") else []
    else:
        for key in (
            "task_categories",
            "task_ids",
            "language",
            "size_categories",
            "annotations_creators",
            "multilinguality",
        ):
            found += [f"{key}:{one}" for one in _texts(data.get(key))]
    found += [f"license:{one}" for one in _texts(data.get("license"))]
    return found


def _load(readme: str) -> Any:
    match = _FRONT_MATTER.match(readme)
    return _plain(yaml.safe_load(match[1])) if match else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    # YAML makes dates of what looks like one; JSON, in which the card is served, has none.
    return value.isoformat() if isinstance(value, date) else value


def _errors(data: dict[str, Any]) -> Iterator[str]:
    for key in _LISTS:
        if data.get(key) is not None and not _is_texts(data[key]):
            yield f'"{key}" must be a string or a list of strings'
    for key in _STRINGS:
        if data.get(key) is not None and not isinstance(data[key], str):
            yield f'"{key}" must be a string'
    index = data.get("model-index")
    if index is None:
        return
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for at, model in enumerate(index):
        yield from _index_errors(f"model-index[{at}]", model)


def _index_errors(where: str, model: Any) -> Iterator[str]:
    if not isinstance(model, dict) or not model.get("name"):
        yield f'"{where}.name" is required'
        return
    if not isinstance(model.get("results"), list):
        yield f'"{where}.results" must be an array'
        return
    for at, result in enumerate(model["results"]):
        for key in _RESULT_KEYS:
            if not isinstance(result, dict) or key not in result:
                yield f'"{where}.results[{at}].{key}" is required'


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
