"""`python -m tf_pipeline doctor`: what would not work here, why, and the command that cures it."""

import dataclasses
import importlib.util
import logging
import platform
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DOCTOR_EXIT, UserError
from ..install import ROOT, pip_install, pip_install_file, python
from .finding import AREAS, Area, Finding

if TYPE_CHECKING:
    from .imports import Outcome

log = logging.getLogger(__name__)
_LEVELS = {"error": 0, "warning": 1, "ok": 2}


def examine() -> list[Finding]:
    """Look at everything; faults first. Frameworks are imported in other processes only."""
    if importlib.util.find_spec("packaging") is None:
        raise UserError("The package packaging is missing: doctor compares versions with it. Run: "
                        f"{pip_install_file('requirements.txt')}")
    log.info("Trying imports, some seconds ...")
    found = [*_packages(), *_machine()]
    return sorted(found, key=lambda finding: _LEVELS[finding.level])


def _packages() -> Iterator[Finding]:
    from . import imports, packages

    demands = packages.collect(ROOT / "requirements.txt")
    present = {name for name in demands if packages.version(name) is not None}
    outcomes = imports.try_all(present)
    causes = {name: outcome.text for name, outcome in outcomes.items() if not outcome.ok}
    yield packages.python_version(platform.python_version())
    faulty = packages.faults(demands, causes)
    yield from faulty.values()
    first = ""
    for name, outcome in outcomes.items():
        if name in faulty:
            continue
        asked, version = demands[name], packages.version(name)
        shown, areas = asked[0].requirement.name, packages.areas_of(asked)
        if outcome.ok:
            yield Finding(areas, "ok", shown, str(version))
            continue
        # A wrong version elsewhere is the likely cause, and has to be cured in any case.
        cures = [f.cure for f in faulty.values() if set(f.areas) & set(areas)]
        if name in imports.CHAINS[0] and first:  # stands on what failed before it
            cures.append(first)
        absent = re.match(r"ModuleNotFoundError: No module named '(\w+)", outcome.text)
        cures.append(pip_install(absent[1]) if absent else
                     pip_install("--force-reinstall", "--no-deps", f"{shown}=={version}"))
        yield Finding(areas, "error", f"{shown} {version} cannot be imported", outcome.text,
                      cures[0])
        if name in imports.CHAINS[0]:
            first = first or cures[0]
    if not faulty:
        yield Finding(AREAS, "ok", "requirements", f"{len(demands)} packages fit together")
    yield from _device(outcomes.get("keras"))


def _device(outcome: "Outcome | None") -> Iterator[Finding]:
    """Say what training would run on, and whether a GPU lies idle."""
    from .. import gpus

    if outcome is not None and outcome.ok:
        yield Finding(("training",), "ok", "device", outcome.text)
        if not outcome.text.startswith("CPU"):
            return
    if idle := gpus.idle_gpu():
        yield Finding(("training",), "warning", f"GPU {idle.name} is not used", idle.reason,
                      idle.cure)


def _machine() -> Iterator[Finding]:
    lacking = [name for name in ("platformdirs", "requests")
               if importlib.util.find_spec(name) is None]
    from . import machine

    yield from machine.memory()
    if lacking:  # already an error of the requirements
        yield Finding(("training",), "warning", "disk, caches and network were not looked at",
                      f"without {', '.join(lacking)}", pip_install(*lacking))
        return
    yield from machine.disks()
    yield from machine.caches()


def summary(findings: list[Finding]) -> dict[Area, str]:
    """Say for each area `ok` or `broken`; warnings break nothing."""
    broken = {area for f in findings if f.level == "error" for area in f.areas}
    return {area: "broken" if area in broken else "ok" for area in AREAS}


def exit_code(findings: list[Finding]) -> int:
    """Give 0, or the sum of the codes of what would not work."""
    return sum(DOCTOR_EXIT[area] for area, state in summary(findings).items() if state != "ok")


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Give the findings as `--json` prints them."""
    return {"findings": [dataclasses.asdict(f) for f in findings], "summary": summary(findings),
            "exit": exit_code(findings), "python": python()}


def as_text(findings: list[Finding]) -> str:
    """Write one line a finding and the summary."""
    rows = [(f.level, "all" if f.areas == AREAS else ", ".join(f.areas), f.what, f.value)
            for f in findings]
    # A long line is not worth a wide table.
    widths = [min(max(len(row[column]) for row in rows), 34) for column in range(3)]
    lines = []
    for row, finding in zip(rows, findings, strict=True):
        start = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append(f"{start}  {row[3]}" + (f"  cure: {finding.cure}" if finding.cure else ""))
    states = " / ".join(f"{area}: {state}" for area, state in summary(findings).items())
    return "\n".join([*lines, "", states])
