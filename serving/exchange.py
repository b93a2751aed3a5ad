"""A client's requests without a connection: what to send, what an answer says, when to try again.

A request is a generator of steps: it yields a Send or a Wait, gets a Reply or a Failure back for
the former, and returns what the caller asked for. Whoever runs it blocks or awaits; nothing here
does.
"""

import json
import math
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tf_pipeline.errors import UserError

RETRIED = (429, 503)  # the queue is full, or no version is loaded yet: both pass
BACK_OFF_S, LONGEST_BACK_OFF_S = 0.1, 2.0


class ServingError(UserError):
    """A request failed: the server's own sentence, and its `status` (None without an answer)."""

    def __init__(self, sentence: str, status: int | None = None):
        super().__init__(sentence)
        self.status = status


class ServingTimeout(ServingError):
    """The time of a request was over before its answer came."""


@dataclass(frozen=True)
class Send:
    """One try of a request, to be over when time.monotonic() is `end`."""

    method: str
    url: str
    body: bytes | None
    headers: dict[str, str]
    end: float

    def left(self) -> float:
        """Seconds until the end, never 0: a socket would take that for not waiting at all."""
        return max(self.end - time.monotonic(), 1e-3)

    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.end


class Timeouts(dict[str, float]):
    """httpcore asks before each phase of a request how long it may take: what is left by then."""

    def __init__(self, send: Send):
        super().__init__(dict.fromkeys(("connect", "write", "read", "pool"), send.left()))
        self._send = send

    def get(self, phase: str, default: Any = None) -> Any:
        """Give the seconds that are left."""
        return self._send.left() if phase in self else default


@dataclass(frozen=True)
class Wait:
    """A pause before the next try."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer that came whole; headers are found by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Failure:
    """No answer, or its beginning only."""

    reason: str
    began: bool  # the head of an answer came
    timed_out: bool


T = TypeVar("T")
Steps = Generator[Send | Wait, Reply | Failure | None, T]


@dataclass(frozen=True)
class Exchange:
    """How a server is asked."""

    server: str  # e.g. http://127.0.0.1:8501
    timeout_s: float
    retries: int
    token: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"The server's address is {self.server!r}; expected one such as "
                            "'http://127.0.0.1:8501'.")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UserError(f"timeout_s is {self.timeout_s}; it must be a number over 0.")
        if self.retries < 0:
            raise UserError(f"retries is {self.retries}; it must be 0 or more.")
        for position, sign in enumerate(self.token or ""):  # which the message must not show
            if not "!" <= sign <= "~":
                raise UserError(f"The token's character {position} cannot stand in a header. "
                                "Allowed are ASCII letters, digits and signs.")

    def ask(self, path: str, document: Mapping[str, Any] | None = None,
            key: str | None = None) -> Steps[Any]:
        """Get a description or, with a document, post it; gives the answer, or its `key`.

        Tries again while that may help and there is time; raises ServingError for the last try.
        """
        method, body = ("GET", None) if document is None else ("POST", write_json(document))
        url = self.server.rstrip("/") + path
        end, tries = time.monotonic() + self.timeout_s, 0
        while True:
            found = yield self._send(method, url, body, end)
            tries += 1
            if isinstance(found, Reply) and found.status == 200:
                return _read_json(found, url, key)
            pause = self._pause(found, tries)
            if pause is None or time.monotonic() + pause >= end:
                raise self._error(found, url, tries)
            yield Wait(pause)

    def once(self, path: str) -> Steps[bool]:
        """Try to get a path one time: whether its answer is 200."""
        found = yield self._send("GET", self.server.rstrip("/") + path, None,
                                 time.monotonic() + self.timeout_s)
        return isinstance(found, Reply) and found.status == 200

    def _send(self, method: str, url: str, body: bytes | None, end: float) -> Send:
        send = Send(method, url, body, {"accept": "application/json"}, end)
        # The server drops what nobody waits for any more.
        send.headers["x-request-timeout-ms"] = str(max(1, int(send.left() * 1000)))
        if body is not None:
            send.headers["content-type"] = "application/json"
        if self.token is not None:
            send.headers["authorization"] = f"Bearer {self.token}"
        return send

    def _pause(self, found: Reply | Failure | None, tries: int) -> float | None:
        """Seconds until the next try; None: there is none."""
        if tries > self.retries:
            return None
        # Full jitter: clients that failed together do not come back together.
        pause = random.uniform(0, min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2 ** (tries - 1)))
        if isinstance(found, Reply):
            return pause + _retry_after(found) if found.status in RETRIED else None
        assert found is not None
        # A broken answer may have been a broken server's; asking again would hide it.
        return None if found.began or found.timed_out else pause

    def _error(self, found: Reply | Failure | None, url: str, tries: int) -> ServingError:
        assert found is not None
        count = "" if tries == 1 else f" Tried {tries} times."
        if isinstance(found, Reply):
            kind = ServingTimeout if found.status == 504 else ServingError
            return kind(_sentence(found, url) + count, found.status)
        if found.timed_out:
            return ServingTimeout(f"{url} did not answer within {self.timeout_s:g} s.{count} Raise "
                                  "timeout_s, or send fewer texts at once.")
        if found.began:
            return ServingError(f"The answer of {url} broke off: {found.reason}.")
        return ServingError(f"No answer from {url}: {found.reason}.{count} Is the server running "
                            "there?")


def write_json(document: Mapping[str, Any]) -> bytes:
    """Write a body; UserError for what JSON cannot hold."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"The request cannot be written as JSON: {error}. Pass texts, numbers, "
                        "lists and dicts (for an array: array.tolist()).") from None
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: escaped, for the server to say where
        return json.dumps(document).encode()


def _read_json(reply: Reply, url: str, key: str | None) -> Any:
    try:
        document = json.loads(reply.body)
        return document if key is None else document[key]
    except (ValueError, KeyError, TypeError):
        expected = "JSON" if key is None else f"JSON with {key!r}"
        raise ServingError(f"{url} answered {_excerpt(reply.body)}; expected {expected}. Is that "
                           "the address of a server of this kit?", reply.status) from None


def _sentence(reply: Reply, url: str) -> str:
    """Give the server's own words for an error."""
    try:
        return str(json.loads(reply.body)["error"])
    except (ValueError, KeyError, TypeError):  # something else answered, a proxy perhaps
        return f"{url} answered {reply.status}: {_excerpt(reply.body)}."


def _excerpt(body: bytes) -> str:
    text = body[:200].decode("utf-8", "replace")
    return repr(text) if len(body) <= 200 else f"{text!r}... ({len(body):,} bytes)"


def _retry_after(reply: Reply) -> float:
    """Read how long the server wants to be left alone, in seconds; 0 if it does not say."""
    said = reply.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        date = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
