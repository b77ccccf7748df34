"""What guards a call: wrong arguments and wrong classes become one `SpecError` that names them all.

The specs themselves are classes of the native core (`_core.Spec`): frozen, keyword-built, compared by value, readable,
exact in JSON and pickle.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence  # noqa: F401 - the core calls types so
from os import PathLike  # noqa: F401 - as above
from types import UnionType
from typing import Any, ForwardRef, Literal, NamedTuple, TypedDict, TypeVar, Union, cast, get_args, get_origin

import numpy as np

from disagg import _core
from disagg._documents import with_shared
from disagg.errors import Problem, SpecError

F = TypeVar("F", bound=Callable[..., Any])


class Option(NamedTuple):
    """An argument that a function takes among its ``**options``."""

    name: str
    takes: str
    required: bool
    default: Any
    about: str


Spec = _core.Spec
"""Base of all specs."""


_OWN = {"self", "cls"}
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# What these hold is looked at where they are used: an array is as good as a sequence there.
_OPEN: set[Any] = {Any, Sequence, Iterable, Callable, object}


def near(name: str, known: list[str]) -> str:
    """Say which of the known names was probably meant."""
    return _core.near(name, known)


def checked(function: F, *, probe: bool = False, classes: bool = True, options: Sequence[Option] | None = None) -> F:
    """Turn a wrong call into a `SpecError` that names every argument at fault, and document what calls share.

    An argument that is unknown, missing, has no name where it needs one, or is of another class than its annotation
    says is wrong; numpy's numbers are taken as plain ones. The signature is kept, the documentation gains what `SHARED`
    says of its parameters. With `probe` the function is called once more without unknown arguments, only for the
    problems it finds in the known ones (for constructors, which do nothing else); without `classes` the core says what
    is wrong with them; `options` are what its ``**options`` stand for (see `takes`).

    Examples
    --------
    >>> @checked
    ... def f(*, tokens: int = 1) -> int:
    ...     return tokens
    >>> f(token=2)
    Traceback (most recent call last):
    disagg.errors.SpecError: token: is not an argument of f; did you mean 'tokens'?
    >>> f(tokens="many")
    Traceback (most recent call last):
    disagg.errors.SpecError: tokens: a str does not fit here; expected a int
    """
    # Signatures are slow to read: only what is called needs one.
    whole = functools.cache(lambda: _whole(function, options))
    wanted = functools.cache(lambda: _wanted(function, whole()))

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if classes:
            args, kwargs = _fitted(*wanted(), args, kwargs)
        if options is not None:
            if problems := _wrong_call(function, whole(), args, kwargs):
                raise SpecError(problems)
            kwargs = {**{o.name: o.default for o in options if not o.required}, **kwargs}
        try:
            return function(*args, **kwargs)
        except TypeError as e:
            # What is raised inside has come through a frame of its own.
            inside = e.__traceback__ is not None and e.__traceback__.tb_next is not None
            problems = [] if inside else _wrong_call(function, whole(), args, kwargs)
            if not problems:
                raise
            if probe:
                problems += _more_problems(function, whole(), args, kwargs)
            raise SpecError(problems) from e

    further = {o.name: o.about for o in options or () if o.about}
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if options is not None:
        names = (*names, *(o.name for o in options))
        guarded.__signature__ = whole()  # type: ignore[attr-defined]
    guarded.__doc__ = with_shared(function.__doc__, names, further)
    return cast("F", guarded)


def takes(kind: str) -> Callable[[F], F]:
    """Guard a function whose ``**options: Unpack[_core.kind]`` are the core's; it is given all of them.

    The signature and the documentation show them all.
    """
    options = _groups()[kind]
    return lambda function: checked(function, options=options)


def told(core: Callable[..., Any], kind: str | None = None) -> Callable[[F], F]:
    """Guard a function whose documentation stands with the function of the core that answers; `kind` as in `takes`."""

    def guard(function: F) -> F:
        function.__doc__ = core.__doc__
        return checked(function) if kind is None else takes(kind)(function)

    return guard


@functools.cache
def _groups() -> dict[str, list[Option]]:
    """Give every group of options that the core declares, by its name."""
    return {name: [Option(*one) for one in taken] for name, taken in _core._options()}


@functools.cache
def _group(name: str) -> Any:
    """Give a group of options as the class that the stub calls so: what annotations name."""
    if name not in _groups():
        raise AttributeError(f"module 'disagg._core' has no attribute {name!r}")
    return TypedDict(name, {o.name: ForwardRef(o.takes, module=__name__) for o in _groups()[name]}, total=False)  # type: ignore[operator]


vars(_core)["__getattr__"] = _group


def _whole(function: Callable[..., Any], options: Sequence[Option] | None) -> inspect.Signature:
    """Give the signature of a function with the arguments that its ``**options`` stand for."""
    signature = inspect.signature(function)
    if options is None:
        return signature
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named, none = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    further = [
        inspect.Parameter(o.name, named, default=none if o.required else o.default, annotation=o.takes) for o in options
    ]
    return signature.replace(parameters=[*own, *further])


def _wanted(
    function: Callable[..., Any], signature: inspect.Signature
) -> tuple[dict[str, tuple[type, ...]], list[str]]:
    """Give the classes that arguments must be of, and the names of those that need none."""
    parameters = [(n, p) for n, p in signature.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    classes = {n: found for n, p in parameters if (found := _classes(function, p.annotation))}
    return classes, [n for n, p in parameters if p.kind in _PLACED]


def _classes(function: Callable[..., Any], annotation: Any) -> tuple[type, ...]:
    """Give the classes that an annotation stands for; empty where they say too little."""
    if isinstance(annotation, str):
        try:
            names = getattr(function, "__globals__", {})
            annotation = eval(annotation, {**globals(), "specs": sys.modules["disagg.specs"], **names})  # noqa: S307
        except NameError:
            return ()
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    found: list[type] = []
    for part in parts:
        origin = get_origin(part)
        kind = part if origin is None else str if origin is Literal else origin
        if kind is None:
            kind = type(None)
        protocol = getattr(kind, "_is_protocol", False)
        if not isinstance(kind, type) or protocol or kind in _OPEN or kind is inspect.Parameter.empty:
            return ()
        found += [int, float] if kind is float else [kind]
    return tuple(dict.fromkeys(found))


def _fitted(
    wanted: dict[str, tuple[type, ...]], positional: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hold arguments against their classes."""
    given = {**dict(zip(positional, args, strict=False)), **kwargs}
    wrong = {n: v for n, v in given.items() if n in wanted and not isinstance(v, wanted[n])}
    if not wrong:
        return args, kwargs
    plain = {n: v.item() for n, v in wrong.items() if isinstance(v, np.generic) and isinstance(v.item(), wanted[n])}
    problems = [_misfit(n, v, *wanted[n]) for n, v in wrong.items() if n not in plain]
    if problems:
        raise SpecError(problems)
    placed = tuple(plain.get(n, v) for n, v in zip(positional, args, strict=False)) + args[len(positional) :]
    return placed, {n: plain.get(n, v) for n, v in kwargs.items()}


def _wrong_call(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Problem]:
    names = [n for n in signature.parameters if n not in _OWN]
    title = function.__qualname__.removesuffix(".__new__").removesuffix(".__init__").split(".")[-1]
    problems = [Problem(n, f"is not an argument of {title}", near(n, names)) for n in kwargs if n not in names]
    kinds = inspect.Parameter
    positional = [
        n for n, p in signature.parameters.items() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    if len(args) > len(positional):
        own = len(_OWN & set(positional))
        given, takes = len(args) - own, len(positional) - own
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
    """Raise one `SpecError` for every argument of the wrong class: name to ``(value, class, ...)``."""
    wrong = [(name, *pair) for name, pair in given.items() if not isinstance(pair[0], pair[1:])]
    if wrong:
        raise SpecError(_misfit(*each) for each in wrong)


def _misfit(name: str, value: object, *classes: type) -> Problem:
    wanted = " or a ".join(c.__name__ for c in classes if c is not type(None))
    hint = _spelled(value, classes) or f"expected a {wanted}"
    return Problem(name, f"a {type(value).__name__} does not fit here", hint)


def _spelled(value: object, classes: tuple[type, ...]) -> str:
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


def _rebuild(cls: type[Spec], text: str) -> Spec:
    """Make a spec from its pickle."""
    return cls.from_json(text)
