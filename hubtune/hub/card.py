"""The model card, rendered from `run.json` alone, so that it claims only what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from hubtune.hub import markdown
from hubtune.hub.origin import pinned_address
from hubtune.recipe import without_none

PLACE = "NAMESPACE/NAME"
"""Placeholder for a repository that has no name yet."""
LOADERS = {
    "transformers": "with transformers alone", "peft": "with PEFT alone, over its base model",
    "head": "with transformers alone and the code beside its weights, which is hubtune's file models/heads/modeling.py: "
    "it runs only if you trust it, so read it first, and name the commit that you read",
    "code": "with transformers alone and the code beside its weights, which runs only if you trust it: "
    "read it first, and name the commit that you read",
}
TEMPLATE = """\
# {{ title }}

{{ summary }}

| | |
|---|---|
| task | {{ record.task.name }} ({{ record.task.summary|plain }}{{ of_plugin(record, "task") }}) |
| base model | {{ base_line }} |
| strategy | {{ record.strategy.name }}: {{ record.strategy.summary|plain }}{{ of_plugin(record, "strategy") }}{% if record.strategy.paper %} ({{ record.strategy.paper }}){% endif %} |
{% if record.get("head") %}| head | {{ record.head|plain }} |
{% endif %}{% if record.get("loss") %}| loss | {{ record.loss.name }}: {{ record.loss.summary|plain }}{{ of_plugin(record, "loss") }}{% if record.loss.paper %} ({{ record.loss.paper }}){% endif %} |
{% endif %}| data | {{ data_line }} |
| licence | {{ license_line }} |
{% if labels %}
Labels: {{ labels }}.
{% endif %}
## Results
{% for split, metrics in record.metrics.items() %}
On {{ record.data.rows[split] }} rows of {{ split }}{% if split == "validation" and not record.get("cross_validation") %} (used to choose the weights, so scores are optimistic){% endif %}:

| metric | value | 95% interval | always the same answer |
|---|---|---|---|
{% for name, value in metrics.items() %}| {{ name|plain }} | {{ "%.4f"|format(value) }} | {{ interval(split, name) }} | {{ baseline(split, name) }} |
{% endfor %}{% for warning in record.get("score_warnings", {}).get(split, ()) %}
> **{{ warning|plain }}**.
{% endfor %}{% endfor %}
{% set folds = record.get("cross_validation") %}{% if folds %}Cross-validated on {{ folds.folds|length }} folds of train before this training: {{ folds.metric|plain }} {{ "%.4f"|format(folds.mean) }}, standard deviation {{ "%.4f"|format(folds.standard_deviation) }}.

{% endif %}{% for note in record.get("decisions", {}).get("notes", ()) %}Decisions: {{ note|plain }}.

{% endfor %}{% for split, found in record.get("undecided", {}).items() if found %}Without these decisions, on {{ split }}: {% for name, value in found.metrics.items() %}{{ name|plain }} {{ "%.4f"|format(value) }}{{ ", " if not loop.last }}{% endfor %}.

{% endfor %}
{% for warning in record.warnings %}> {{ warning|plain }}

{% endfor %}
## Use

{{ snippet }}

It loads {{ loader }}. {{ verification_line }}

## Training

{{ record.steps }} steps of {{ record.settings.batch_size }} rows ({{ "%.1f"|format(record.epochs) }} epochs), {{ record.parameters.trainable }} of {{ record.parameters.total }} parameters trained, in {{ record.compute.precision }}, in {{ "%.0f"|format(record.seconds) }} seconds.
{{ lengths_line }}{% if record.get("published_dtype", "float32") != "float32" %}
The weights were rounded to {{ record.published_dtype }} after training; the results and the comparison above are of the rounded weights, computed in float32.{% endif %}

To run it again, save this as `recipe.toml`, name your copy of the data, and run `hubtune train recipe.toml`:

{{ recipe }}

Made with hubtune {{ record.versions.hubtune }}, {{ versions }}.
"""


def render(record: Mapping[str, Any], repo: str | None = None) -> str:
    """Render a model's README.md, with its metadata.

    Args:
        record: contents of `run.json`.
        repo: the repository that it will be published in, if known.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["plain"] = markdown.plain
    versions = record["versions"].items()
    body = environment.from_string(TEMPLATE).render(
        record=record, title=markdown.plain((repo or record["name"]).split("/")[-1]), summary=summary(record),
        base_line=base_line(record), data_line=data_line(record), license_line=markdown.plain(license_of(record) or "") or
        "**not known**: the base model's card names none. Find out before you use or share this "
        "model.",
        labels=", ".join(map(markdown.code, record["facts"].get("labels", ()))),
        snippet=markdown.block(snippet(record, repo), "python"), of_plugin=of_plugin, loader=LOADERS["head" if record.get("head") else record["loads_with"]],
        interval=lambda split, name: interval(record, split, name),
        baseline=lambda split, name: baseline(record, split, name),
        verification_line=verification_line(record), lengths_line=lengths_line(record),
        recipe=markdown.block(portable_recipe(record), "toml"),
        versions=", ".join(f"{name} {version}" for name, version in versions if name != "hubtune"),
    )
    return f"---\n{metadata(record, repo)}\n---\n{body}"


def interval(record: Mapping[str, Any], split: str, name: str) -> str:
    """Format the interval of a metric, or the reason for which it has none."""
    if bounds := record["intervals"][split].get(name):
        return "{:.4f} to {:.4f}".format(*bounds)
    reason = record.get("no_intervals", {}).get(split, {}).get(name)
    return f"none: {markdown.plain(reason)}" if reason else ""


def baseline(record: Mapping[str, Any], split: str, name: str) -> str:
    """Format what a constant answer scores, where it is known."""
    found = record.get("baselines", {}).get(split, {}).get(name)
    return f"{found['value']:.4f} ({markdown.plain(found['answer'])})" if found else ""


def of_plugin(record: Mapping[str, Any], kind: str) -> str:
    """Name the distribution of a third-party plugin, which prediction with hubtune needs."""
    plugin = record.get("plugins", {}).get(kind)
    if not plugin or plugin["distribution"] == "hubtune":
        return ""
    return f"; of {plugin['distribution']} {plugin['version']}"


def summary(record: Mapping[str, Any]) -> str:
    """Describe the model in one sentence."""
    return f"A {record['task']['name']} model: {markdown.plain(record['task']['summary'])}."


def base_line(record: Mapping[str, Any]) -> str:
    """Name the base model and its commit or hash."""
    base = record["base"]
    adapter = base.get("adapter")
    more = "" if adapter is None else f", with the adapter {origin_line(adapter)} merged into it"
    return origin_line(base) + more


def origin_line(base: Mapping[str, Any]) -> str:
    """Name a model and its commit or hash."""
    if base["local"]:
        return f"a local folder, identified by the hash of its files: `{base['commit']}`"
    return f"[{base['repo']}](https://huggingface.co/{base['repo']}/tree/{base['commit']}) at `{base['commit']}`"


def data_line(record: Mapping[str, Any]) -> str:
    """Name the data with its rows and fingerprint."""
    data = record["data"]
    rows = ", ".join(f"{count} {split}" for split, count in data["rows"].items())
    page = f"https://huggingface.co/datasets/{data['repo']}"
    name = data["name"]
    where = f"[{markdown.plain(name)}]({page})" if data["repo"] else markdown.code(name, table=True)
    return f"{where}: {rows} rows; fingerprint `{data['fingerprint'][:16]}`"


def license_of(record: Mapping[str, Any]) -> str | None:
    """Return the licence that the user chose, else the base model's; None if neither is known."""
    chosen = record["recipe"]["publish"].get("license") or record["base"]["license"]
    return None if chosen in (None, "unknown") else str(chosen)


def snippet(record: Mapping[str, Any], repo: str | None) -> str:
    """Return the code that uses the model without hubtune."""
    usage = str(record["usage"])
    if record["loads_with"] == "code":
        usage = with_code(usage)
    return usage.replace(PLACE, repo or PLACE)


def with_code(usage: str) -> str:
    """Make a snippet load the model at a commit whose code the user has read."""
    trusted = f'"{PLACE}", revision=COMMIT, trust_remote_code=True'
    text = usage.replace(f'from_pretrained("{PLACE}"', f"from_pretrained({trusted}")
    return (
        "# This model comes with code. Read it, and name the commit that you have read: "
        "the full hash.\n"
        'COMMIT = "..."\n' + text.replace(f'model="{PLACE}"', f"model={trusted}"))


def verification_line(record: Mapping[str, Any]) -> str:
    """Say what was verified of the saved files: that they are the trained model, not how good it is."""
    proof = record.get("proof")
    if not proof:
        return "Its files were not compared with the trained model."
    text = (
        "Before publishing, its files were loaded in a clean process without hubtune and compared "
        f"with the trained model: the same outputs on {proof['examples']} examples (largest "
        f"difference {proof['largest_difference']:.1e})")
    asked = proof.get("asked")
    if asked:
        text += (f", and the same answers on {asked['rows']} rows that were asked as in the code "
                 "above, through the published tokenizer or processor and configuration")
    return text + ". That says nothing of how good its answers are: see the results."


def lengths_line(record: Mapping[str, Any]) -> str:
    """Say how many training rows were truncated."""
    lengths = record["lengths"]
    if not lengths["rows_cut"]:
        return f"No training row was truncated (the longest has {lengths['longest']} tokens)."
    return (
        f"{lengths['rows_cut']} of {lengths['rows']} training rows were truncated at "
        f"{lengths['max_length']} tokens, "
        f"which removed {lengths['tokens_cut']} of {lengths['tokens']} tokens."
    )


def portable_recipe(record: Mapping[str, Any]) -> str:
    """Return the recipe as TOML, without values of this machine."""
    import tomlkit

    return tomlkit.dumps(portable_tables(record))


def portable_tables(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables of the recipe, without values of this machine."""
    tables = {name: dict(table) for name, table in record["recipe"].items() if name not in ("publish", "report")}
    base, data = record["base"], record["data"]
    source = base.get("adapter", base)
    tables["model"]["id"] = "YOUR-COPY-OF-THE-BASE-MODEL" if source["local"] else pinned_address(source)
    tables["data"]["source"] = f"{data['name']}@{data['commit']}" if data["repo"] else data["name"]
    if isinstance(tables["data"].get("validation"), str):
        tables["data"]["validation"] = "YOUR-VALIDATION-DATA"
    tables["train"] = {**record["settings"], "plan": None}
    if record.get("published_dtype", "float32") != "float32":
        tables["publish"] = {"dtype": record["recipe"]["publish"]["dtype"]}
    return without_none(tables)


def metadata(record: Mapping[str, Any], repo: str | None) -> str:
    """Return the YAML header, which the Hub's filters, widget and results table read."""
    from huggingface_hub import EvalResult, ModelCardData

    base, data = record["base"], record["data"]
    results = [
        EvalResult(
            task_type=record["task"]["pipeline_tag"], dataset_type=data["repo"] or "custom",
            dataset_name=data["name"], dataset_split=split, dataset_revision=data["commit"],
            metric_type=name, metric_value=round(value, 6),
        )
        for split, metrics in record["metrics"].items() for name, value in metrics.items()
        if isfinite(value)
    ]
    license = license_of(record)
    more: dict[str, Any] = {}
    if license == "other" and license == base["license"]:
        more |= {key: base[key] for key in ("license_name", "license_link") if base[key]}
    source = base.get("adapter", base)
    if not source["local"]:
        more |= {"base_model": source["repo"], "base_model_relation": record["base_model_relation"]}
    card = ModelCardData(
        language=record["recipe"]["publish"].get("language") or base["language"], license=license,
        library_name="peft" if record["loads_with"] == "peft" else "transformers",
        pipeline_tag=record["task"]["pipeline_tag"],
        tags=["hubtune", record["task"]["name"], record["strategy"]["name"]],
        datasets=[data["repo"]] if data["repo"] else None,
        metrics=sorted(next(iter(record["metrics"].values()), {})),
        model_name=(repo or record["name"]).split("/")[-1], eval_results=results, **more,
    )
    return card.to_yaml().strip()
