"""Connections that give up on clients who never finish the head of a request.

uvicorn itself waits for ever, and takes any number of headers.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
_TOO_LARGE = (b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n"
              b"connection: close\r\n\r\n")


class Connection(HttpToolsProtocol):
    """A connection that is closed when a head takes longer than `read_s`, or has no end."""

    _waiting: asyncio.TimerHandle | None = None
    _received = 0  # bytes while a head is awaited
    _in_message = False  # between the end of a head and that of its body

    def __init__(self, *args: Any, read_s: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._read_s = read_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Await the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is too long ends the connection."""
        if self._waiting is None and not self._in_message:
            self._await_head()
        if self._waiting is not None:
            self._received += len(data)
        super().data_received(data)
        if self._waiting is not None and self._received > MOST_HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self._give_up()

    def on_headers_complete(self) -> None:
        """Let the application answer."""
        self._in_message = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Know that what comes next is another request."""
        self._in_message = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._received = 0
        self._waiting = self.loop.call_later(self._read_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.close()
