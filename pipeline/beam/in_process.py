"""Lets the steps of a job share an object where all of them run in the process that starts it. No Beam here."""

from __future__ import annotations

import itertools
from typing import ClassVar
from weakref import WeakValueDictionary


class InProcess:
    """Is one object for the launcher and all steps.

    Beam pickles what steps refer to. Pickling gives only the name of this object, which lasts as long as the launcher
    refers to it. In another process nothing has that name.
    """

    _by_name: ClassVar[WeakValueDictionary[int, InProcess]] = WeakValueDictionary()
    _names = itertools.count()

    def __init__(self) -> None:
        self._name = next(self._names)
        self._by_name[self._name] = self

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return _named, (self._name,)


def _named(name: int) -> InProcess:
    return InProcess._by_name[name]
