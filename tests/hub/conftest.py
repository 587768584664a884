"""Files that the tests of the Hub publish."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files to publish."""
    place = tmp_path / "stage"
    place.mkdir()
    (place / "README.md").write_text("---\nlicense: mit\n---\n# Test\n", encoding="utf-8")
    (place / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (place / "model.safetensors").write_bytes(bytes(2000))
    return place
