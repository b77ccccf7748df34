"""What is asked of the system: lengths of prefix, prompt and answer, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from disagg import _core
from disagg.specs._base import checked, expect, told

if TYPE_CHECKING:
    from disagg.trace import Trace


@told(_core.preset_workloads)
def workloads() -> list[str]:
    return _core.preset_workloads()


class Distribution(_core.Distribution):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Distribution.__doc__

    @classmethod
    @checked
    def fixed(cls, value: float) -> Distribution:
        """Give one value always."""
        return cls("fixed", value=value)

    @classmethod
    @checked
    def uniform(cls, low: float, high: float) -> Distribution:
        """Give all values from `low` to `high` alike."""
        return cls("uniform", low=low, high=high)

    @classmethod
    @checked
    def lognormal(cls, *, mean: float, p90: float) -> Distribution:
        """Give a lognormal by its mean and 90 % point."""
        return cls("lognormal", mean=mean, p90=p90)

    @classmethod
    @checked
    def quantiles(cls, values: Sequence[float], at: Sequence[float] | None = None) -> Distribution:
        """Give a measured distribution by its quantiles, linear between them.

        Parameters
        ----------
        values
            Values at the probabilities `at`, rising.
        at
            Probabilities from 0 to 1; None: evenly spaced.
        """
        return cls("quantiles", values=values, **({} if at is None else {"at": at}))

    @classmethod
    @checked
    def geometric(cls, *, mean: float) -> Distribution:
        """Give 1, 2, 3 ... with a constant chance to stop."""
        return cls("geometric", mean=mean)

    @property
    def mean(self) -> float:
        """Mean, tokens."""
        return _core.distribution_facts(self, 0.5)[0]

    @checked
    def quantile(self, q: float) -> float:
        """Give the value below which a share `q` (0 to 1) lies, tokens."""
        return _core.distribution_facts(self, q)[1]


class Workload(_core.Workload):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.Workload.__doc__

    @classmethod
    @told(_core.preset_workload)
    def preset(cls, name: str) -> Workload:
        return _core.preset_workload(name)

    @classmethod
    @checked
    def from_trace(cls, trace: Trace) -> Workload:
        """Give the joint lengths of a trace: at most 4096 requests, evenly spaced.

        The prefix of each is what an endless cache would hold; one token at least is new.

        Examples
        --------
        >>> import disagg as dg
        >>> trace = dg.Trace.poisson(dg.Workload(isl=512, osl=64), rate=2.0, n=100)
        >>> dg.Workload.from_trace(trace).mean["isl"]
        512.0
        """
        expect(trace=(getattr(trace, "_raw", trace), _core.Trace))
        return cls(lengths=trace._raw.lengths(4096), name="trace", source=repr(trace))

    @property
    def mean(self) -> dict[str, float]:
        """Mean ``prefix``, ``isl`` and ``osl``, tokens."""
        return dict(_core.workload_facts(self)["mean"])

    @property
    def theta(self) -> float:
        """Stationary mean KV tokens of a busy decode slot: E[DP + D(D-1)/2] / E[D] (arXiv 2601.21351)."""
        return float(_core.workload_facts(self)["theta"])
