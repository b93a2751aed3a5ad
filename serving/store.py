"""A folder of models as TF Serving lays it out: MODELS/NAME/VERSION holds an artifact.

MODELS/NAME/versions.json may name labels, and the newest version that is served.
"""

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.files import disk_errors, sync, write_text

log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SETTINGS = "versions.json"


@dataclass(frozen=True)
class Settings:
    """What versions.json says."""

    newest: int | None = None  # versions above wait; None: none does
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """Finds, adds and chooses the versions in a folder of models."""

    folder: Path

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; expected a folder of models.")

    def names(self) -> list[str]:
        """List the models that have a version."""
        return sorted(path.name for path in self._children(self.folder)
                      if _NAME.fullmatch(path.name) and self.versions(path.name))

    def versions(self, name: str) -> list[int]:
        """List a model's finished versions, the oldest first."""
        return sorted(int(path.name) for path in self._children(self.folder / name)
                      if path.name.isascii() and path.name.isdigit()
                      and (path / "manifest.json").exists())

    def path(self, name: str, version: int) -> Path:
        """Give a version's folder."""
        return self.folder / name / str(version)

    def settings(self, name: str) -> Settings:
        """Read versions.json; UserError where it is none."""
        path = self.folder / name / SETTINGS
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return Settings()
        except ValueError as error:
            raise UserError(f"{path} is no JSON ({error}). `python -m serving label` and "
                            "`rollback` write it.") from None
        newest, labels = content.get("newest"), content.get("labels", {})
        numbers = [*labels.values(), *([] if newest is None else [newest])]
        if not all(type(number) is int for number in numbers):
            raise UserError(f"{path} holds {content}; expected numbers of versions, as in "
                            '{"newest": 2, "labels": {"stable": 1}}.')
        return Settings(newest, labels)

    def wanted(self, name: str) -> set[int]:
        """Say which versions are to answer: the newest that may, and those with a label."""
        labelled = set(self.settings(name).labels.values())
        return {*self._allowed(name)[-1:], *labelled.intersection(self.versions(name))}

    def add(self, artifact: Path, name: str | None = None, version: int | None = None) -> Path:
        """Copy an artifact in, whole or not at all, as the newest version by default.

        It is checked first. A version that is there is never overwritten, and what a rollback
        held back stays so.
        """
        manifest = Manifest.load(artifact)
        manifest.check_files(artifact)
        name = name or manifest.name
        if not _NAME.fullmatch(name):
            raise UserError(f"--name is {name!r}; allowed are letters, digits, dots, dashes and "
                            "underscores, no dot or dash first.")
        if version is not None and version < 1:
            raise UserError(f"--version is {version}; it must be 1 or more.")
        there = self.versions(name)
        number = version if version is not None else max([manifest.version - 1, *there]) + 1
        target = self.path(name, number)
        if target.exists():
            raise UserError(f"{target} exists and is not overwritten. Choose another --version, "
                            f"or leave it out for {max([*there, 0]) + 1}.")
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.partial-{os.getpid()}")
            try:
                shutil.copytree(artifact, part)
                for path in part.rglob("*"):
                    sync(path)
                os.rename(part, target)
                sync(target.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        if number not in self.wanted(name):
            log.warning("Version %d of %s is not served: a rollback or a higher version holds it "
                        "back. Serve it with: python -m serving rollback %s %s --to %d", number,
                        name, self.folder, name, number)
        return target

    def serve_newest(self, name: str, version: int | None = None) -> int:
        """Serve no version above this one, by default none above the one before the newest."""
        there = self._known(name)
        allowed = self._allowed(name)
        if version is None and len(allowed) < 2:
            raise UserError(f"{name} has no version before {_list(allowed) or 'those held back'}, "
                            f"which is served. It has: {_list(there)}.")
        chosen = allowed[-2] if version is None else version
        self._check(name, chosen)
        # The highest of all is what is served without a rollback.
        self._write(name, {"newest": None if chosen == there[-1] else chosen})
        return chosen

    def label(self, name: str, label: str, version: int) -> None:
        """Let a label mean a version, from now on."""
        if not _NAME.fullmatch(label):
            raise UserError(f"The label is {label!r}; allowed are letters, digits, dots, dashes "
                            "and underscores.")
        self._check(name, version)
        self._write(name, {"labels": {**self.settings(name).labels, label: version}})

    def _allowed(self, name: str) -> list[int]:
        """List the versions that no rollback holds back, the oldest first."""
        newest = self.settings(name).newest
        return [v for v in self.versions(name) if newest is None or v <= newest]

    def _write(self, name: str, changes: dict[str, Any]) -> None:
        settings = self.settings(name)
        content = {"newest": settings.newest, "labels": settings.labels, **changes}
        write_text(self.folder / name / SETTINGS, json.dumps(content, indent=2) + "\n")

    def _known(self, name: str) -> list[int]:
        there = self.versions(name)
        if not there:
            raise UserError(f"{self.folder} has no model {name!r}. It has: "
                            f"{', '.join(self.names()) or 'none'}.")
        return there

    def _check(self, name: str, version: int) -> None:
        there = self._known(name)
        if version not in there:
            raise UserError(f"{name} has no version {version}. It has: {_list(there)}.")

    @staticmethod
    def _children(folder: Path) -> list[Path]:
        return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _list(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
