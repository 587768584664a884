"""The start of the command line's process."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hubtune.devices import memory


@pytest.fixture
def collector() -> Iterator[None]:
    """Leave the garbage collector of this process as it was."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    yield
    memory.usual_thresholds.clear()
    gc.set_threshold(*before)
    if not frozen:
        gc.unfreeze()


def test_objects_of_libraries_are_never_visited_once_they_are_imported(collector: None) -> None:
    """While torch and transformers are imported, Python visited them again and again: a quarter of the time."""
    memory.usual_thresholds.clear()
    gc.set_threshold(701, 11, 12)
    memory.postpone_collection()
    memory.postpone_collection()  # as a second command in one process does
    assert gc.get_threshold()[0] == memory.ALLOCATIONS
    memory.resume_collection()
    assert gc.get_threshold() == (701, 11, 12)
    assert gc.get_freeze_count() > 10_000


def test_a_program_that_uses_the_library_keeps_its_collector(collector: None) -> None:
    memory.usual_thresholds.clear()
    gc.set_threshold(703, 11, 12)
    gc.unfreeze()
    memory.resume_collection()
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((703, 11, 12), 0)


def test_the_command_line_collects_rarely_while_it_imports() -> None:
    code = "import gc; from hubtune.cli.commands import main; main(['--version']); print(gc.get_threshold()[0], gc.isenabled())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{memory.ALLOCATIONS} True"


def test_help_imports_no_more_than_it_prints() -> None:
    """It lists the commands of plugins, so their contract is there; recipes, data and hashes are not."""
    code = ("import sys; from hubtune.cli.commands import main; main(['--help']); "
            "print([name for name in sys.modules if name in ('hashlib', 'tomllib', 'rich', 'hubtune.recipe', 'hubtune.api') "
            "or name.startswith('hubtune.data')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "compare" in done.stdout
