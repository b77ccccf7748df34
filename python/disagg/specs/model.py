"""What a model is made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self, cast

from disagg import _core
from disagg.errors import DataError, SpecError
from disagg.specs._base import checked, constructor, expect
from disagg.specs.serving import Dtype, Quant


def models() -> list[str]:
    """List the model presets.

    Examples
    --------
    >>> import disagg as dg
    >>> "deepseek-ai/DeepSeek-V3.2" in dg.models()
    True
    """
    return _core.presets("models")


class Model(_core.Model):
    """A language model.

    Parameters
    ----------
    source
        A preset's name (with or without its organisation), the path of a Hugging Face ``config.json``
        (or of the directory that holds it), or a dict: the content of such a file, or what
        `to_dict` gave.

    Raises
    ------
    SpecError
        If there is no such preset (near names are listed) or the config does not describe a model
        that can be priced; every problem is named.
    DataError
        If the file cannot be read.

    Examples
    --------
    >>> import disagg as dg
    >>> model = dg.Model("deepseek-ai/DeepSeek-V3.2")
    >>> model.layers, model.experts
    (61, 256)
    """

    __slots__ = ()

    @constructor
    def __new__(cls, source: str | os.PathLike[str] | dict[str, Any]) -> Self:
        """Read the facts."""
        return super().__new__(cls, _read(source))

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
        if self.name not in models():
            return "Model", [("", repr(self.to_dict()))]
        base = Model(self.name).to_dict()
        changed = [(n, repr(v)) for n, v in self.to_dict().items() if v != base[n]]
        name = f"Model({self.name!r})"
        return (f"{name}.replace", changed) if changed else ("Model", [("", repr(self.name))])


def _read(source: object) -> _core.Spec:
    if isinstance(source, dict):
        if "layers" in source and "attention" in source:
            return _core.spec("Model", source)
        return _core.model_from_hf(source, None, str(source.get("_name_or_path") or "custom"), "a dict")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if isinstance(source, os.PathLike) or path.suffix == ".json" or _exists(path):
            return _from_file(path)
        return _core.preset("Model", source)
    hint = "expected a preset's name, the path of a config.json, or a dict"
    raise SpecError([("source", f"a value of type {type(source).__name__} does not fit", hint)])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _from_file(path: Path) -> _core.Spec:
    if path.is_dir():
        path = path / "config.json"
    config = _json(path)
    beside = path.with_name("hf_quant_config.json")
    quant = _json(beside) if beside.exists() else None
    name = str(config.get("_name_or_path") or path.resolve().parent.name or path.stem)
    return _core.model_from_hf(config, quant, name, path.name)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(str(path), f"cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise DataError(str(path), f"is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise DataError(str(path), "is not a JSON object")
    return cast("dict[str, Any]", found)
