"""Run saved models on recorded inputs without hubtune: the clean process of `verification`.

Started as a script in a process that cannot import hubtune: `python -I clean_process.py JOBS`, with
a JSON list of {folder, model, loads_with, base, config, inputs, outputs}. Writes `outputs`, or the
error to `outputs.error`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Job = dict[str, Any]

COMPARED = ("logits", "pred_boxes", "start_logits", "end_logits", "last_hidden_state")
"""Fields of a model's output that are compared, where it has them."""


def compared_outputs(outputs: Any) -> dict[str, Any]:
    """Return the tensors of a model's output that are compared, by name, in fp32 on the CPU."""
    found = {name: getattr(outputs, name, None) for name in COMPARED}
    return {
        name: value.detach().float().cpu().contiguous()
        for name, value in found.items()
        if value is not None
    }


def load(job: Job, dtype: Any) -> Any:
    """Load a model as its card says: by transformers alone, PEFT over its base, or its code."""
    import transformers

    auto = getattr(transformers, job["model"])
    local = {"use_safetensors": True, "local_files_only": True, "dtype": dtype}
    if job["loads_with"] == "peft":
        from peft import PeftModel

        config = transformers.AutoConfig.from_pretrained(job["base"], local_files_only=True)
        for name, value in job["config"].items():
            value = (
                {int(key): label for key, label in value.items()} if name == "id2label" else value
            )
            for part in (config, config.get_text_config()):
                if part is config or hasattr(part, name):
                    setattr(part, name, value)
        base = auto.from_pretrained(
            job["base"], config=config, ignore_mismatched_sizes=True, **local
        )
        return PeftModel.from_pretrained(base, job["folder"])
    return auto.from_pretrained(
        job["folder"], trust_remote_code=job["loads_with"] == "code", **local
    )


def run(job: Job) -> None:
    """Read batches named `0.input_ids`, and write the model's outputs as `0.logits`."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(job["inputs"])
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    model = load(job, dtype).eval()
    batches: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        batches.setdefault(number, {})[key] = value
    outputs: dict[str, Any] = {}
    with torch.no_grad():
        for number, batch in batches.items():
            outputs |= {
                f"{number}.{name}": value
                for name, value in compared_outputs(model(**batch)).items()
            }
    save_file(outputs, job["outputs"])


def main(jobs: str) -> None:
    """Run every job; one that fails writes its error and does not stop the others."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        try:
            run(job)
        except Exception as error:
            Path(f"{job['outputs']}.error").write_text(
                f"{type(error).__name__}: {error}", encoding="utf-8"
            )


if __name__ == "__main__":
    sys.modules["hubtune"] = None  # type: ignore[assignment]  # an import of it is an error here
    main(sys.argv[1])
