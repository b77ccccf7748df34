"""Frozen objects: attributes are set once, while the object is made, and a copy is the object itself."""

from __future__ import annotations

from typing import Any, NoReturn, Self

__all__ = ["Frozen"]


class Frozen:
    """Base of what never changes once it is made."""

    __slots__ = ()

    def _set(self, **values: Any) -> None:
        """Set attributes while the object is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: it is frozen."""
        raise AttributeError(f"{type(self).__name__} is frozen; {name} stays")

    def __copy__(self) -> Self:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it is frozen."""
        return self
