"""One family of errors; each is also the built-in error that fits, so ``except ValueError`` keeps working."""

from __future__ import annotations

from typing import Any


class PyhessError(Exception):
    """Base of every error pyhess raises on purpose."""


class InputError(PyhessError, ValueError):
    """A value that is not allowed."""


class InputTypeError(PyhessError, TypeError):
    """An object of the wrong kind."""


# The built-in error comes first, because MemoryError alone of all makes its instances itself: packages that replace the way
# exceptions are pickled (tblib does when dask is imported) ask the first base for one.
class MemoryLimitError(MemoryError, PyhessError):
    """More memory needed than is allowed or can be had."""


class NumericalError(PyhessError, RuntimeError):
    """A computation that could not be carried out to the accuracy promised."""


class NonFiniteError(NumericalError):
    """A result that overflowed or is not a number."""


class NotConvergedError(NumericalError):
    """An iteration that ended before its tolerance; ``result`` holds what was computed."""

    def __init__(self, message: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.result)


class FileError(PyhessError, OSError):
    """A file that cannot be read or written, or that does not hold what it should."""


class StoreError(FileError):
    """A store of sweep results that is in use, of a newer version, or no such store."""


class MissingDependencyError(PyhessError, ImportError):
    """An optional package is not installed."""
