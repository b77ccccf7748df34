"""Traces: requests with arrivals, read from public formats or drawn."""

from __future__ import annotations

import json
from os import PathLike, fspath
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg._frozen import Frozen
from disagg._tables import columns_of
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.specs import Workload
from disagg.specs._base import checked, expect, takes

__all__ = ["Trace"]

Path = str | PathLike[str]
OnError = Literal["raise", "skip"]


def _read(kind: str, path: Path, on_error: str, option: float = 0.0, *, n: int = 1, seed: int = 0) -> Trace:
    return Trace(_core.Trace.read(kind, fspath(path), on_error, float(option), n, seed))


class Trace(Frozen):
    """Requests with arrivals. Built by its named constructors; frozen, picklable.

    Readers take plain and gzip files. A line that cannot be read is an error that names file and
    line, or is left out and counted with ``on_error="skip"``.

    Examples
    --------
    >>> import disagg as dg
    >>> trace = dg.Trace.poisson(dg.Workload(isl=512, osl=64), rate=2.0, n=100, seed=1)
    >>> len(trace), trace.scale(rate=8.0).stats()["rate"]
    (100, 8.0)
    """

    __slots__ = ("_raw",)
    _raw: _core.Trace

    def __init__(self, raw: _core.Trace) -> None:
        expect(raw=(raw, _core.Trace))
        self._set(_raw=raw)

    @classmethod
    @takes("_Columns")
    def read(cls, path_or_frame: Any, **options: Unpack[_core._Columns]) -> Trace:
        """Read any table of requests; `notes` says which columns were taken for what.

        Parameters
        ----------
        path_or_frame
            CSV (any separator), JSON lines, JSON, Parquet (with pyarrow), each plain, gzip or zstd; or a DataFrame of
            pandas or polars, an Arrow table, a mapping of columns, a list of rows. A ServeGen folder and WEKA sessions
            are known too.

        Returns
        -------
        Trace
            Sorted by time; dates and epochs start at 0.

        Raises
        ------
        DataError
            With file and line, and what would do.
        SpecError
            If a column that is named is not there.

        Examples
        --------
        >>> import disagg as dg
        >>> trace = dg.Trace.read({"arrival_ms": [0, 500], "prompt_tokens": [900, 80], "completion_tokens": [20, 30]})
        >>> trace.requests["arrival_s"].tolist()
        [0.0, 0.5]
        >>> trace.notes
        ["arrival from 'arrival_ms' (ms)", "isl from 'prompt_tokens'", "osl from 'completion_tokens'"]
        """
        o = options
        named = [o["arrival"], o["isl"], o["osl"], o["prefix"], o["session"]]
        path, columns = columns_of(path_or_frame)
        return cls(_core.Trace.table(path, columns, named, o["unit"], o["block_tokens"], o["on_error"]))

    @classmethod
    @checked
    def mooncake(cls, path: Path, *, block_tokens: int | None = None, on_error: OnError = "raise") -> Trace:
        """Read Mooncake's JSON lines (kvcache-ai/Mooncake): milliseconds, lengths, names of prompt blocks.

        Bailian's relatives are known by their ``chat_id`` and ``parent_chat_id``: seconds, blocks of 16 tokens.

        Parameters
        ----------
        block_tokens
            Tokens of one named block; None: what the numbers of names agree on, 512 if they do with that.

        Raises
        ------
        DataError
            With file and line.
        """
        return _read("mooncake", path, on_error, float("nan") if block_tokens is None else block_tokens)

    @classmethod
    @checked
    def azure(cls, path: Path, *, on_error: OnError = "raise") -> Trace:
        """Read Azure's LLM inference trace (Azure/AzurePublicDataset, CC-BY): timestamps and lengths."""
        return _read("azure", path, on_error)

    @classmethod
    @checked
    def burstgpt(cls, path: Path, *, on_error: OnError = "raise") -> Trace:
        """Read BurstGPT (HPMLL/BurstGPT): seconds and lengths; failed requests have no answer: skip them."""
        return _read("burstgpt", path, on_error)

    @classmethod
    @checked
    def weka(cls, path: Path, *, session_gap_s: float = 0.0, on_error: OnError = "raise") -> Trace:
        """Read agentic sessions (callanjfox/kv-cache-tester), one JSON object each, sub-agents included.

        Parameters
        ----------
        path
            A session, or a session a line.
        session_gap_s
            Session k starts at k times this, seconds (the files do not say when sessions start).
        """
        return _read("weka", path, on_error, session_gap_s)

    @classmethod
    @checked
    def servegen(
        cls, path: Path, *, start_s: float = 0.0, end_s: float | None = None, seed: int = 0, on_error: OnError = "raise"
    ) -> Trace:
        r"""Draw a service's day from its clients (alibaba/ServeGen): rates by window, gaps, lengths by hour.

        Parameters
        ----------
        path
            A directory of ``chunk-<k>-trace.csv`` and ``chunk-<k>-dataset.json``, or a tar of it (gz too).
        start_s, end_s
            The part of the day that is drawn, in seconds; None: to its end. Arrivals start at 0.

        Returns
        -------
        Trace
            A session is a client. Prompt and answer of a request are drawn independently from its client's
            histograms; shares of reasoning are left out.

        Raises
        ------
        DataError
            If the files hold no client, a line cannot be read, or nothing arrives in that time.

        Examples
        --------
        >>> import disagg as dg, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "chunk-0-trace.csv").write_text("0,0.5,1,Gamma,1,2\n600,0,0,,0,0\n")
        >>> hours = '{"0": {"input_tokens": "{100: 1.0}", "output_tokens": "{20: 1.0}"}}'
        >>> _ = (folder / "chunk-0-dataset.json").write_text(hours)
        >>> trace = dg.Trace.servegen(folder, seed=1)
        >>> bool(240 < len(trace) < 360)
        True
        """
        end = None if end_s is None else float(end_s)
        return cls(_core.Trace.servegen(fspath(path), float(start_s), end, seed, on_error))

    @classmethod
    @checked
    def lengths(cls, path: Path, *, rate: float, n: int = 10_000, seed: int = 0, on_error: OnError = "raise") -> Trace:
        """Read a table of lengths without arrivals, and draw Poisson arrivals.

        Parameters
        ----------
        path
            CSV, JSON lines, or histograms of marginals. One with arrivals is for `read`.
        rate
            Requests per second.
        n
            How many to draw, of histograms only.
        """
        return _read("lengths", path, on_error, rate, n=n, seed=seed)

    @classmethod
    @checked
    def poisson(cls, workload: Workload, *, rate: float, n: int, seed: int = 0) -> Trace:
        """Draw `n` requests of a workload with Poisson arrivals at `rate` per second."""
        return cls.gamma(workload, rate=rate, cv=1.0, n=n, seed=seed)

    @classmethod
    @checked
    def gamma(cls, workload: Workload, *, rate: float, cv: float, n: int, seed: int = 0) -> Trace:
        """Draw `n` requests with Gamma gaps: `cv` is their spread over their mean (0 even, 1 Poisson, above: bursts).

        Examples
        --------
        >>> import disagg as dg
        >>> even = dg.Trace.gamma(dg.Workload(isl=512, osl=64), rate=4.0, cv=0.0, n=3)
        >>> even.requests["arrival_s"].tolist()
        [0.25, 0.5, 0.75]
        """
        return cls(_core.Trace.open(workload, float(rate), float(cv), n, seed))

    @classmethod
    @checked
    def closed(cls, workload: Workload, *, concurrency: int, n: int, think_s: float = 0.0, seed: int = 0) -> Trace:
        """Draw a closed loop: `concurrency` users, each with one request at a time and a pause after its answer."""
        return cls(_core.Trace.closed(workload, concurrency, n, float(think_s), seed))

    @property
    def requests(self) -> Frame:
        """One row a request: ``arrival_s``, ``isl`` (whole prompt), ``osl``, ``prefix_tokens`` of an endless cache."""
        return Frame._from_core(self._raw.columns())

    @property
    def notes(self) -> list[str]:
        """What was taken for what where a file did not say it: columns, units, sizes, order."""
        return self._raw.notes

    def stats(self) -> dict[str, Any]:
        """Requests, lines skipped, rate, mean and largest lengths, sessions, share of prompts in an endless cache."""
        found: dict[str, Any] = json.loads(self._raw.stats())
        return found

    @checked
    def prefix_hit(self, *, tokens: int | None = None) -> float:
        """Give the share of prompt tokens that one LRU cache of `tokens` (None: endless) would hold."""
        return self._raw.prefix_hit(tokens)

    @checked
    def scale(self, *, rate: float) -> Trace:
        """Give the same requests at another mean rate (per second); the pattern of the gaps stays."""
        return type(self)(self._raw.scale(float(rate)))

    @checked
    def with_priority(self, priority: npt.ArrayLike) -> Trace:
        """Give the same requests with places in every queue: 0 to 255 each, the lowest goes first, then the earliest.

        Examples
        --------
        >>> import disagg as dg
        >>> trace = dg.Trace.poisson(dg.Workload(isl=512, osl=64), rate=2.0, n=4)
        >>> trace.with_priority([1, 0, 1, 0]) == trace
        False
        """
        values = np.asarray(priority)
        whole = values.ndim == 1 and (values.size == 0 or np.issubdtype(values.dtype, np.integer))
        if not whole or ((values < 0) | (values > 255)).any():  # noqa: PLR2004
            raise SpecError([("priority", "has values that are no whole numbers from 0 to 255", "one a request")])
        return type(self)(self._raw.with_priority(values.tolist()))

    @checked
    def window(self, start_s: float, end_s: float) -> Trace:
        """Give the requests that come from `start_s` to before `end_s`, moved to start at 0."""
        return type(self)(self._raw.window(float(start_s), float(end_s)))

    def to_json(self) -> str:
        """Give the trace as JSON text."""
        return self._raw.to_json()

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read back what `to_json` gave."""
        expect(text=(text, str))
        return cls(_core.Trace.from_json(text))

    def __len__(self) -> int:
        """Requests."""
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return self.to_json() == other.to_json() if isinstance(other, Trace) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """One line: size, rate, mean lengths, what was taken for what."""
        s = self.stats()
        rate = "closed loop" if s["rate"] is None else f"{s['rate']:.3g}/s"
        lengths = f"{s['input_mean']:.0f} -> {s['output_mean']:.0f} tokens"
        said = "; ".join([f"{s['requests']} requests, {rate}, {lengths}", *self.notes])
        return f"Trace({said})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by JSON."""
        return type(self).from_json, (self.to_json(),)
