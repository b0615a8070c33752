"""One writer per store: a lock that the operating system takes back from a dead process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from ..errors import FileError, StoreError


class WriterLock:
    """An exclusive lock on ``NAME.lock`` beside the store; who holds it is written there for the message to the second one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, store: Path, *, needed: bool = True) -> WriterLock | None:
        """Take the lock; None where the file system has no locks and none is ``needed``.

        Raises
        ------
        StoreError
            If another process has it.
        FileError
            If the file system has no locks or the file cannot be made.
        """
        path = Path(f"{store}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise FileError(
                f"{path} cannot be written: {error.strerror}. It keeps two runs from writing to one store."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            raise StoreError(
                f"{store} is being written by {holder}. Wait until it ends or stop it; `pyhess sweep status` shows what it does. "
                "For several runs at once give each its own store and a --shard i/N, and join them with `pyhess sweep merge`."
            ) from None
        except OSError as error:
            os.close(descriptor)
            if not needed:
                return None
            raise FileError(
                f"{store} cannot be locked: {error.strerror}. Put the store on a local disk, one per run, and join them with "
                "`pyhess sweep merge`."
            ) from error
        try:
            about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(about).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, and the store will say what is wrong
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two others lock two different files of that name."""
        os.close(self._descriptor)


def is_locked(store: str | os.PathLike[str]) -> bool:
    """Whether a driver holds the lock now."""
    try:
        descriptor = os.open(f"{os.fspath(store)}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(about['pid'])} on {about['host']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
