"""What every plugin class has: a name, a summary, options, and the packages it requires."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Generic, TypeVar

from hubtune.options import NoOptions

CONTRACT = 2
"""The version of this contract. A plugin class says `contract = 2`: what it was written for."""

OptionsT = TypeVar("OptionsT")


class Plugin(ABC, Generic[OptionsT]):
    """What tasks and strategies share: a name, a line of summary, options, and what they need installed."""

    contract: ClassVar[int]
    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    requires: ClassVar[tuple[str, ...]] = ()
    """Packages to be importable, beyond hubtune's own; checked before anything is fetched."""
    extra: ClassVar[str | None] = None
    """What to install when one is missing, such as `hubtune[peft]`; none: the packages themselves."""

    options: OptionsT

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options = self.Options() if options is None else options
