"""Files beside an exported one: how to use it, and its proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubtune.contract import Base, Graph

MANIFEST = "export.json"
"""File that says what a folder of exported files holds; of a repository, such a folder belongs to the weights beside it."""


def described(graph: Graph) -> dict[str, Any]:
    """Return inputs and outputs of a graph as JSON; an axis that varies has its name in place of its size."""
    inputs = {name: {"dtype": str(value.dtype).removeprefix("torch."),
                     "shape": [graph.axes[name].get(axis, size) for axis, size in enumerate(value.shape)]}
              for name, value in graph.inputs.items()}
    return {"inputs": inputs, "outputs": list(graph.outputs)}


def labels_of(config: Any, task_model: str) -> list[str]:
    """Return the names of a classifier's labels, in the order of the logits."""
    names = getattr(config, "id2label", None) or {}
    if not task_model.endswith("Classification"):
        return []
    return [str(names[key]) for key in sorted(names)]


def write(folder: Path, document: Mapping[str, Any], base: Base, usage: str) -> None:
    """Write the processor, the configuration, the manifest and a page beside an exported file."""
    base.processor.save_pretrained(folder)
    base.config.save_pretrained(folder)
    (folder / MANIFEST).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(document, usage), encoding="utf-8")


def page(document: Mapping[str, Any], usage: str) -> str:
    """Return the page of an exported file."""
    proof, quantized = document["proof"], document["int8"]
    inputs = "\n".join(f"| `{name}` | {value['dtype']} | ({', '.join(map(str, value['shape']))}) |" for name, value in document["inputs"].items())
    lines = [
        f"# {document['file']}", "",
        f"A model for {document['task']}, exported by hubtune as {document['format']}. In a clean process, its outputs on "
        f"{proof['batches']} batches of other shapes than it was traced with are those of the trained model, to "
        f"{proof['largest_difference']:.1e} (largest output {proof['largest_output']:.3g}).", "",
        "```python", usage.strip(), *example(document), "```", "",
        "| input | type | shape |", "|---|---|---|", inputs, "",
        f"Outputs: {', '.join(f'`{name}`' for name in document['outputs'])}."]
    if document["labels"]:
        lines += ["", f"Labels, in the order of the logits: {', '.join(json.dumps(name, ensure_ascii=False) for name in document['labels'])}."]
    if quantized:
        lines += ["", f"`{quantized['file']}` has int8 weights ({quantized['bytes'] / document['bytes']:.0%} of the size): {quantized['text']}"]
    return "\n".join(lines) + "\n"


def example(document: Mapping[str, Any]) -> list[str]:
    """Return Python that makes inputs from a text; none for other inputs."""
    if "input_ids" not in document["inputs"]:
        return []
    return ["", "", "from transformers import AutoTokenizer", "", 'tokenizer = AutoTokenizer.from_pretrained(".")',
            'inputs = tokenizer(["What a lovely day"], return_tensors="np")',
            f"print(run({{name: inputs[name] for name in {list(document['inputs'])}}}))"]
