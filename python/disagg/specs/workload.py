"""What is asked of the system: lengths of prefix, prompt and answer, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from disagg import _core
from disagg.specs._base import checked, constructor, expect

if TYPE_CHECKING:
    from disagg.trace import Trace


def workloads() -> list[str]:
    """List the workload presets.

    Examples
    --------
    >>> import disagg as dg
    >>> "paper-chat" in dg.workloads()
    True
    """
    return _core.presets("workloads")


class Distribution(_core.Distribution):
    """A distribution of token counts. Built by its named constructors.

    Parameters
    ----------
    kind
        ``"fixed"``, ``"uniform"``, ``"lognormal"``, ``"quantiles"`` or ``"geometric"``.
    **values
        The values of that kind.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Distribution.uniform(100, 300).mean
    200.0
    """

    __slots__ = ()

    @constructor
    def __new__(cls, kind: str, **values: Any) -> Self:
        """Check the values."""
        return super().__new__(cls, _core.spec("Distribution", {"kind": kind, **values}))

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
        expect(q=(q, int, float))
        return _core.distribution_facts(self, q)[1]

    def _args(self) -> dict[str, Any]:
        return self.to_dict()

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        fields = self.to_dict()
        return f"Distribution.{fields.pop('kind')}", [(n, repr(v)) for n, v in fields.items()]


Lengths = float | Distribution


class Workload(_core.Workload):
    """What is asked of the system. `isl` counts NEW tokens, `prefix` cached ones.

    Parameters
    ----------
    isl, osl
        New prompt tokens and output tokens: a number or a `Distribution`.
    prefix
        Cached tokens before the prompt.
    correlation
        Pearson correlation of `isl` and `osl`, both of which keep their distribution: a share of the requests has
        the two rise together (or one rise as the other falls), the rest is independent.
    lengths
        Joint samples ``(prefix, isl, osl)`` in place of the three.
    prefix_scope
        ``"request"``: private KV per sequence (an agent's session); ``"shared"``: one copy per
        attention rank (a system prompt).
    prefix_home
        Which side of a `PD` plan keeps the prefix: ``"both"``, ``"prefill"`` or ``"decode"``.
    strict_context
        Whether a sequence longer than the model's context is an error rather than a warning.
    name, source
        What it is called and where the lengths come from.

    Raises
    ------
    SpecError
        If a length does not fit, or no joint lengths have this correlation; every problem is named.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Workload(isl=512, osl=256, prefix=4096).theta
    4735.5
    >>> varied = {"isl": dg.Distribution.uniform(100, 900), "osl": dg.Distribution.geometric(mean=200)}
    >>> round(dg.Workload(**varied, correlation=0.5).theta - dg.Workload(**varied).theta)
    115
    """

    __slots__ = ()

    @constructor
    def __new__(
        cls,
        *,
        isl: Lengths | None = None,
        osl: Lengths | None = None,
        prefix: Lengths | None = None,
        correlation: float = 0.0,
        lengths: Sequence[tuple[float, float, float]] | None = None,
        prefix_scope: Literal["request", "shared"] = "request",
        prefix_home: Literal["both", "prefill", "decode"] = "both",
        strict_context: bool = False,
        name: str = "custom",
        source: str = "user",
    ) -> Self:
        """Read the lengths."""
        fields = {
            "isl": isl,
            "osl": osl,
            "prefix": prefix,
            "correlation": correlation,
            "lengths": lengths,
            "prefix_scope": prefix_scope,
            "prefix_home": prefix_home,
            "strict_context": strict_context,
            "name": name,
            "source": source,
        }
        return super().__new__(cls, _core.workload(fields))

    @classmethod
    @checked
    def preset(cls, name: str) -> Workload:
        """Give a preset: the paper's cases and measured ones, with their sources.

        Raises
        ------
        SpecError
            If there is no such preset; near names are listed.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Workload.preset("paper-chat").osl
        Distribution.fixed(value=256.0)
        """
        expect(name=(name, str))
        return _core.preset("Workload", name)

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

    def _args(self) -> dict[str, Any]:
        names = ("isl", "osl", "prefix", "correlation", "lengths", "prefix_scope", "prefix_home", "strict_context")
        args = {name: getattr(self, name) for name in (*names, "name", "source")}
        if self.lengths is not None:
            return {**args, "isl": None, "osl": None, "prefix": None}
        for name in ("isl", "osl", "prefix"):
            one = args[name].to_dict()
            args[name] = one["value"] if one["kind"] == "fixed" else args[name]
        return args

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        if self.name in workloads():
            base = Workload.preset(self.name)
            changed = [(n, repr(v)) for n, v in self._args().items() if v != base._args()[n]]
            call = f"Workload.preset({self.name!r})"
            return (f"{call}.replace", changed) if changed else ("Workload.preset", [("", repr(self.name))])
        return super()._call()
