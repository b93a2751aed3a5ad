"""Keeps the models that a server has as their folder says, while requests are answered.

A new version is loaded and warmed before it takes requests, and the old one answers what it has
begun. One that cannot be loaded is named in the status and the log, and the old one stays.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from tf_pipeline.errors import UserError

from .catalogue import Catalogue, Version
from .service import Service
from .store import Store

log = logging.getLogger(__name__)
Load = Callable[[Path, str, int], Service]  # a folder, the model's name and the version


class Watcher:
    """Compares a folder of models with a catalogue."""

    def __init__(self, store: Store, catalogue: Catalogue, load: Load, every_s: float,
                 tell_all: Callable[[], None]):
        self._store, self._catalogue, self._load = store, catalogue, load
        self._tell_all = tell_all  # makes every process of the server look at the folder
        self._looking = asyncio.Lock()
        self._every_s = every_s
        self._failed: dict[tuple[str, int], int] = {}  # when the manifest was written
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Look at the folder now; from the event loop's thread, or a signal handler of its."""
        self._asked.set()

    def fill(self) -> None:
        """Load what is wanted before the first request; UserError where nothing can be served."""
        for name in self._store.names():
            for number in sorted(self._store.wanted(name)):
                path = self._store.path(name, number)
                try:
                    self._serve(self._load(path, name, number))
                except UserError as error:
                    self._refuse(name, number, _stamp(path), error)
            self._catalogue.label(name, self._store.settings(name).labels)
        if not self._catalogue.services:
            raise UserError(f"{self._store.folder} holds no model that can be served. Add one: "
                            f"python -m serving add ARTIFACT {self._store.folder}")

    async def run(self) -> None:
        """Look at the folder again and again."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._every_s or None)
            self._asked.clear()
            await self.refresh()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look at the folder while the block lasts; first once before it begins."""
        await self.refresh()  # it may have changed since the files were loaded
        running = asyncio.ensure_future(self.run())
        try:
            yield
        finally:
            running.cancel()

    async def reload(self) -> None:
        """Look at the folder now, in the server's other processes too, which are not waited for."""
        self._tell_all()
        await self.refresh()

    async def refresh(self) -> None:
        """Load what is new, then let go of what is no longer wanted."""
        try:
            async with self._looking:
                names = await run_in_threadpool(self._store.names)
                gone = set(self._catalogue.names) - set(names)
                for name in (*names, *gone):
                    await self._update(name)
        except (UserError, OSError) as error:  # versions.json, or a folder that cannot be read
            log.error("%s The models stay as they are.", error)

    async def _update(self, name: str) -> None:
        wanted = await run_in_threadpool(self._store.wanted, name)
        for number in sorted(wanted):
            known = self._catalogue.versions(name).get(number)
            if known is None or not known.service:
                await self._add(name, number)
        self._catalogue.label(name, self._store.settings(name).labels)
        answering = {n for n, v in self._catalogue.versions(name).items() if v.service}
        if wanted <= answering:
            for number in answering - wanted:
                self._catalogue.put(name, Version(number, "END"))
                log.info("Version %d of %s is no longer served.", number, name)

    async def _add(self, name: str, number: int) -> None:
        path = self._store.path(name, number)
        stamp = _stamp(path)
        if self._failed.get((name, number)) == stamp:
            return
        self._catalogue.put(name, Version(number, "LOADING"))
        # A runtime has errors of its own for a file that it cannot load.
        (found,) = await asyncio.gather(run_in_threadpool(self._load, path, name, number),
                                        return_exceptions=True)
        if isinstance(found, Service):
            self._serve(found)
        elif isinstance(found, Exception):
            self._refuse(name, number, stamp, found)
        else:
            raise found

    def _serve(self, service: Service) -> None:
        self._catalogue.put(service.name, Version(service.version, "AVAILABLE", service))
        log.info("Version %d of %s is served.", service.version, service.name)

    def _refuse(self, name: str, number: int, stamp: int, error: Exception) -> None:
        self._failed[name, number] = stamp
        self._catalogue.put(name, Version(number, "END", error=str(error)))
        log.error("Version %d of %s cannot be loaded: %s", number, name, error)


def _stamp(path: Path) -> int:
    return (path / "manifest.json").stat().st_mtime_ns
