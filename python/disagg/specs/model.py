"""What a model is made of."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any, Self, cast

from disagg import _core
from disagg.errors import DataError, SpecError
from disagg.frame import Frame
from disagg.specs._base import checked, constructor, expect
from disagg.specs.serving import Dtype, Quant


class Models(Frame):
    """The table of model presets; the name of a preset is in it, as the name of a column is."""

    def __contains__(self, name: object) -> bool:
        """Whether it has a column or a preset of that name."""
        return super().__contains__(name) or (isinstance(name, str) and name in self["name"].tolist())


def names() -> list[str]:
    """List the names of the model presets."""
    return _core.presets("models")


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


class Model(_core.Model):
    """A language model.

    Parameters
    ----------
    source
        A preset's name (with or without its organisation), its address on a hub, the path of a Hugging Face
        ``config.json`` (or of the directory that holds it), or a dict: the content of such a file, or what
        `to_dict` gave.
    trust_fields
        Read a config whose ``model_type`` and ``architectures`` are not known by the fields that are known.
        Fields that look like structure and were not read are refused all the same.

    Raises
    ------
    SpecError
        If there is no such preset (near names are listed), the config is of no class that is known, or it does not
        describe a model that can be priced; every problem is named.
    DataError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If ``model.safetensors.index.json`` beside the config has other bytes than the model as it is read (more than
        3 % apart), or if the name speaks of a number format and the config of none.

    Examples
    --------
    >>> import disagg as dg
    >>> model = dg.Model("deepseek-ai/DeepSeek-V3.2")
    >>> model.layers, model.experts
    (61, 256)
    """

    __slots__ = ()

    @constructor
    def __new__(cls, source: str | os.PathLike[str] | dict[str, Any], *, trust_fields: bool = False) -> Self:
        """Read the facts."""
        expect(trust_fields=(trust_fields, bool))
        return super().__new__(cls, _read(source, trust_fields))

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
        expect(quant=(quant, Quant, type(None)))
        return float(_core.model_facts(self, quant)["weight_bytes"])

    def replace(self, **changes: Any) -> Model:
        """Give a copy with some fields changed (what-if models).

        Parameters
        ----------
        **changes
            Fields of the model (``layers``, ``hidden``, ``moe`` ...); a dict for ``moe`` or
            ``attention`` changes the fields it names and keeps the others.

        Raises
        ------
        SpecError
            If a field is unknown or its value does not fit.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Model("deepseek-ai/DeepSeek-V3.2").replace(moe={"topk": 4}).moe["topk"]
        4
        """
        fields = self.to_dict()
        for name, value in changes.items():
            old = fields.get(name)
            fields[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        return self.from_dict(fields)

    def _args(self) -> dict[str, Any]:
        return self.to_dict()

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        if self.name not in names():
            return "Model", [("", repr(self.to_dict()))]
        base = Model(self.name).to_dict()
        changed = [(n, repr(v)) for n, v in self.to_dict().items() if v != base[n]]
        name = f"Model({self.name!r})"
        return (f"{name}.replace", changed) if changed else ("Model", [("", repr(self.name))])


def _read(source: object, trust_fields: bool) -> _core.Spec:
    if isinstance(source, dict):
        if "layers" in source and "attention" in source:
            return _core.spec("Model", source)
        config = _sayable(source)
        name = str(source.get("_name_or_path") or "custom")
        return _remarked(_core.model_from_hf(config, None, name, "a dict", trust_fields), config, None)
    if isinstance(source, str) and "://" in source:
        return _core.preset("Model", source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if isinstance(source, os.PathLike) or path.suffix == ".json" or _exists(path):
            return _from_file(path, trust_fields)
        return _core.preset("Model", source)
    hint = "expected a preset's name, the path of a config.json, or a dict"
    raise SpecError([("source", f"a value of type {type(source).__name__} does not fit", hint)])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _sayable(value: Any) -> Any:
    """Give the same with numbers that JSON cannot say as text: they do no harm in fields that are not read."""
    if isinstance(value, dict):
        return {name: _sayable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return float(value) if abs(value) < 10**300 else str(value)
    return value


def _from_file(path: Path, trust_fields: bool) -> _core.Spec:
    if path.is_dir():
        path = path / "config.json"
    config = _json(path)
    quant, index = (_beside(path, name) for name in ("hf_quant_config.json", "model.safetensors.index.json"))
    name = str(config.get("_name_or_path") or path.resolve().parent.name or path.stem)
    return _remarked(_core.model_from_hf(config, quant, name, path.name, trust_fields), config, index)


def _beside(path: Path, name: str) -> dict[str, Any] | None:
    file = path.with_name(name)
    return _json(file) if file.exists() else None


def _remarked(model: _core.Spec, config: dict[str, Any], index: dict[str, Any] | None) -> _core.Spec:
    for remark in _core.model_remarks(model, config, index):
        warnings.warn(remark, UserWarning, stacklevel=6)
    return model


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(str(path), f"cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise DataError(str(path), f"is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise DataError(str(path), "is not a JSON object")
    return cast("dict[str, Any]", _sayable(found))
