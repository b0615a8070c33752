"""What all tests share."""

import os

# Before OpenMP makes its threads: on cores shared with other work, those that spin hold up those that they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Iterator
from pathlib import Path

import pytest

import pyhess


@pytest.fixture(scope="session", autouse=True)
def _children_import_what_the_tests_import() -> Iterator[None]:
    """Child processes get this process's pyhess: the checkout in the working directory may hold no compiled core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")
        folders = [str(Path(pyhess.__path__[0]).parent), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        yield
