"""The base class of all plugins: a name, a summary, options, and the packages it requires."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from hubtune.options import NoOptions

CONTRACT = 2
"""The version of this contract. A plugin class says `contract = 2`: what it was written for."""

OptionsT = TypeVar("OptionsT")


class Plugin(ABC, Generic[OptionsT]):
    """Base class of plugins: a name, a line of summary, options, and what they need installed."""

    contract: ClassVar[int]
    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    requires: ClassVar[tuple[str, ...]] = ()
    """Packages to be importable, beyond hubtune's own; checked before anything is fetched."""
    extra: ClassVar[str | None] = None
    """Requirement to install when one is missing, such as `hubtune[peft]`; none: the packages themselves."""

    options: OptionsT

    @classmethod
    def for_options(cls, values: Mapping[str, Any]) -> type[Plugin[Any]]:
        """The class to make with these options. Default: this one.

        A family of methods behind one name returns a subclass here, with the `Options` of the method that is chosen.

        Args:
            values: Options by name as the recipe gives them, not checked yet.

        Raises:
            RecipeError: An option that chooses the method has no such value.
        """
        return cls

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options = self.Options() if options is None else options
