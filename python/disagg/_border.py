"""Nothing but the package's own errors leaves it: what slips out of a call is turned into one that names the call.

`seal` goes over every public function, method and property once, when the package is imported. A number too large for
the core, half a character, text nested too deep, a value of the wrong kind or memory that is not there become a
`SpecError`, what the system says of a file a `DataError`, a panic of the core an `InternalError`; the first error is
the cause. What a caller's own code raises (a progress function, a mask, an executor) passes as it is, and so does what
stops a program.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, ForwardRef

from disagg.errors import DataError, DisaggError, InternalError, SpecError

__all__ = ["hint", "seal", "sealed"]

# Whose frames may stand between a call and an error that the call has to answer for.
_OURS = tuple(
    os.path.join(os.path.dirname(p), "")  # noqa: PTH118, PTH120 - importing disagg does not import pathlib
    for p in (__file__, sys.modules["numpy"].__file__ or "")
)
_STDLIB = os.path.join(sysconfig.get_path("stdlib"), "")  # noqa: PTH118
_MOST = 1 << 63

_STRAY = (
    OverflowError, UnicodeError, RecursionError, MemoryError, LookupError, TypeError, ValueError, AttributeError,
    ArithmeticError, OSError,
)  # fmt: skip


def sealed(function: Callable[..., Any], *, title: str = "") -> Callable[..., Any]:
    """Give the function with its stray errors turned into the package's own.

    Parameters
    ----------
    function
        What is called.
    title
        Its name in errors; empty: its own.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from disagg._border import sealed
    >>> sealed(Fraction, title="share")(1, 0)
    Traceback (most recent call last):
    disagg.errors.SpecError: share: was given what does not fit: Fraction(1, 0)
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (DisaggError, NotImplementedError):
            raise
        except _STRAY as e:
            if _from_outside(e, function):
                raise
            raise _own(function, _named(title or function.__qualname__, args), args, kwargs, e) from e
        except BaseException as e:
            if type(e).__name__ == "PanicException":
                raise InternalError(str(e)) from e
            raise

    return guarded


def seal(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Seal the public functions and classes of a namespace, and of the modules in it."""
    for name in names:
        value = namespace[name]
        if isinstance(value, ModuleType):
            seal(value.__dict__, getattr(value, "__all__", ()))
        elif isinstance(value, FunctionType) and str(value.__module__).startswith("disagg."):
            # Pickles find it by the module that it says it is of.
            home: dict[str, Any] = sys.modules[str(value.__module__)].__dict__
            known = home.get(name)
            if known is not None and known is value:
                home[name] = sealed(known)
            namespace[name] = home.get(name, value)
        elif isinstance(value, type) and not issubclass(value, BaseException):
            for cls in value.__mro__:
                if cls.__module__.startswith("disagg.") and cls.__flags__ & _HEAP:
                    _seal_class(cls)


def hint(**found: Any) -> None:
    """Put names that modules import for types only into the modules, so that `typing.get_type_hints` finds them."""
    found["specs"] = sys.modules["disagg.specs"]
    # The name of a class that is imported when somebody asks: matplotlib is heavy.
    found["Axes"] = ForwardRef("__import__('matplotlib.axes').axes.Axes")
    for name, module in sys.modules.items():
        if name.startswith("disagg.") and name != "disagg._core":
            vars(module).update({n: v for n, v in found.items() if n not in vars(module)})


_HEAP = 1 << 9
_SPOKEN = ("__init__", "__getitem__", "__len__", "__eq__", "__repr__", "_repr_html_")
_SEALED: set[type] = set()


def _seal_class(cls: type) -> None:
    if cls in _SEALED or cls.__module__ == "disagg._core":
        return
    _SEALED.add(cls)
    for name, value in list(vars(cls).items()):
        if name.startswith("_") and name not in _SPOKEN:
            continue
        title = f"{cls.__name__}.{name}".removesuffix(".__init__")
        if isinstance(value, FunctionType):
            setattr(cls, name, sealed(value, title=title))
        elif isinstance(value, (classmethod, staticmethod)):
            inner: Any = value.__func__
            setattr(cls, name, type(value)(sealed(inner, title=title)))
        elif isinstance(value, property) and value.fget is not None:
            setattr(cls, name, property(sealed(value.fget, title=title), value.fset, value.fdel, value.__doc__))


def _from_outside(e: BaseException, function: Callable[..., Any]) -> bool:
    """Whether it was raised in somebody else's code that ours, the function among it, has called."""
    own = getattr(function, "__code__", None)
    last, trace = "", e.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename
        ours = code is own or file.startswith(("<frozen", "<string")) or file.startswith(_OURS)
        if not (ours or (file.startswith(_STDLIB) and "site-packages" not in file)):
            last = file
        trace = trace.tb_next
    return bool(last)


def _named(title: str, args: tuple[Any, ...]) -> str:
    """Say whose method it is by the object at hand, whatever base has it."""
    base, _, name = title.partition(".")
    if name and args and any(c.__name__ == base for c in type(args[0]).__mro__):
        return f"{type(args[0]).__name__}.{name}"
    return title


def _own(
    function: Callable[..., Any], title: str, args: tuple[Any, ...], kwargs: dict[str, Any], e: BaseException
) -> DisaggError:
    if isinstance(e, OSError):
        return DataError(str(e.filename or title), f"cannot be used: {e.strerror or e}")
    if isinstance(e, MemoryError):
        return SpecError([("", f"{title} needs more memory than there is", "ask for less at once")])
    if isinstance(e, RecursionError):
        return SpecError([("", f"{title} was given what is nested too deep", "flatten it")])
    try:
        given = dict(inspect.signature(function).bind_partial(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        given = {}
    if isinstance(e, OverflowError):
        big = [n for n, v in given.items() if isinstance(v, int) and abs(v) >= _MOST]
        return SpecError([(n, f"is too large ({title})", "give a number below 2^63") for n in big or [title]])
    if isinstance(e, UnicodeError):
        half = [n for n, v in given.items() if isinstance(v, str) and not _whole(v)]
        return SpecError([(n, f"is not text that can be written ({title})", "") for n in half or [title]])
    said = str(e) or type(e).__name__
    return SpecError([(title, f"was given what does not fit: {said:.300}", "")])


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
