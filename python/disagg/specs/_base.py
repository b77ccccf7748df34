"""What all specs share: frozen, keyword-built, compared by value, readable, exact in JSON and pickle.

The data and the checks live in the native core (`_core.Spec`); a class here gives it a signature,
documentation and attributes.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeVar, cast, overload

from disagg import _core, _html
from disagg.errors import Problem, SpecError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

REGISTRY: dict[str, type[Spec]] = {}


def near(name: str, known: list[str]) -> str:
    """Say which of the known names was probably meant."""
    return _core.near(name, known)


def checked(function: F, *, probe: bool = False) -> F:
    """Turn a wrong call (unknown, missing or positional argument) into a `SpecError` that names the argument.

    Parameters
    ----------
    function
        The function to guard. Its signature and documentation are kept.
    probe
        Whether to call the function once more without unknown arguments, only for the problems it
        finds in the known ones (for constructors, which do nothing else).

    Examples
    --------
    >>> @checked
    ... def f(*, tokens: int = 1) -> int:
    ...     return tokens
    >>> f(token=2)
    Traceback (most recent call last):
    disagg.errors.SpecError: token: is not an argument of f; did you mean 'tokens'?
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as e:
            problems = _wrong_call(function, signature, args, kwargs)
            if not problems:
                raise
            if probe:
                problems += _more_problems(function, signature, args, kwargs)
            raise SpecError(problems) from e
        return function(*args, **kwargs)

    return cast("F", guarded)


def _wrong_call(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Problem]:
    names = [n for n in signature.parameters if n != "self"]
    title = function.__qualname__.removesuffix(".__init__").split(".")[-1]
    problems = [Problem(n, f"is not an argument of {title}", near(n, names)) for n in kwargs if n not in names]
    kinds = inspect.Parameter
    positional = [
        n for n, p in signature.parameters.items() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    if len(args) > len(positional):
        given = len(args) - ("self" in positional)
        takes = len(positional) - ("self" in positional)
        hint = f"write {title}({names[takes]}=...)" if takes < len(names) else ""
        problems.append(Problem("", f"{title} takes {takes} argument(s) without a name, {given} were given", hint))
    else:
        supplied = set(positional[: len(args)]) | set(kwargs)
        problems += [
            Problem(n, f"is required by {title}")
            for n, p in signature.parameters.items()
            if p.default is kinds.empty
            and n not in supplied
            and p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
        ]
    return problems


def expect(**given: tuple[Any, ...]) -> None:
    """Raise one `SpecError` for every argument of the wrong class.

    Parameters
    ----------
    **given
        Argument name to ``(value, class, ...)``.

    Examples
    --------
    >>> expect(n=(1, int), m=("a", int, float))
    Traceback (most recent call last):
    disagg.errors.SpecError: m: a str does not fit here; expected a int or a float
    """
    problems = []
    for name, (value, *classes) in given.items():
        if not isinstance(value, tuple(classes)):
            wanted = " or a ".join(c.__name__ for c in classes if c is not type(None))
            hint = _spelled(value, classes) or f"expected a {wanted}"
            problems.append(Problem(name, f"a {type(value).__name__} does not fit here", hint))
    if problems:
        raise SpecError(problems)


def _spelled(value: object, classes: list[type]) -> str:
    """Say how a name becomes the spec that was due; empty where that is not what went wrong."""
    due = [c.__name__ for c in classes if issubclass(c, Spec)]
    if not isinstance(value, str) or not due:
        return ""
    calls = {
        "Model": f"dg.Model({value!r})",
        "Cluster": f"dg.Cluster({value!r}, gpus=8)",
        "Workload": f"dg.Workload.preset({value!r})",
        "Device": f"dg.Device.preset({value!r})",
        "Fabric": f"dg.Fabric.preset({value!r})",
    }
    return f"write {calls.get(due[0]) or f'dg.{due[0]}(...)'}"


def _more_problems(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Problem]:
    """Find what else is wrong once the unknown arguments are left out."""
    known = {n: v for n, v in kwargs.items() if n in signature.parameters}
    try:
        signature.bind(*args, **known)
    except TypeError:
        return []
    try:
        function(*args, **known)
    except SpecError as e:
        return e.problems
    return []


class Field(Generic[T]):
    """A frozen attribute of a spec, read from the native core.

    Parameters
    ----------
    doc
        What it is, with its unit.
    specs
        Names of the spec classes that stand here, if any.
    """

    def __init__(self, doc: str, *specs: str) -> None:
        self.__doc__ = doc
        self.specs = specs
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: Spec, owner: type) -> T: ...
    def __get__(self, obj: Spec | None, owner: type) -> Self | T:
        if obj is None:
            return self
        value = obj._raw.get(self.name)
        if self.specs and value is not None:
            value = wrap(value, self.specs)
        return cast("T", value)

    def __set__(self, obj: Spec, value: T) -> NoReturn:
        obj.__setattr__(self.name, value)
        raise AssertionError  # pragma: no cover


def wrap(value: dict[str, Any], kinds: tuple[str, ...]) -> Spec:
    """Make the spec that a plain dict stands for, by its `kind` when several may stand there."""
    kind = next((k for k in kinds if k.lower() == value.get("kind")), kinds[0])
    return REGISTRY[kind]._from_raw(_core.Spec(kind, value))


def raws(asked: Iterable[Any]) -> tuple[Any, ...]:
    """Give the native side of the specs in what is asked, lists of them too, and the rest as it is."""

    def raw(a: Any) -> Any:
        return a._raw if isinstance(a, Spec) else [raw(x) for x in a] if isinstance(a, list) else a

    return tuple(raw(a) for a in asked)


def _rebuild(cls: type[Spec], text: str) -> Spec:
    return cls.from_json(text)


class Spec:
    """Base of all specs."""

    __slots__ = ("_raw",)

    _raw: _core.Spec
    _kind: ClassVar[str] = ""
    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, hashable: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._kind = cls.__name__
        cls._names = tuple(n for n in inspect.signature(cls.__init__).parameters if n != "self")
        cls.__init__ = checked(cls.__init__, probe=True)  # type: ignore[method-assign]
        # Set either way: a class between `Spec` and a hashable one may not be.
        cls.__hash__ = Spec.__hash__ if hashable else None  # type: ignore[assignment]
        REGISTRY[cls.__name__] = cls

    def _build(self, **fields: Any) -> None:
        self._adopt(_core.Spec(self._kind, fields))

    def _adopt(self, raw: _core.Spec) -> None:
        object.__setattr__(self, "_raw", raw)

    @classmethod
    def _from_raw(cls, raw: _core.Spec) -> Self:
        self = cls.__new__(cls)
        self._adopt(raw)
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: specs are frozen."""
        raise AttributeError(f"{self._kind} is frozen; use .replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        """Refuse: specs are frozen."""
        raise AttributeError(f"{self._kind} is frozen; {name} stays")

    def _args(self) -> dict[str, Any]:
        """Give constructor arguments that make an equal spec."""
        return {name: getattr(self, name) for name in self._names}

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        """Class or constructor name, and the arguments worth showing as (name, text)."""
        return self._kind, [(n, repr(v)) for n, v in self._args().items() if v is not None]

    def replace(self, **changes: Any) -> Self:
        """Give a copy with some arguments changed.

        Parameters
        ----------
        **changes
            Arguments of the constructor.

        Returns
        -------
        Spec
            A new spec of the same class, checked.

        Raises
        ------
        SpecError
            If an argument is unknown or its value does not fit.
        """
        return type(self)(**{**self._args(), **changes})

    def __replace__(self, **changes: Any) -> Self:
        """Support ``copy.replace`` (Python 3.13)."""
        return self.replace(**changes)

    def to_json(self) -> str:
        """Give the spec as JSON text; `from_json` gives an equal spec back, to the last bit."""
        return self._raw.to_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If it is not JSON or not a spec of this class.
        """
        expect(text=(text, str))
        return cls._from_raw(_core.Spec.from_json(cls._kind, text))

    def to_dict(self) -> dict[str, Any]:
        """Give the spec as plain dicts, lists and numbers."""
        return cast("dict[str, Any]", json.loads(self.to_json()))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a spec from what `to_dict` gave."""
        expect(fields=(fields, dict))
        return cls._from_raw(_core.Spec(cls._kind, fields))

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if type(self) is not type(other):
            return NotImplemented
        return self._raw == other._raw

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._raw)

    def __repr__(self) -> str:
        """One line that evaluates to an equal spec."""
        name, args = self._call()
        return f"{name}({', '.join(text if not key else f'{key}={text}' for key, text in args)})"

    def _repr_html_(self) -> str:
        name, args = self._call()
        return _html.table(name, [], [[key, text] for key, text in args])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by JSON, which keeps every bit."""
        return _rebuild, (type(self), self.to_json())

    def __copy__(self) -> Self:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it is frozen."""
        return self
