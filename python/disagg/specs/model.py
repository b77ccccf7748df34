"""What a model is made of."""

from __future__ import annotations

from typing import Any

from disagg import _core
from disagg.frame import Frame
from disagg.specs._base import checked
from disagg.specs.serving import Dtype, Quant


class Models(Frame):
    """The table of model presets; the name of a preset is in it, as the name of a column is."""

    def __contains__(self, name: object) -> bool:
        """Whether it has a column or a preset of that name."""
        return super().__contains__(name) or (isinstance(name, str) and name in self["name"].tolist())


def names() -> list[str]:
    """List the names of the model presets."""
    return _core.preset_models()


def models() -> Models:
    """Give the model presets as a table.

    Returns
    -------
    Frame
        One row a preset: ``name``, ``family`` (the architecture), ``attention`` (what mixes its tokens),
        ``parameters``, ``active_parameters``, ``weight_bytes`` and ``kv_bytes_per_token`` in the checkpoint's formats,
        ``state_bytes_per_sequence``, ``max_context`` (tokens), and for each system the frameworks whose tables hold
        its own kernels (experts at their sizes, its kind of attention); the others are priced from the nearest rows.

    Examples
    --------
    >>> import disagg as dg
    >>> "deepseek-ai/DeepSeek-V3.2" in dg.models()
    True
    >>> hybrids = dg.models().filter(lambda m: m["state_bytes_per_sequence"] > 0)
    >>> "Qwen/Qwen3.5-397B-A17B" in hybrids["name"]
    True
    """
    rows = []
    for name in names():
        model = Model(name)
        facts = _core.model_facts(model, None)
        row: dict[str, Any] = {"name": name, "family": model.architecture, "attention": facts["mixers"]}
        sizes = ("parameters", "active_parameters", "weight_bytes", "kv_bytes_per_token", "state_bytes_per_sequence")
        row |= {size: float(facts[size]) for size in sizes}
        row["max_context"] = model.max_context
        row |= {system: " ".join(frameworks) for system, frameworks in _core.kernels_known(model)}
        rows.append(row)
    return Models({column: [row[column] for row in rows] for column in rows[0]})


class Model(_core.Model):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Model.__doc__

    @property
    def experts(self) -> int:
        """Routed experts of a layer; 0 for a dense model."""
        return int(self.moe["experts"]) if self.moe else 0

    @property
    def parameters(self) -> float:
        """All parameters."""
        return float(_core.model_facts(self, None)["parameters"])

    @property
    def active_parameters(self) -> float:
        """Parameters that work on one token."""
        return float(_core.model_facts(self, None)["active_parameters"])

    @checked
    def kv_bytes_per_token(self, kv: Dtype | None = None) -> float:
        """Give the KV cache of one token over all layers, bytes.

        Parameters
        ----------
        kv
            Format of the cache; None: the checkpoint's.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Model("deepseek-ai/DeepSeek-V3.2").kv_bytes_per_token("fp8")
        48068.0
        """
        return float(_core.model_facts(self, Quant(kv=kv))["kv_bytes_per_token"])

    @property
    def state_bytes_per_sequence(self) -> float:
        """What layers with a running state keep of a sequence whatever its length, bytes; 0 without such layers."""
        return float(_core.model_facts(self, None)["state_bytes_per_sequence"])

    @checked
    def weight_bytes(self, quant: Quant | None = None) -> float:
        """Give the bytes of all weights.

        Parameters
        ----------
        quant
            Number formats; None: the checkpoint's.
        """
        return float(_core.model_facts(self, quant)["weight_bytes"])
