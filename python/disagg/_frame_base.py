"""What a Frame is made of: named columns of equal length, frozen, compared by value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from disagg import _core
from disagg._columns import Array, Column, Text, column, same
from disagg._frozen import Frozen
from disagg.errors import SpecError


class FrameBase(Frozen):
    """Named columns: storing, looking, comparing."""

    __slots__ = ("_attrs", "_data")

    _data: dict[str, Column]
    _attrs: dict[str, Any]

    def __init__(self, columns: Mapping[str, Any], *, attrs: Mapping[str, Any] | None = None) -> None:
        self._adopt({str(name): column(str(name), values) for name, values in columns.items()}, attrs or {})

    def _adopt(self, data: dict[str, Column], attrs: Mapping[str, Any]) -> None:
        lengths = {name: len(values) for name, values in data.items()}
        if len(set(lengths.values())) > 1:
            most = max(lengths.values())
            raise SpecError([(n, f"has {k} rows", f"all columns need {most}") for n, k in lengths.items() if k != most])
        held = {n: v if isinstance(v, Text) else v.view() for n, v in data.items()}
        self._set(_data=held, _attrs=dict(attrs))
        for values in self._data.values():
            if not isinstance(values, Text):
                values.flags.writeable = False

    @classmethod
    def _of(cls, data: dict[str, Column], attrs: Mapping[str, Any]) -> Self:
        """Make a frame of columns that are already sound, without a copy."""
        self = cls.__new__(cls)
        self._adopt(data, attrs)
        return self

    @classmethod
    def _from_core(cls, payload: tuple[dict[str, Any], dict[str, str]], **more: Any) -> Self:
        """Take over what the native core gives: arrays as they are, categories as codes and labels; `more`: attrs."""
        columns, attrs = payload
        data: dict[str, Column] = {n: Text(*v) if isinstance(v, tuple) else v for n, v in columns.items()}
        return cls._of(data, {**{k: _attr(v) for k, v in attrs.items()}, **more})

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._data)

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about the whole table (a copy)."""
        return dict(self._attrs)

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(next(iter(self._data.values()))) if self._data else 0

    def __getitem__(self, name: str) -> Array:
        """Give one column as a read-only numpy array."""
        values = self._column(name)
        return values.array() if isinstance(values, Text) else values

    def _column(self, name: str) -> Column:
        if name not in self._data:
            raise SpecError([(str(name), "is not a column", _core.near(str(name), self.columns))])
        return self._data[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column."""
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        """Go through the column names."""
        return iter(self._data)

    def _ipython_key_completions_(self) -> list[str]:
        return self.columns

    def row(self, index: int) -> dict[str, Any]:
        """Give one row as a dict of plain Python values.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        found = {}
        for name, values in self._data.items():
            if isinstance(values, Text):
                code = int(values.codes[index])
                found[name] = None if code < 0 else values.labels[code]
            else:
                found[name] = values[index].item()
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Go through the rows as dicts; for small tables."""
        return (self.row(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Compare columns, their order, values (not-a-number equals itself) and attrs."""
        if not isinstance(other, FrameBase):
            return NotImplemented
        return (
            self.columns == other.columns
            and self._attrs == other._attrs
            and all(same(self._column(n), other._column(n)) for n in self.columns)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays as they are."""
        return _rebuild, (type(self), dict(self._data), self._attrs)


def _rebuild(cls: type[FrameBase], data: dict[str, Column], attrs: dict[str, Any]) -> FrameBase:
    return cls._of(data, attrs)


def _attr(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
