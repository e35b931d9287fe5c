"""What every public error has to pass."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType

from sepelib.util.testing._require import require

__all__ = ["check_error", "check_errors"]


def _pickled(protocol: int, error: BaseException) -> BaseException:
    twin: BaseException = pickle.loads(pickle.dumps(error, protocol))
    return twin


_COPIES: dict[str, Callable[[BaseException], BaseException]] = {
    **{f"pickle {n}": partial(_pickled, n) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def check_error(error: BaseException) -> None:
    """AssertionError unless *error* pickles and copies with all fields, and is one line of text."""
    cls = type(error)
    name = cls.__qualname__
    require(not name.endswith("Exception"), f"{name}: a name ends in a condition")
    require(_is_one_line(str(error)), f"{name}: str() is not one line of text: {str(error)!r}")
    require("\n" not in repr(error), f"{name}: repr() has more than one line")
    for how, make in _COPIES.items():
        try:
            twin = make(error)
        except Exception as failure:
            raise AssertionError(f"{name}: {how} fails: {failure!r}") from failure
        require(type(twin) is cls, f"{name}: {how} makes a {type(twin).__qualname__}")
        require(str(twin) == str(error), f"{name}: {how} says {str(twin)!r}, not {str(error)!r}")
        require(repr(twin.args) == repr(error.args), f"{name}: {how} changes args to {twin.args!r}")
        was, became = _fields(error), _fields(twin)
        require(became == was, f"{name}: {how} changes the fields {was} to {became}")


def check_errors(*modules: ModuleType, examples: Iterable[BaseException] = ()) -> None:
    """`check_error()` of *examples*, and of each exception in the `__all__` of *modules*.

    A class without an example (of exactly that class) is made with one sentence; AssertionError
    when it wants more, so that no error is forgotten.
    """
    by_class = {type(example): example for example in examples}
    for module in modules:
        for name in module.__all__:
            cls = getattr(module, name)
            if isinstance(cls, type) and issubclass(cls, BaseException) and cls not in by_class:
                by_class[cls] = _example(cls)
    for error in by_class.values():
        check_error(error)


def _example(cls: type[BaseException]) -> BaseException:
    try:
        return cls("one sentence")
    except Exception as error:
        raise AssertionError(f"no example of {cls.__qualname__}: {error}") from error


def _is_one_line(text: str) -> bool:
    return bool(text.strip()) and len(text.splitlines()) == 1


def _fields(error: BaseException) -> dict[str, str]:
    # By their repr: a field need not define equality.
    return {name: repr(value) for name, value in sorted(vars(error).items())}
