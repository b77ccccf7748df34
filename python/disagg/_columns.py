"""Columns of a Frame: numpy arrays, and text as codes into labels, so that a million rows stay small."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from disagg.errors import SpecError

Array = npt.NDArray[Any]


class Text:
    """A column of text as int32 codes into distinct labels; -1 is None. Frozen.

    Parameters
    ----------
    codes
        One code a row.
    labels
        What the codes mean.
    """

    __slots__ = ("codes", "labels")

    def __init__(self, codes: npt.NDArray[np.int32], labels: Sequence[str]) -> None:
        self.codes = codes.view()
        self.codes.flags.writeable = False
        self.labels = tuple(labels)

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Text:
        """Code the values in order of first appearance."""
        index = {v: i for i, v in enumerate(dict.fromkeys(v for v in values if v is not None))}
        codes = np.fromiter((-1 if v is None else index[v] for v in values), dtype=np.int32, count=len(values))
        return cls(codes, tuple(index))

    def __len__(self) -> int:
        """Rows."""
        return len(self.codes)

    def __getitem__(self, index: Any) -> Text:
        """Rows at `index`, with the same labels."""
        return Text(self.codes[index], self.labels)

    def array(self) -> npt.NDArray[Any]:
        """The text itself: a numpy array of str, or of objects where some are None."""
        some_none = bool((self.codes < 0).any())
        pool = np.array([*self.labels, None], dtype=object) if some_none else np.array(self.labels, dtype=np.str_)
        if not self.labels and not some_none:
            return np.empty(0, dtype=np.str_)
        found: npt.NDArray[Any] = pool[self.codes]
        found.flags.writeable = False
        return found

    def equals(self, value: object) -> npt.NDArray[np.bool_]:
        """Which rows are `value`."""
        wanted = -1 if value is None else next((i for i, v in enumerate(self.labels) if v == value), -2)
        same: npt.NDArray[np.bool_] = self.codes == wanted
        return same

    def __eq__(self, other: object) -> bool:
        """Whether the rows say the same, whatever the codes."""
        if not isinstance(other, Text) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Text) else False
        if self.labels == other.labels:
            return bool(np.array_equal(self.codes, other.codes))
        index = {v: i for i, v in enumerate(other.labels)}
        table = np.array([*(index.get(v, -2) for v in self.labels), -1], dtype=np.int64)
        return bool(np.array_equal(table[self.codes], other.codes))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle codes and labels."""
        return Text, (self.codes, self.labels)


Column = Array | Text


def column(name: str, values: Any) -> Column:
    """One column: floats, integers, truth values, or text."""
    try:
        array = np.array(values)
    except ValueError as e:
        raise SpecError([(name, "is not a list of plain values", "all values need the same shape")]) from e
    if array.ndim != 1:
        raise SpecError([(name, f"a column has one axis, this has {array.ndim}", "give a list of values")])
    if array.dtype.kind in "fiub":
        return array
    if array.size == 0:
        return array.astype(np.float64) if array.dtype.kind != "U" else Text.of([])
    items = array.tolist()
    if all(isinstance(v, (bool, int, float)) or v is None for v in items):
        return np.array([np.nan if v is None else float(v) for v in items])
    if all(isinstance(v, str) or v is None for v in (values if isinstance(values, list) else items)):
        return Text.of(items)
    raise SpecError([(name, "holds values that are neither numbers nor text", "give plain values")])


def ranks(values: Column) -> npt.NDArray[np.intp]:
    """Give each row the rank of its value; None comes first, not-a-number last."""
    if isinstance(values, Text):
        rank = np.empty(len(values.labels) + 1, dtype=np.intp)
        rank[np.argsort(np.array(values.labels, dtype=object), kind="stable")] = np.arange(len(values.labels)) + 1
        rank[-1] = 0
        return rank[values.codes]
    return np.unique(values, return_inverse=True)[1].astype(np.intp)


def same(a: Column, b: Column) -> bool:
    if isinstance(a, Text) or isinstance(b, Text):
        return isinstance(a, Text) and isinstance(b, Text) and a == b
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


# Longer columns go as base64 of their bytes: exact, and a hundred times faster.
_MANY = 1000


def plain(values: Column) -> dict[str, Any]:
    """A column as JSON: its values while a person may want to read them, else its bytes."""
    if isinstance(values, Text):
        return {"dtype": "text", "labels": list(values.labels), "codes": plain(values.codes)}
    little = values.astype(values.dtype.newbyteorder("<"))
    if len(values) > _MANY:
        return {"dtype": little.dtype.str, "base64": base64.b64encode(little.tobytes()).decode("ascii")}
    items = values.tolist()
    if values.dtype.kind == "f":
        items = [v if np.isfinite(v) else str(v) for v in items]
    return {"dtype": little.dtype.str, "values": items}


def unplain(column: dict[str, Any]) -> Column:
    if column["dtype"] == "text":
        codes = unplain(column["codes"])
        if isinstance(codes, Text) or (codes >= len(column["labels"])).any():
            raise ValueError("codes without labels")
        return Text(codes.astype(np.int32), [str(v) for v in column["labels"]])
    dtype = np.dtype(column["dtype"])
    if "base64" in column:
        return np.frombuffer(base64.b64decode(column["base64"], validate=True), dtype=dtype).astype(
            dtype.newbyteorder("=")
        )
    return np.array([float(v) if isinstance(v, str) else v for v in column["values"]], dtype=dtype.newbyteorder("="))
