"""The thread that writes checkpoints must not cost the training's steps anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

IN_A_PROCESS = """
import json, os, sys
from pathlib import Path
import torch
from hubtune.training.checkpoint import Checkpoint
from hubtune.training.checkpoint_writer import Saver

torch.set_num_threads(2)
weights = torch.zeros(2_000_000) + 1  # starts the pool of OpenMP threads
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
saver = Saver(Path(sys.argv[1]) / "checkpoints", Path(sys.argv[1]) / "log.jsonl")
saver.save({"step-1": Checkpoint({"model": {"weights": weights, "in bf16": weights.bfloat16()}}, {})})
saver.wait()
print(json.dumps(count() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.skipif("openmp" not in torch.__config__.parallel_info().lower(), reason="torch without OpenMP")
def test_the_writing_thread_starts_no_second_pool_of_openmp_threads(tmp_path: Path) -> None:
    """With more OpenMP threads than cores, libgomp's threads sleep between parallel regions."""
    (tmp_path / "log.jsonl").touch()
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, str(tmp_path)], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "2"}, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == 1
