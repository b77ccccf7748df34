"""What all results share: plain data from the core, frozen, compared by value, exact in JSON and pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar, overload

from disagg import _core, _html
from disagg._border import sealed
from disagg._frozen import Frozen
from disagg.errors import SpecError
from disagg.frame import Frame

__all__ = ["Fact", "Result", "Table", "number", "shown", "text", "texts"]

T = TypeVar("T")
TOLD = _core._told()
"""What the single values of an estimate are, as the core documents them."""


def number(value: Any) -> float:
    """Give a number; not-a-number where there is none."""
    return math.nan if value is None else float(value)


def text(value: Any) -> str:
    """Give text; empty where there is none."""
    return "" if value is None else str(value)


def texts(value: Any) -> list[str]:
    """Give a list of texts; empty where there is none."""
    return list(value or [])


def shown(value: Any) -> str:
    """Give a value as a person would write it."""
    if isinstance(value, float):
        return "none" if math.isnan(value) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"  # noqa: PLR2004
    return str(value)


class Fact(Generic[T]):
    """A scalar of a result as a frozen, documented attribute.

    `read` makes its value of what the core gave (None where it gave nothing); without `doc` the core says what it is.
    `of` says where it stands: among the figures, or with all that the result says (``_scalars``).
    """

    def __init__(self, read: Callable[[Any], T], doc: str | None = None, *, of: str = "_figures") -> None:
        self.read, self.__doc__, self.name, self._of = read, doc, "", of

    def __set_name__(self, owner: type, name: str) -> None:
        # A result may come from text that somebody has changed.
        self.name, self.read = name, sealed(self.read, title=f"{owner.__name__}.{name}")
        if self.__doc__ is None:
            self.__doc__ = TOLD[name]

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: Result, owner: type) -> T: ...
    def __get__(self, obj: Result | None, owner: type) -> Self | T:
        return self if obj is None else self.read(getattr(obj, self._of).get(self.name))

    def __set__(self, obj: Result, value: T) -> NoReturn:
        obj.__setattr__(self.name, value)
        raise AssertionError  # pragma: no cover


def Table(doc: str) -> Fact[Frame]:
    """Give a table of a result as such an attribute; empty where the core gave none. `doc`: a row, and the columns."""
    return Fact(lambda found: Frame({}) if found is None else found, doc, of="_frames")


def _rebuild(cls: type[Result], scalars: dict[str, Any], frames: dict[str, Frame]) -> Result:
    return cls(scalars, frames)


class Result(Frozen):
    """Plain data from the core: named values, JSON-able, and named tables. Frozen, compared by value."""

    __slots__ = ("_figures", "_frames", "_given", "_native", "_scalars")

    _figures: dict[str, Any]
    """Named values, without what it is of and was made from."""
    _scalars: dict[str, Any]
    """The same and what it is of and was made from."""
    _frames: dict[str, Frame]
    _native: _core.Priced
    _given: Mapping[str, _core.Spec]
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, scalars: Mapping[str, Any], frames: Mapping[str, Any]) -> None:
        tables = {n: f if isinstance(f, Frame) else Frame(f) for n, f in frames.items()}
        plain = dict(scalars)
        self._set(_scalars=plain, _figures=plain, _frames=tables)

    @classmethod
    def _from_core(cls, payload: tuple[str, dict[str, Any]], inputs: Mapping[str, Any] | None = None) -> Self:
        """Take over what the native core gives: scalars as JSON text, frames as columns; and the inputs."""
        words, frames = payload
        scalars = {**json.loads(words), **({"inputs": dict(inputs)} if inputs else {})}
        return cls(scalars, {n: Frame._from_core(f) for n, f in frames.items()})

    @classmethod
    def _from_native(cls, native: _core.Priced, given: Mapping[str, _core.Spec]) -> Self:
        """Keep what the native core found, and what it was given, until somebody asks."""
        self = cls.__new__(cls)
        self._set(_native=native, _given=given)
        return self

    def __getattr__(self, name: str) -> Any:
        """Take over from the core what is asked for the first time."""
        found: Any
        if name == "_frames":
            found = {n: Frame._from_core(f) for n, f in self._native.frames().items()}
        elif name == "_figures":
            found = self._native.scalars()
        elif name == "_scalars":
            given = {n: s.to_dict() for n, s in self._given.items()}
            found = {**self._figures, **self._native.asked(), "inputs": given}
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        self._set(**{name: found})
        return found

    def _frame(self, name: str) -> Frame:
        return self._frames.get(name, Frame({}))

    def _facts(self) -> list[tuple[str, str]]:
        found = ((n, getattr(self, n)) for n in self._shown)
        return [(n, repr(v) if isinstance(v, (str, bool)) else shown(v)) for n, v in found if v is not None]

    def to_json(self) -> str:
        """Give the result as JSON text; `from_json` gives an equal result back, to the last bit."""
        frames = {n: json.loads(f.to_json()) for n, f in self._frames.items()}
        return json.dumps({"scalars": self._scalars, "frames": frames}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a result back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If the text is not such a result.
        """
        try:
            data = json.loads(text)
            return cls(data["scalars"], {n: Frame.from_json(json.dumps(f)) for n, f in data["frames"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise SpecError([("json", f"is not a result: {e}", "give the text that to_json() gave")]) from e

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if type(self) is not type(other):
            return NotImplemented
        return self._scalars == other._scalars and self._frames == other._frames

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """One line with the main facts."""
        return f"{type(self).__name__}({', '.join(f'{n}={v}' for n, v in self._facts())})"

    def _repr_html_(self) -> str:
        return _html.table(type(self).__name__, [], [list(f) for f in self._facts()])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the plain data."""
        return _rebuild, (type(self), self._scalars, self._frames)
