"""Settings of `datasets`: a cache folder that can be written, and no progress bars."""

from __future__ import annotations

import functools
import logging
import tempfile
from pathlib import Path

from hubtune import guest, temporary

log = logging.getLogger(__name__)


def folder() -> str | None:
    """Return a temporary folder where the cache of `datasets` cannot be written; None where it can."""
    from datasets import config

    return replacement(Path(config.HF_DATASETS_CACHE).expanduser())


@functools.cache
def replacement(wanted: Path) -> str | None:
    """Return a folder that is kept until this process ends, if `wanted` cannot be written."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return None
    except OSError as error:
        made = kept(wanted)
        log.warning("the cache %s cannot be written (%s); data is read into %s for this run. Choose "
                    "another with: export HF_HOME=FOLDER", wanted, error.strerror, made.path)
        return str(made.path)


@functools.cache
def kept(wanted: Path) -> temporary.Folder:
    """Make a temporary folder that lasts as long as the process."""
    return temporary.Folder()


def quiet() -> None:
    """Disable the progress bars of `datasets` until the current API call ends."""
    import datasets

    if datasets.are_progress_bars_disabled():
        return
    datasets.disable_progress_bars()
    guest.defer(datasets.enable_progress_bars)
