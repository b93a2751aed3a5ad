"""The models that a server has, by name, version and label."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tf_pipeline.errors import UserError

from . import tf_serving
from .errors import NotFound
from .options import Limits
from .service import Service

# As TF Serving calls what becomes of a version.
State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]


@dataclass(frozen=True)
class Version:
    """A version of a model; `service` is there while it is AVAILABLE."""

    number: int
    state: State
    service: Service | None = None
    error: str = ""  # why it is not served


Reload = Callable[[], Awaitable[None]]
# method, path, model, verb, status and seconds of a request that was answered
Note = Callable[[str, str, str, str, int | str, float], None]


async def refuse_reload() -> None:
    """Raise UserError where there is no folder of models."""
    raise UserError("A folder of models is missing: this server was started with one artifact. "
                    "Start it with a folder that `python -m serving add` filled.")


def unnoted(*request: Any) -> None:
    """Forget a request."""


class Catalogue:
    """What is served now. Only one thread changes it, so no request sees half a change."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, Version]] = {}
        self._labels: dict[str, Mapping[str, int]] = {}

    @classmethod
    def of(cls, service: Service) -> "Catalogue":
        """Hold one model in one version."""
        catalogue = cls()
        catalogue.put(service.name, Version(service.version, "AVAILABLE", service))
        return catalogue

    @property
    def names(self) -> list[str]:
        """The models that are known, also those without a version that answers."""
        return sorted(self._versions)

    @property
    def labels(self) -> list[str]:
        """The labels that any model's versions have."""
        return sorted({label for labels in self._labels.values() for label in labels})

    @property
    def services(self) -> list[Service]:
        """The newest version of each model, by name."""
        found = [self._newest(name) for name in sorted(self._versions)]
        return [service for service in found if service is not None]

    def put(self, name: str, version: Version) -> None:
        """Add a version or change its state; what it was before lets go of its files."""
        versions = self._versions.setdefault(name, {})
        before = versions.get(version.number)
        versions[version.number] = version
        if before and before.service and before.service is not version.service:
            before.service.retire()

    def label(self, name: str, labels: Mapping[str, int]) -> None:
        """Say which versions a model's labels mean."""
        self._labels[name] = dict(labels)

    def versions(self, name: str) -> dict[int, Version]:
        """Give what is known of a model's versions; empty where there is no such model."""
        return dict(self._versions.get(name, {}))

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Service:
        """Give a version that answers, by default the newest; NotFound where there is none."""
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            if version is None:
                raise NotFound(f"Unrecognized servable version label: {label}")
        service = self._newest(name) if version is None else (
            known.service if (known := self.versions(name).get(version)) else None)
        if service is None:
            raise NotFound(tf_serving.not_found(name, version))
        return service

    def statuses(self, name: str, version: int | None = None) -> list[Version]:
        """Give a model's versions or one of them, the newest first; NotFound where none is."""
        found = [known for number, known in sorted(self.versions(name).items(), reverse=True)
                 if version in (None, number)]
        if not found:
            raise NotFound(tf_serving.no_status(name, version))
        return found

    def _newest(self, name: str) -> Service | None:
        answering = [v for v in self.versions(name).values() if v.service]
        return max(answering, key=lambda v: v.number).service if answering else None


@dataclass(frozen=True)
class Served:
    """What a protocol answers from."""

    catalogue: Catalogue
    limits: Limits = Limits()
    reload: Reload = refuse_reload  # looks for what is new in the folder of models
    note: Note = unnoted
