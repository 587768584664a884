"""Exported files: largest difference, size, CPU seconds beside PyTorch, and the score of int8.

    python -m benchmarks.exporting --run RUN [--run RUN]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import hubtune

RESULTS = Path(__file__).with_name("results") / "exporting.json"
ROUNDS = 5


def seconds(function: Any) -> float:
    """Return the CPU seconds of a call, the least of some."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def measured(run: str, place: Path) -> dict[str, Any]:
    """Export a run as ONNX with int8, and time a batch of its largest proof shape in both libraries."""
    import numpy as np
    import onnxruntime
    import torch

    out = place / "onnx"
    document = hubtune.export(run, out=out, int8=True)
    model, _ = hubtune.load(run).load_weights()
    shapes = document["proof"]["shapes"][-1]
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, shape in shapes.items():
        if document["inputs"][name]["dtype"] == "float32":
            arrays[name] = rng.standard_normal((16, *shape[1:]), np.float32)
        else:
            high = 100 if name == "input_ids" else 1
            arrays[name] = rng.integers(1, high + 1, (16, 64)) if name != "token_type_ids" else np.zeros((16, 64), np.int64)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    timed = {}
    with torch.no_grad():
        model(**tensors)
        timed["torch_ms"] = 1000 * seconds(lambda: model(**tensors))
    for name, file in (("onnx_ms", document["file"]), ("int8_ms", document["int8"]["file"])):
        session = onnxruntime.InferenceSession(str(out / file), options, providers=["CPUExecutionProvider"])
        session.run(None, arrays)
        timed[name] = 1000 * seconds(lambda session=session: session.run(None, arrays))
    return {"task": document["task"], "model": type(model).__name__, "batch": {name: list(value.shape) for name, value in arrays.items()},
            "bytes": document["bytes"], "largest_difference": document["proof"]["largest_difference"], "int8": document["int8"],
            **{name: round(value, 2) for name, value in timed.items()}}


def main() -> None:
    """Measure some runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", action="append", required=True)
    found = []
    for run in parser.parse_args().run:
        with tempfile.TemporaryDirectory() as place:
            found.append(measured(run, Path(place)))
        print(json.dumps(found[-1]), flush=True)
    RESULTS.write_text(json.dumps({"load": os.getloadavg()[0], "threads": os.environ.get("OMP_NUM_THREADS"), "runs": found}, indent=1) + "\n",
                       encoding="utf-8")


if __name__ == "__main__":
    main()
