"""Ask a server of this kit from Python, blocking or with await.

    pip install -r serving/requirements-client.txt

    with Client("http://127.0.0.1:8501", model="reviews") as client:
        client.answer(["what a film"])
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote

from tf_pipeline.errors import UserError
from tf_pipeline.install import pip_install_file

from .exchange import Exchange, Failure, Reply, Send, Steps, Timeouts, write_json

try:
    import anyio
    import httpx2
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"No module named {error.name!r}. Run: "
                              f"{pip_install_file('serving/requirements-client.txt')}",
                              name=error.name) from None

# uvicorn closes a connection that was idle for 5 s. Letting go of it a little before leaves no
# request to be written into one that is just being closed.
IDLE_S = 4.0
LIMITS = httpx2.Limits(keepalive_expiry=IDLE_S)
_AROUND = 500  # bytes of a request's body beside its texts
Text = str | Sequence[str]  # a pair of texts is a sequence of two
T = TypeVar("T")


class _Model:
    """What can be asked of a model, as steps."""

    def __init__(self, exchange: Exchange, model: str, version: int | None):
        if not model:
            raise UserError(f"The model's name is {model!r}. Pass the name in the address that the "
                            "server printed, e.g. model='reviews'.")
        self.exchange = exchange
        self.path = f"/v1/models/{quote(model, safe='')}" + (
            "" if version is None else f"/versions/{version}")
        self.limits: dict[str, int] | None = None  # of one request; asked of the server once

    def answer(self, texts: Sequence[Text], file: str | None) -> Steps[list[dict[str, Any]]]:
        """Decoded answers, by as many requests as the server's limit makes of the texts."""
        if isinstance(texts, str | bytes):
            raise UserError(f"The texts are {texts[:40]!r}; pass a list, also of one text.")
        rows = list(texts)
        if len(rows) > 1 and self.limits is None:
            self.limits = yield from self.exchange.ask(f"{self.path}/files", key="limits")
        answers: list[dict[str, Any]] = []
        for portion in _portions(rows, self.limits or {}):
            document: dict[str, Any] = {"texts": portion}
            if file is not None:
                document["file"] = file
            answers += yield from self.exchange.ask(f"{self.path}:answer", document, "answers")
        return answers

    def predict(self, instances: Sequence[Any] | None, inputs: Any,
                signature_name: str | None) -> Steps[Any]:
        """Raw outputs: what the answer holds as `predictions` or `outputs`."""
        if (instances is None) == (inputs is None):
            given = "neither" if inputs is None else "both"
            raise UserError(f"Of instances and inputs {given} is given; pass one of them: rows as "
                            "instances, or columns as inputs.")
        key, value = ("instances", instances) if inputs is None else ("inputs", inputs)
        document: dict[str, Any] = {key: value}
        if signature_name is not None:
            document["signature_name"] = signature_name
        return (yield from self.exchange.ask(f"{self.path}:predict", document,
                                             "predictions" if inputs is None else "outputs"))

    def describe(self, part: str) -> Steps[dict[str, Any]]:
        """Read what the server says of the model."""
        return (yield from self.exchange.ask(self.path + part))


def _portions(rows: list[Text], limits: dict[str, int]) -> Iterator[list[Text]]:
    """Cut texts into what one request may hold; a text that is too long goes alone."""
    portion: list[Text] = []
    size = 0
    for row in rows:
        own = len(write_json({"": row}))
        if portion and (len(portion) >= limits.get("texts", len(rows))
                        or size + own > limits.get("bytes", 1_000_000) - _AROUND):
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += own
    if portion:
        yield portion


class Client:
    """Asks one model of one server; keeps its connection, and may be shared by threads.

    `timeout_s` is the longest time for one request with all its tries and pauses. Tried again, at
    most `retries` times: connections that fail before an answer begins, 429 and 503. `token` goes
    along as `Authorization: Bearer`. Every failure is a ServingError.
    """

    def __init__(self, server: str, model: str, version: int | None = None,
                 timeout_s: float = 5.0, retries: int = 3, token: str | None = None):
        self._model = _Model(Exchange(server, timeout_s, retries, token), model, version)
        self._http = httpx2.Client(limits=LIMITS)

    def answer(self, texts: Sequence[Text], file: str | None = None) -> list[dict[str, Any]]:
        """Decode an answer for each text (or pair), from another `file` of the artifact if named.

        A list over the server's limit is cut into several requests, one after the other.
        """
        return self._run(self._model.answer(texts, file))

    def predict(self, instances: Sequence[Any] | None = None, inputs: Any = None,
                signature_name: str | None = None) -> Any:
        """Give the raw outputs of rows (`instances`) or of columns (`inputs`)."""
        return self._run(self._model.predict(instances, inputs, signature_name))

    def status(self) -> dict[str, Any]:
        """Say which versions of the model are served."""
        return self._run(self._model.describe(""))

    def metadata(self) -> dict[str, Any]:
        """Give the signatures that `predict` takes."""
        return self._run(self._model.describe("/metadata"))

    def healthy(self) -> bool:
        """Whether the server says that it is well; tries once and raises nothing."""
        return self._run(self._model.exchange.once("/healthz"))

    def close(self) -> None:
        """Close the connections; `with Client(...) as client:` does it too."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        found: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(found)
            except StopIteration as done:
                return done.value
            found = None
            if isinstance(step, Send):
                found = self._send(step)
            else:
                time.sleep(step.seconds)

    def _send(self, send: Send) -> Reply | Failure:
        began = False
        try:
            with self._http.stream(**_words(send)) as answer:
                began, body = True, bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if send.over():  # though each of its parts came in time
                        return Failure("slow", began, timed_out=True)
                return Reply(answer.status_code, answer.headers, bytes(body))
        except httpx2.RequestError as error:
            return _failure(error, began)


class AsyncClient:
    """`Client` with await: the same settings, methods and errors, in asyncio or trio."""

    def __init__(self, server: str, model: str, version: int | None = None,
                 timeout_s: float = 5.0, retries: int = 3, token: str | None = None):
        self._model = _Model(Exchange(server, timeout_s, retries, token), model, version)
        self._http = httpx2.AsyncClient(limits=LIMITS)

    async def answer(self, texts: Sequence[Text], file: str | None = None) -> list[dict[str, Any]]:
        """See `Client.answer`."""
        return await self._run(self._model.answer(texts, file))

    async def predict(self, instances: Sequence[Any] | None = None, inputs: Any = None,
                      signature_name: str | None = None) -> Any:
        """See `Client.predict`."""
        return await self._run(self._model.predict(instances, inputs, signature_name))

    async def status(self) -> dict[str, Any]:
        """See `Client.status`."""
        return await self._run(self._model.describe(""))

    async def metadata(self) -> dict[str, Any]:
        """See `Client.metadata`."""
        return await self._run(self._model.describe("/metadata"))

    async def healthy(self) -> bool:
        """See `Client.healthy`."""
        return await self._run(self._model.exchange.once("/healthz"))

    async def close(self) -> None:
        """Close the connections; `async with AsyncClient(...) as client:` does it too."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        found: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(found)
            except StopIteration as done:
                return done.value
            found = None
            if isinstance(step, Send):
                found = await self._send(step)
            else:
                await anyio.sleep(step.seconds)

    async def _send(self, send: Send) -> Reply | Failure:
        began = False
        try:
            with anyio.fail_after(send.left()):
                async with self._http.stream(**_words(send)) as answer:
                    began = True
                    body = await answer.aread()
                    return Reply(answer.status_code, answer.headers, body)
        except (httpx2.RequestError, TimeoutError) as error:
            return _failure(error, began)


def _words(send: Send) -> Mapping[str, Any]:
    """Write a try as the arguments of httpx2's `stream`."""
    return {"method": send.method, "url": send.url, "content": send.body, "headers": send.headers,
            "extensions": {"timeout": Timeouts(send)}}


def _failure(error: httpx2.RequestError | TimeoutError, began: bool) -> Failure:
    return Failure(str(error).rstrip(".") or type(error).__name__, began,
                   isinstance(error, httpx2.TimeoutException | TimeoutError))
