"""The file name is the registry: a package's modules are the choices of that name."""

import importlib
import pkgutil
from types import ModuleType

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
