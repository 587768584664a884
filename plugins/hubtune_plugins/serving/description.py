"""The description of the endpoint: OpenAPI 3.1, and a page of it."""

from __future__ import annotations

import html
import json
from typing import Any

from hubtune import Model
from hubtune_plugins.serving.rows import RowReader

SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string", "minLength": 1}, "words": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1}, "any": {}, "label": {},
}
BASE64 = {"type": "object", "properties": {"base64": {"type": "string", "contentEncoding": "base64"}}, "required": ["base64"],
          "additionalProperties": False}
ERRORS = {
    "400": "not JSON", "403": "asked by another name, or by another site's page", "408": "the body did not come in time",
    "413": "too large: body, rows, texts, images or sound", "415": "not JSON, a form, an image or a sound",
    "422": "a row is wrong", "500": "the model failed", "503": "too many rows wait: see Retry-After", "504": "no answer in time",
}


def row_schema(reader: RowReader) -> dict[str, Any]:
    """Return the schema of a row."""
    properties = {role: SCHEMAS.get(column.kind, BASE64) for role, column in reader.columns.items()}
    return {"type": "object", "properties": properties, "required": reader.needed, "additionalProperties": False}


def operation(summary: str, body: Any, example: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a POST."""
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"post": {
        "summary": summary, "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {"200": {"description": "answers", "content": {"application/json": {"schema": answer}}},
                      **{status: {"description": text, "content": error} for status, text in ERRORS.items()}}}}


def openapi(model: Model, name: str, reader: RowReader, weighs: bool) -> dict[str, Any]:
    """Return the OpenAPI document. name: the model, as clients see it."""
    row = {"$ref": "#/components/schemas/Row"}
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": reader.limits.rows}
    body = {"anyOf": [rows, row, {"type": "object", "properties": {"rows": rows}, "required": ["rows"], "additionalProperties": False}]}
    prediction = {"type": "object", "properties": {"row": {"type": "integer"}}, "required": ["row"]}
    answer = {"type": "object", "properties": {
        "model": {"type": "string"}, "task": {"type": "string"}, "predictions": {"type": "array", "items": prediction}}}
    paths = {"/predict": operation("Predict rows", body, [reader.example], answer),
             "/healthz": {"get": {"summary": "Health", "responses": {"200": {"description": "rows are taken"},
                                                                     "503": {"description": "the server stops"}}}}}
    if weighs:
        paths["/explain"] = operation("Weigh the words of a text", row, reader.example, {"type": "object"})
    return {"openapi": "3.1.0", "info": {"title": f"{name}: {model.task.name}", "version": "1"}, "paths": paths,
            "components": {"schemas": {"Row": row_schema(reader), "Error": {
                "type": "object", "properties": {"error": {"type": "string"}, "hint": {"type": ["string", "null"]}}}}}}


def example_block(command: str) -> str:
    """Return a command in HTML; one wider than the screen can be scrolled by keys, too."""
    return f'<pre tabindex="0" role="group" aria-label="An example">{html.escape(command)}</pre>'


def page(model: Model, name: str, reader: RowReader, weighs: bool, address: str) -> str:
    """Return the page `/docs`. address: of the server, with a slash at its end."""
    columns = "".join(f"<tr><td><code>{role}</code></td><td>{column.kind}</td><td>{'yes' if role in reader.needed else 'no'}</td></tr>"
                      for role, column in reader.columns.items())
    errors = "".join(f"<tr><td>{status}</td><td>{html.escape(text)}</td></tr>" for status, text in ERRORS.items())
    example = json.dumps([reader.example])
    curl = f"curl {address}predict -H 'Content-Type: application/json' -d '{example}'"
    files = [column for column in reader.columns.values() if column.kind in ("image", "audio")]
    sent = "".join(f"<p>A file as it is:</p>{example_block(f'curl {address}predict -F {column.role}=@FILE')}" for column in files)
    more = "<p><code>POST /explain</code> takes one row, and returns how much of the label's probability each word carries.</p>" if weighs else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>API of {html.escape(name)}</title><link rel="stylesheet" href="/page.css"></head><body><main>
<p><a href="/">Try the model</a></p><h1>API</h1><p class="lead">{html.escape(model.task.name)}: {html.escape(model.task.summary)}</p>
<h2>POST /predict</h2><p>A row, a list of rows, or <code>{{"rows": [...]}}</code>; up to {reader.limits.rows} rows.
The answer is that of <code>hubtune predict --json</code>.</p>{example_block(curl)}{sent}
<table><caption>Columns of a row</caption><thead><tr><th>column</th><th>kind</th><th>needed</th></tr></thead><tbody>{columns}</tbody></table>{more}
<h2>Errors</h2><p>As <code>{{"error": "...", "hint": "..."}}</code>.</p>
<table><caption>Status of an answer</caption><thead><tr><th>status</th><th>meaning</th></tr></thead><tbody>{errors}</tbody></table>
<p><code>GET /healthz</code>: health. <a href="/openapi.json">/openapi.json</a>: all this for programs.</p></main></body></html>"""
