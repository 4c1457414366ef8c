"""A server that speaks OpenAI's embeddings protocol, or reranks (vLLM, TEI, Infinity, a cloud's), and calls to it.

Calls block, from any thread; a loop of the endpoint's own has each under one deadline, connection and answer together.
No proxy of the environment is asked, and no redirect followed: the key goes to the server that is named.
"""

import asyncio
import json
import re
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.errors import ModelsUnavailable, ModelUnavailable
from tuwen.settings import VERSION, Settings

ADDRESS = re.compile(r"https?://", re.IGNORECASE)
SIZED = re.compile(r"(?P<model>.+)@(?P<size>[1-9][0-9]{0,4})")
MOST_BYTES = 64_000_000  # 256 vectors of 4,096 numbers, written out in 20 characters, take a third of that
# Who fills an index waits for a server that is busy for a moment; whoever searches does not.
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 4, 0.5, 5.0
# After a silence nobody waits for the next deadline in vain, until one call finds it well.
SHORTEST_REST_S, LONGEST_REST_S, MOST_SILENCES = 1.0, 30.0, 5
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
OF_THE_INPUT = frozenset({400, 413, 422})


class EndpointName(NamedTuple):
    url: str
    """To which `/embeddings` or `/rerank` is added."""
    model: str
    size: int | None = None
    """Of its vectors, as it was found."""

    def __str__(self) -> str:
        return f"{self.url}#{self.model}" + (f"@{self.size}" if self.size else "")


class NotTheModel(ModelsUnavailable):
    """It answers, and not with such vectors as an index has of it."""


class _Busy(Exception):
    def __init__(self, status: int, retry_after_s: float) -> None:
        super().__init__(f"it answers {status}")
        self.retry_after_s = retry_after_s


def endpoint_name(name: str, setting: str) -> EndpointName | None:
    """`http://host:8000/v1#model`; None for what is no address. Raises ModelUnavailable for one that can't be used."""
    if not ADDRESS.match(name):
        return None
    address, _, model = name.partition("#")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ModelUnavailable(f"{setting}: that is no address of an endpoint: {error}") from error
    if url.userinfo or url.query or not url.host or not model:
        raise ModelUnavailable(
            f"{setting}: an endpoint is written http://host:8000/v1#model, without a name or password "
            "(ENDPOINT_API_KEY has the key)"
        )
    sized = SIZED.fullmatch(model)
    bare = address.rstrip("/")
    return EndpointName(bare, sized["model"], int(sized["size"])) if sized else EndpointName(bare, model)


class Endpoint:
    def __init__(self, name: EndpointName, settings: Settings, setting: str, path: str = "embeddings") -> None:
        """Asks nothing yet. Raises ModelUnavailable where the key can't be read."""
        self.name = name
        self._path = path
        self._setting = setting
        self._timeout_s = settings.endpoint_timeout_s
        headers = {"User-Agent": f"tuwen/{VERSION}"}
        self._key = _key(settings)
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # An idle connection that the server closes at this very moment would fail a search.
        limits = httpx.Limits(max_connections=settings.endpoint_calls_at_once, keepalive_expiry=4.0)
        self._client = httpx.AsyncClient(
            headers=headers, limits=limits, timeout=self._timeout_s, trust_env=False, follow_redirects=False
        )
        self._calls = asyncio.Semaphore(settings.endpoint_calls_at_once)
        self._silences = 0
        self._rests_until = 0.0
        self._is_tried = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=[self._loop], name="endpoint", daemon=True).start()
        weakref.finalize(self, _close, self._loop, self._client)

    def embed(self, requests: Sequence[Mapping[str, Any]], counts: Sequence[int], *, patient: bool) -> Embeddings:
        """The vectors of all of them, in order; `counts`: how many each asks for. `patient`: who indexes.

        Raises ModelsUnavailable where it does not answer, or not as it should; ValueError where it refuses what it is
        given, or has no sound vector for it.
        """
        answers = self.ask([{"encoding_format": "float", **request} for request in requests], patient=patient)
        rows = [self._vectors(answer, count) for answer, count in zip(answers, counts, strict=True)]
        if len({each.shape[1] for each in rows}) != 1:
            raise NotTheModel(f"{self._who} answers with vectors of several sizes.")
        vectors = np.concatenate(rows)
        if not (np.isfinite(vectors).all() and np.linalg.norm(vectors, axis=1).all()):
            raise ValueError(f"{self._who} answers with a vector without a direction")
        return unit_rows(vectors)

    def ask(self, requests: Sequence[Mapping[str, Any]], *, patient: bool) -> list[Any]:
        """What it answers to each, unchecked JSON. Raises as `embed`."""
        return asyncio.run_coroutine_threadsafe(self._ask_all(requests, patient), self._loop).result()

    def require_size(self, vectors: Embeddings, size: int) -> Embeddings:
        """Raises NotTheModel."""
        if vectors.shape[1] != size:
            raise NotTheModel(
                f"{self._who} answers with vectors of {vectors.shape[1]} numbers, not {size}: is another model behind "
                "it, or does it not know `dimensions`?"
            )
        return vectors

    @property
    def _who(self) -> str:
        return f"{self._setting}: the endpoint {self.name.url}"

    async def _ask_all(self, requests: Sequence[Mapping[str, Any]], patient: bool) -> list[Any]:
        asked = (self._ask(request, patient) for request in requests)
        answers = await asyncio.gather(*asked, return_exceptions=True)  # each has ended by then
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _ask(self, request: Mapping[str, Any], patient: bool) -> Any:
        pause_s = FIRST_PAUSE_S
        for attempt in range(ATTEMPTS if patient else 1, 0, -1):
            async with self._calls:
                self._require_awake()
                try:
                    return await self._post(request)
                except _Busy as busy:
                    if attempt == 1:
                        raise ModelsUnavailable(f"{self._who} is in trouble: {busy}.") from busy
                    pause_s = max(pause_s, busy.retry_after_s)
            await asyncio.sleep(min(pause_s, LONGEST_PAUSE_S))
            pause_s *= 2
        raise AssertionError("the last attempt answers or raises")

    def _require_awake(self) -> None:
        """Of those that come after a rest one tries it."""
        if not self._silences:
            return
        if self._is_tried or time.monotonic() < self._rests_until:
            raise ModelsUnavailable(f"{self._who} did not answer a moment ago, and is tried again within seconds.")
        self._is_tried = True

    async def _post(self, request: Mapping[str, Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):  # for all of it
                answer = await self._exchange(request)
        except TimeoutError as error:
            self._rest()
            raise ModelsUnavailable(
                f"{self._who} has not answered within {self._timeout_s:g} s (ENDPOINT_TIMEOUT_S)."
            ) from error
        except httpx.HTTPError as error:
            self._rest()
            reason = str(error) or type(error).__name__
            raise ModelsUnavailable(f"{self._who} can't be reached: {reason}.") from error
        finally:
            self._is_tried = False
        return answer

    def _rest(self) -> None:
        """Twice as long after each silence; several calls that wait beside each other hear the same one."""
        now = time.monotonic()
        if now >= self._rests_until:
            self._rests_until = now + min(SHORTEST_REST_S * 2**self._silences, LONGEST_REST_S)
            self._silences = min(self._silences + 1, MOST_SILENCES)

    async def _exchange(self, request: Mapping[str, Any]) -> Any:
        body = {"model": self.name.model, **request}
        async with self._client.stream("POST", f"{self.name.url}/{self._path}", json=body) as response:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ModelsUnavailable(f"{self._who} answers with more than {MOST_BYTES // 10**6} MB.")
        self._silences = 0
        if response.status_code in BUSY:
            raise _Busy(response.status_code, _seconds(response.headers.get("Retry-After")))
        if response.status_code != httpx.codes.OK:
            self._refuse(response.status_code, bytes(data[:500]))
        try:
            return json.loads(data)
        except ValueError as error:
            raise ModelsUnavailable(f"{self._who} answers with what is no JSON.") from error

    def _refuse(self, status: int, data: bytes) -> None:
        """Servers repeat what they were sent: search words stand in no log, and no key does."""
        if status in OF_THE_INPUT:
            raise ValueError(f"{self._who} refuses it ({status})")
        said = " ".join(data.decode("utf-8", errors="replace").split())
        if self._key:
            said = said.replace(self._key, "…")
        why = "its key (ENDPOINT_API_KEY)" if status in (401, 403) else "the request; no redirect is followed"
        raise ModelsUnavailable(f"{self._who} refuses {why} ({status}: {said}).")

    def _vectors(self, answer: Any, count: int) -> NDArray[np.float32]:
        """[count, size], in the order of `index`, whatever order they come in."""
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            numbers = [int(row["index"]) for row in rows]
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (LookupError, TypeError, ValueError) as error:
            raise ModelsUnavailable(f"{self._who} answers with what are no embeddings: {error!r}.") from error
        if numbers != list(range(count)) or len(vectors.shape) != len(("count", "size")):
            raise ModelsUnavailable(f"{self._who} was asked for {count} vectors, and answers with {numbers}.")
        return vectors


def _seconds(retry_after: str | None) -> float:
    """0 where it names a date, or nothing."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def _key(settings: Settings) -> str:
    """Raises ModelUnavailable."""
    key, file = settings.endpoint_api_key.get_secret_value(), settings.endpoint_api_key_file
    try:
        if file is not None and not key:
            key = file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailable(f"ENDPOINT_API_KEY_FILE={file} can't be read: {error}") from error
    if not (key.isascii() and key.isprintable()):  # no header could carry it
        raise ModelUnavailable("ENDPOINT_API_KEY, or what is in ENDPOINT_API_KEY_FILE, is no key: one line of ASCII.")
    return key


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """When nobody has the endpoint any more; at the process's end, which the loop's thread does not outlive, too."""

    async def close() -> None:
        await client.aclose()
        loop.stop()

    if loop.is_running():
        asyncio.run_coroutine_threadsafe(close(), loop)
