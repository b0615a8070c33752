"""The peers: one module per library, each with the same few names.

``NAME`` (what tables call it), ``DISTRIBUTION`` (what pip calls it), and whichever of these functions it can serve:

``prepare(problem) -> list[Product]``        products at ``problem.theta``
``prepare_batch(problem) -> list[Product]``  products at all ``problem.thetas`` at once
``prepare_quotient(problem)``                ``f(theta, v) -> (v'Hv, gradient in theta, gradient in v)``
``solver(...)``, ``prepare_eigen(...)``      the smallest eigenpair
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from ..cases import Array

MODULES = (
    "torch_backward", "torch_functional", "torch_compiled", "torch_quotient", "jax_products", "jax_quotient",
    "curvlinops_hessian", "pyhessian_products", "eigenthings", "scipy_eigsh", "matfree_lanczos", "primme_eigsh",
)  # fmt: skip


@dataclass(frozen=True)
class Product:
    """One way to multiply by the Hessian: ``unload(multiply(load(v)))`` is H v.

    ``load`` and ``unload`` go between NumPy and the library's own containers and are not timed. ``multiply`` returns when
    the work is done. ``cached``: the state at theta is kept, only the product remains. ``function``, where the library
    works with traced functions, is (H v as a function of the library, its parameters). ``flops``: if known to be other than
    those of a product whose state is kept.
    """

    who: str
    cached: bool
    load: Callable[[Array], Any]
    multiply: Callable[[Any], Any]
    unload: Callable[[Any], Array]
    function: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    flops: float | None = None

    def __call__(self, v: Array) -> Array:
        """H v for NumPy arrays."""
        return self.unload(self.multiply(self.load(v)))


@dataclass(frozen=True)
class Peers:
    """What could be imported, and for each peer that could not, why."""

    modules: dict[str, ModuleType]
    missing: dict[str, str]

    def versions(self) -> dict[str, str]:
        """Per available peer, the version of the library."""
        return {module.NAME: metadata.version(module.DISTRIBUTION) for module in self.modules.values()}

    def providing(self, function: str) -> list[ModuleType]:
        """The available peers with a function of this name."""
        return [module for module in self.modules.values() if hasattr(module, function)]


def load(names: tuple[str, ...] = MODULES) -> Peers:
    """Import the peers; one that is not installed is named, with the reason."""
    modules: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            modules[name] = importlib.import_module(f"{__name__}.{name}")
        except Exception as error:  # an installation can be broken in other ways than ImportError
            missing[name] = _reason(error)
    return Peers(modules, missing)


def products(peers: Peers, function: str, problem: Any, failed: dict[str, str]) -> list[Product]:
    """All products the peers prepare for a problem; a peer that raises is named in ``failed``, with the reason."""
    found: list[Product] = []
    for module in peers.providing(function):
        try:
            found += getattr(module, function)(problem)
        except Exception as error:
            failed[module.NAME] = _reason(error)
    return found


def _reason(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
