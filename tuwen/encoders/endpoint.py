"""A server that speaks OpenAI's embeddings protocol, or reranks (vLLM, TEI, Infinity, a cloud's), and calls to it.

Calls block, from any thread; a loop of the endpoint's own has each under one deadline, connection and answer together.
No proxy of the environment is asked, and no redirect followed: the key goes to the server that is named.
"""

import asyncio
import json
import threading
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from tuwen.encoders.base import Embeddings
from tuwen.encoders.endpoint_name import EndpointName
from tuwen.errors import ModelsUnavailable, ModelUnavailable
from tuwen.settings import VERSION, Settings

MOST_BYTES = 64_000_000  # 256 vectors of 4,096 numbers, written out in 20 characters, take a third of that
# Who fills an index waits for a server that is busy for a moment; whoever searches does not.
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 4, 0.5, 5.0
# After a silence nobody waits for the next deadline in vain, until one call finds it well.
SHORTEST_REST_S, LONGEST_REST_S, MOST_SILENCES = 1.0, 30.0, 5
NUMBERS = "fiu"  # numpy's kinds of them; texts and booleans are others, and so is what float64 can't hold
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
OF_THE_INPUT = frozenset({400, 413, 422})


class NotTheModel(ModelsUnavailable):
    """It answers, and not with such vectors as an index has of it."""


class _Busy(Exception):
    def __init__(self, status: int, retry_after_s: float) -> None:
        super().__init__(f"it answers {status}")
        self.retry_after_s = retry_after_s


class Endpoint:
    def __init__(
        self,
        name: EndpointName,
        settings: Settings,
        setting: str,
        path: str = "embeddings",
        deadline: Literal["endpoint_timeout_s", "reranker_timeout_s"] = "endpoint_timeout_s",
    ) -> None:
        """Asks nothing yet. Raises ModelUnavailable where the key can't be read."""
        self.name = name
        self._path = path
        self._setting = setting
        self._deadline = deadline.upper()
        self._timeout_s: float = getattr(settings, deadline)
        # Compressed, a few kilobytes could stand for gigabytes.
        headers = {"User-Agent": f"tuwen/{VERSION}", "Accept-Encoding": "identity"}
        if key := _key(settings):
            headers["Authorization"] = f"Bearer {key}"
        # An idle connection that the server closes at this very moment would fail a search.
        limits = httpx.Limits(max_connections=settings.endpoint_calls_at_once, keepalive_expiry=4.0)
        self._client = httpx.AsyncClient(
            headers=headers, limits=limits, timeout=self._timeout_s, trust_env=False, follow_redirects=False
        )
        at_once = settings.endpoint_calls_at_once
        self._slots = asyncio.Semaphore(at_once)
        # One is for searches; where there is no other, they stand behind one call of the index and not behind all.
        self._patient_slots = asyncio.Semaphore(max(1, at_once - 1))
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
        with np.errstate(over="ignore"):  # of which a length that is not finite tells
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise ValueError(f"{self._who} answers with a vector without a direction")
        return np.asarray(vectors / lengths, np.float32)

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
            try:
                return await self._post(request, patient)
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

    async def _post(self, request: Mapping[str, Any], patient: bool) -> Any:
        """A search's deadline is for all of it, its wait for a slot, too. Who indexes waits for the calls before it,
        each of which has a deadline, and then has one of its own.
        """
        now, since = asyncio.get_running_loop().time, None
        try:
            async with asyncio.timeout(None if patient else self._timeout_s) as deadline, self._slot(patient):
                self._require_awake()
                since = now()
                if patient:
                    deadline.reschedule(since + self._timeout_s)
                return await self._exchange(request)
        except TimeoutError as error:
            if since is None or now() - since < self._timeout_s / 2:  # too short a time to call it silent
                raise ModelsUnavailable(
                    f"{self._who} is in trouble: the calls before this one take too long (ENDPOINT_CALLS_AT_ONCE)."
                ) from error
            self._rest()
            raise ModelsUnavailable(
                f"{self._who} has not answered within {self._timeout_s:g} s ({self._deadline})."
            ) from error
        except httpx.HTTPError as error:
            self._rest()
            raise ModelsUnavailable(f"{self._who} can't be reached: {_reason(error)}.") from error
        finally:
            if since is not None:
                self._is_tried = False

    @asynccontextmanager
    async def _slot(self, patient: bool) -> AsyncIterator[None]:
        async with self._patient_slots if patient else nullcontext(), self._slots:
            yield

    def _rest(self) -> None:
        """Twice as long after each silence; several calls that wait beside each other hear the same one."""
        now = time.monotonic()
        if now >= self._rests_until:
            self._rests_until = now + min(SHORTEST_REST_S * 2**self._silences, LONGEST_REST_S)
            self._silences = min(self._silences + 1, MOST_SILENCES)

    async def _exchange(self, request: Mapping[str, Any]) -> Any:
        body = {"model": self.name.model, **request}
        async with self._client.stream("POST", f"{self.name.url}/{self._path}", json=body) as response:
            if response.status_code != httpx.codes.OK:
                self._silences = 0
                raise self._refusal(response.status_code, response.headers.get("Retry-After"))
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise ModelsUnavailable(f"{self._who} answers compressed, and was asked not to.")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ModelsUnavailable(f"{self._who} answers with more than {MOST_BYTES // 10**6} MB.")
        self._silences = 0
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelsUnavailable(f"{self._who} answers with what is no JSON.") from error

    def _refusal(self, status: int, retry_after: str | None) -> Exception:
        """By the status alone: bodies repeat what was sent, and search words and keys stand in no log."""
        if status in BUSY:
            return _Busy(status, _seconds(retry_after))
        if status in OF_THE_INPUT:
            return ValueError(f"{self._who} refuses it ({status})")
        why = "its key (ENDPOINT_API_KEY)" if status in (401, 403) else "the request; no redirect is followed"
        return ModelsUnavailable(f"{self._who} refuses {why} ({status}).")

    def _vectors(self, answer: Any, count: int) -> NDArray[np.floating]:
        """[count, size], in the order of `index`, whatever order they come in."""
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            numbers = [int(row["index"]) for row in rows]
            vectors = np.array([row["embedding"] for row in rows])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ModelsUnavailable(f"{self._who} answers with what are no embeddings.") from error
        if numbers != list(range(count)):
            raise ModelsUnavailable(f"{self._who} was asked for {count} vectors, and answers with {len(rows)} others.")
        if vectors.ndim != len(("count", "size")) or vectors.dtype.kind not in NUMBERS:
            raise ModelsUnavailable(f"{self._who} answers with vectors that are not of numbers alone.")
        return vectors.astype(np.float64)


def _seconds(retry_after: str | None) -> float:
    """0 where it names a date, or nothing."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def _reason(error: httpx.HTTPError) -> str:
    """Without the bytes of a server that does not speak HTTP."""
    if isinstance(error, httpx.RemoteProtocolError):
        return "it closes the connection, or what it sends is no HTTP"
    return str(error) or type(error).__name__


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
