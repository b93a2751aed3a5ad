"""The file name is the registry: a package's modules are the choices of that name."""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .errors import UserError


def names(package: ModuleType) -> list[str]:
    """List the plugins of a package without importing any of them."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def load(package: ModuleType, name: str) -> ModuleType:
    """Import one plugin; an unknown name raises UserError with the choices."""
    known = names(package)
    if name not in known:
        noun = package.__name__.rpartition(".")[2].removesuffix("s")
        raise UserError(f"Unknown {noun} {name!r}. Choose one of: {', '.join(known)}.")
    return importlib.import_module(f"{package.__name__}.{name}")


def public(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """Give a package's `__getattr__`: each public name from its module, loaded when first used."""
    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{homes[name]}", package), name)

    return get
