"""Do the installed versions fit together? Read from requirements files and packages' metadata."""

import importlib.metadata
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import UserError
from ..install import ROOT, pip_install, pip_install_file
from .finding import AREAS, Area, Finding

_NEEDED_FOR = re.compile(r"#\s*Needed for: (.+)")


@dataclass(frozen=True)
class Demand:
    """Somebody, a file or an installed package, needs a package."""

    by: str
    requirement: Requirement
    areas: frozenset[Area]


Demands = dict[str, list[Demand]]  # by canonical name


def read(path: Path) -> Iterator[Demand]:
    """Read a requirements file and those that it names.

    A line `# Needed for: training, export` holds for what follows it; before the first, all areas.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; doctor reads versions there. Run it in a checkout.")
    areas = frozenset(AREAS)
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if found := _NEEDED_FOR.fullmatch(line.strip()):
            words = {word.strip() for word in found[1].split(",")}
            areas = frozenset(area for area in AREAS if area in words)
            if words - areas:
                raise UserError(f"{path}:{number} has the areas {found[1]!r}; allowed are "
                                f"{', '.join(AREAS)}, separated by commas.")
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line.startswith("-r"):
            yield from read(path.parent / line.removeprefix("-r").strip())
        elif line and not line.startswith("-"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield Demand(_shown(path), requirement, areas)


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def version(name: str) -> Version | None:
    """Give a package's installed version, or None, without importing it."""
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def collect(path: Path) -> Demands:
    """Follow the requirements of a file through all installed packages.

    A package that the file itself rules out is not asked for its own demands: what replaces it
    will have others, and they would blame innocent packages.
    """
    queue = list(read(path))
    wrong = {canonicalize_name(d.requirement.name) for d in queue if not _fits(d)}
    demands: Demands = {}
    seen: dict[tuple[str, str], frozenset[Area]] = {}
    while queue:
        demand = queue.pop(0)
        name = canonicalize_name(demand.requirement.name)
        demands.setdefault(name, []).append(demand)
        for extra in ("", *sorted(demand.requirement.extras)):
            before = seen.get((name, extra), frozenset())
            if demand.areas <= before or name in wrong or version(name) is None:
                continue
            seen[name, extra] = before | demand.areas
            queue += _asked_by(name, extra, demand.areas)
    return demands


def _asked_by(name: str, extra: str, areas: frozenset[Area]) -> Iterator[Demand]:
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None:
            applies = not extra  # else yielded with the extra "" already
        else:
            applies = marker.evaluate({"extra": extra}) and not (
                extra and marker.evaluate({"extra": ""}))
        if applies:
            yield Demand(f"{name} {version(name)}", requirement, areas)


def _fits(demand: Demand) -> bool:
    found = version(demand.requirement.name)
    return found is not None and demand.requirement.specifier.contains(found, prereleases=True)


def areas_of(demands: list[Demand]) -> tuple[Area, ...]:
    """Give the areas of several demands, in the usual order."""
    return tuple(a for a in AREAS if any(a in demand.areas for demand in demands))


def wanted(demands: list[Demand]) -> str:
    """Write one requirement that meets all demands, e.g. `protobuf<8,>=6.31`."""
    bounds: dict[str, list[Specifier]] = {}
    extras: set[str] = set()
    for demand in demands:
        extras |= demand.requirement.extras
        for specifier in demand.requirement.specifier:
            bounds.setdefault(specifier.operator, []).append(specifier)
    # Of several bounds on one side the tightest says it all.
    for operator, tightest in ((">=", max), ("<", min)):
        if operator in bounds:
            bounds[operator] = [tightest(bounds[operator], key=lambda s: Version(s.version))]
    every = dict.fromkeys(str(specifier) for some in bounds.values() for specifier in some)
    name = demands[0].requirement.name
    return name + (f"[{','.join(sorted(extras))}]" if extras else "") + ",".join(every)


def faults(demands: Demands, causes: dict[str, str]) -> dict[str, Finding]:
    """Find the packages that are absent or do not fit those that need them.

    `causes` says why an import failed, by canonical name as in the answer.
    """
    found = {}
    absent = [name for name in demands if version(name) is None]
    for name, asked in demands.items():
        if unmet := [demand for demand in asked if not _fits(demand)]:
            value = str(version(name) or "not installed")
            if name in causes:
                value += f", and its import fails: {causes[name]}"
            cure = pip_install(wanted(asked))
            if len(absent) > 3 and asked[0].by.endswith(".txt"):
                cure = pip_install_file(asked[0].by)  # one command instead of many
            found[name] = Finding(areas_of(unmet), "error",
                                  f"{unmet[0].requirement.name}: {_reasons(unmet)}", value, cure)
    return found


def _reasons(unmet: list[Demand]) -> str:
    needs: dict[str, dict[str, None]] = {}  # those who need the same are named together
    for demand in unmet:
        needs.setdefault(str(demand.requirement.specifier) or "it", {})[demand.by] = None
    return "; ".join(f"{', '.join(by)} needs {what}" for what, by in needs.items())


def python_version(running: str) -> Finding:
    """Compare the running Python with what pyproject.toml allows."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        allowed = tomllib.load(stream)["project"]["requires-python"]
    if SpecifierSet(allowed).contains(running, prereleases=True):
        return Finding(AREAS, "ok", "Python", running)
    return Finding(AREAS, "error", f"Python: pyproject.toml needs {allowed}", running,
                   "make clean venv PYTHON=" + shlex.quote("python3.12"))
