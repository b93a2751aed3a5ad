"""What stands around every request: the token, the measuring, and the log."""

import hmac
import json
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .catalogue import Catalogue
from .errors import GONE

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(__name__)
# What an orchestrator asks without a token.
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


class Journal:
    """Counts every request that was answered, over HTTP or gRPC, and logs it where asked."""

    def __init__(self, catalogue: Catalogue, metrics: "Metrics", log_requests: bool = False):
        self._catalogue, self._metrics, self._log_requests = catalogue, metrics, log_requests

    def add(self, method: str, path: str, model: str, verb: str, status: int | str,
            seconds: float) -> None:
        """Note what became of a request; `status` is HTTP's number or gRPC's name."""
        # A name that nobody serves would be a new time series each.
        known = model if model in self._catalogue.names else ""
        self._metrics.request(known, verb, str(status), seconds)
        if self._log_requests:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "method": method, "path": path, "status": status,
                    "ms": round(seconds * 1e3, 3)}
            log.info("%s", json.dumps(line, ensure_ascii=False))


class Access:
    """Wraps the application; requests for anything but health need the token, if there is one."""

    def __init__(self, app: ASGIApp, journal: Journal, token: str | None = None):
        self._app, self._journal = app, journal
        self._token = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; what is no request (a lifespan) passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            app = self._app if self._allowed(scope) else _UNAUTHORIZED
            await app(scope, receive, watched)
        finally:
            asked = scope.get("path_params", {})
            verb = "infer" if scope["path"].endswith("/infer") else asked.get("verb")
            verb = verb if verb in ("predict", "answer", "infer") else ""
            self._journal.add(scope["method"], scope["path"], asked.get("name", ""), verb, status,
                              time.perf_counter() - start)

    def _allowed(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._token)


_UNAUTHORIZED = JSONResponse(
    {"error": "The request needs the server's token: Authorization: Bearer TOKEN."}, 401,
    {"WWW-Authenticate": "Bearer"})
