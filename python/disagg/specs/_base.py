"""What guards a call: wrong arguments and wrong classes become one `SpecError` that names them all.

The specs themselves are classes of the native core (`_core.Spec`): frozen, keyword-built, compared by value, readable,
exact in JSON and pickle.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from disagg import _core
from disagg.errors import Problem, SpecError

F = TypeVar("F", bound=Callable[..., Any])

Spec = _core.Spec
"""Base of all specs."""


_OWN = {"self", "cls"}


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
            return function(*args, **kwargs)
        except TypeError as e:
            # What is raised inside has come through a frame of its own.
            inside = e.__traceback__ is not None and e.__traceback__.tb_next is not None
            problems = [] if inside else _wrong_call(function, signature, args, kwargs)
            if not problems:
                raise
            if probe:
                problems += _more_problems(function, signature, args, kwargs)
            raise SpecError(problems) from e

    return cast("F", guarded)


def constructor(function: F) -> F:
    """Guard a constructor, which does nothing else: `checked` with a probe."""
    return checked(function, probe=True)


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
