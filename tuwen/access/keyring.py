"""What this process knows of the API keys: all of them, read anew every two seconds beside the requests.

So a search asks no database, and a revoked key is out everywhere within `MOST_AGE_S`, or, where the database does not
answer, nobody with a key is in: what was true longer ago counts for nothing. Who comes with an unknown key
waits for a reading that began after he came, so a new key is good at its first request; all that wait share it, and
there is one a second at most: whoever tries keys costs no more, however many he tries. There are at most `MOST_KEYS`.
"""

import asyncio
import hmac
import math
import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa

from data_models import KeyScope
from orm_models import ApiKeyRow, utc_now
from tuwen.access.errors import KeyRefused
from tuwen.access.keys import sha256_of
from tuwen.background import Loop, WorkPool, until_up
from tuwen.database.engine import Database
from tuwen.errors import AppError, DatabaseUnavailable, Overloaded
from tuwen.pulse import beat

READ_EVERY_S = 2.0
MOST_AGE_S = 5.0
ASK_AGAIN_S = 1.0
MOST_WAITING = 100  # with unknown keys
READ_WITHIN_S = 2.0  # half as long as the age that is allowed: one that is stuck leaves room for another
READS_AT_ONCE = 4  # stuck ones hold a thread and a connection each until the database's own deadline
NOTE_USE_EVERY_S = 60.0
NOTE_LAST_WITHIN_S = 2.0


class KnownKey(NamedTuple):
    """As the columns of its row."""

    api_key_id: int
    name: str
    key_sha256: str
    scopes: frozenset[KeyScope]
    shop_id: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    rate_limits: str | None


class _Keys(NamedTuple):
    by_sha256: dict[str, KnownKey]
    read_at: float
    """When its reading began, by the monotonic clock."""

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.read_at


def refusal_of(key: KnownKey) -> KeyRefused | None:
    """None: it is good."""
    if key.revoked_at is not None:
        return KeyRefused(f"The API key {key.name} is revoked.")
    if key.expires_at is not None and key.expires_at <= utc_now():
        return KeyRefused(f"The API key {key.name} has expired.")
    return None


class Keyring:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: _Keys | None = None
        self._asked_at = -math.inf
        self._asking = asyncio.Lock()
        self._waiting = 0
        self._used_at: dict[int, datetime] = {}
        self._noted_at: dict[int, float] = {}
        # Apart: a write that waits for another's transaction must not keep a revoked key in.
        self._reading = WorkPool("reading API keys", threads=READS_AT_ONCE, max_waiting=0)
        self._writing = WorkPool("noting the use of API keys", threads=1, max_waiting=1)

    def loops(self) -> dict[str, Loop]:
        return {"API keys": self._run, "use of API keys": self._run_notes}

    async def has_any(self) -> bool:
        """Ended ones count. While the database is down: as it was. Raises DatabaseUnavailable where nobody knows."""
        return bool((await self._known(math.inf)).by_sha256)

    async def find(self, key: str) -> KnownKey | None:
        """Also one that has ended. An unknown one takes up to `ASK_AGAIN_S` and a query.

        Raises DatabaseUnavailable where the database must be asked and can't be, Overloaded where too many wait.
        """
        came_at = time.monotonic()
        sha256 = sha256_of(key)
        found = (await self._known(MOST_AGE_S)).by_sha256.get(sha256)
        if found is None:  # it may be new
            keys = await self._read_since(came_at)
            found = keys.by_sha256.get(sha256)
            if found is None and keys.read_at < came_at:
                raise DatabaseUnavailable("The database does not answer, so this API key can't be looked up.")
        elif self._age_s > MOST_AGE_S:
            raise DatabaseUnavailable("The database does not answer, so API keys can't be checked.")
        return found if found is not None and hmac.compare_digest(found.key_sha256, sha256) else None

    def refusal_of(self, key: KnownKey) -> KeyRefused | None:
        """As far as is known here, for what lasts; whoever begins something asks `find`."""
        found = self._keys.by_sha256.get(key.key_sha256) if self._keys else key
        return KeyRefused("This API key is not known here.") if found is None else refusal_of(found)

    def note_use(self, key: KnownKey) -> None:
        """In memory; it is written a few seconds later, at most once a minute."""
        self._used_at[key.api_key_id] = utc_now()

    async def read_anew(self) -> None:
        """For who has just changed them; others do so within seconds. Raises DatabaseUnavailable after `READ_WITHIN_S`:
        what a stuck reading brings later is old, and passed over."""
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                keys = await self._reading.run(self._read)
        except TimeoutError as error:
            raise DatabaseUnavailable(f"The API keys could not be read within {READ_WITHIN_S:g} s.") from error
        if self._keys is None or keys.read_at > self._keys.read_at:
            self._keys = keys

    @property
    def _age_s(self) -> float:
        return self._keys.age_s if self._keys else math.inf

    async def _known(self, max_age_s: float) -> _Keys:
        """As old as that, or older where the database can't be asked."""
        came_at = time.monotonic()
        if self._keys is None or self._age_s > max_age_s:
            async with self._asking:  # one asks for all that wait here
                waited = time.monotonic() - self._asked_at > ASK_AGAIN_S
                if self._age_s > min(max_age_s, MOST_AGE_S) and self._asked_at < came_at and waited:
                    await self._ask()
        if self._keys is None:
            raise DatabaseUnavailable("The database has not answered yet, so API keys can't be checked.")
        return self._keys

    async def _read_since(self, moment: float) -> _Keys:
        """Older where the database does not answer in `MOST_AGE_S`. Raises Overloaded. Only once keys are known."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded(f"{self._waiting} callers wait with unknown API keys already; try again in a second.")
        self._waiting += 1
        try:
            async with asyncio.timeout(MOST_AGE_S), self._asking:
                if self._is_to_ask(moment):
                    await asyncio.sleep(self._asked_at + ASK_AGAIN_S - time.monotonic())
                    if self._is_to_ask(moment):  # the loop may have, meanwhile
                        await self._ask()
        except TimeoutError:
            pass  # as it was
        finally:
            self._waiting -= 1
        assert self._keys is not None
        return self._keys

    def _is_to_ask(self, moment: float) -> bool:
        """One that failed after that moment counts, too: it failed for all that wait."""
        return max(self._asked_at, self._keys.read_at if self._keys else 0.0) < moment

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        with suppress(AppError):
            await self.read_anew()

    async def _run(self) -> None:
        while True:
            await until_up("The list of API keys", self.read_anew, max_wait_s=READ_EVERY_S)
            await asyncio.sleep(READ_EVERY_S)

    async def _run_notes(self) -> None:
        try:
            while True:
                beat()
                await asyncio.sleep(READ_EVERY_S)
                await self._note_due_uses(time.monotonic())
        finally:  # a stop: what is known now is known nowhere else
            with suppress(AppError, TimeoutError):
                async with asyncio.timeout(NOTE_LAST_WITHIN_S):
                    await self._writing.run(self._write, dict(self._used_at))

    async def _note_due_uses(self, now: float) -> None:
        last = {each: self._noted_at.get(each, -math.inf) for each in self._used_at}
        used_at = {each: self._used_at[each] for each in last if now - last[each] >= NOTE_USE_EVERY_S}
        if used_at:
            await until_up("The use of API keys", partial(self._writing.run, self._write, used_at), max_wait_s=60)
            self._noted_at |= dict.fromkeys(used_at, now)
            self._used_at = {each: at for each, at in self._used_at.items() if at != used_at.get(each)}

    def _read(self) -> _Keys:
        began = time.monotonic()
        columns = (getattr(ApiKeyRow, name) for name in KnownKey._fields)
        with self._database.read() as session:
            keys = [KnownKey(*row) for row in session.execute(sa.select(*columns))]
        return _Keys({key.key_sha256: key._replace(scopes=frozenset(key.scopes)) for key in keys}, began)

    def _write(self, used_at: dict[int, datetime]) -> None:
        if not used_at:
            return
        with self._database.write() as session:
            for api_key_id, moment in sorted(used_at.items()):
                earlier = sa.or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < moment)
                session.execute(
                    sa.update(ApiKeyRow)
                    .where(ApiKeyRow.api_key_id == api_key_id, earlier)
                    .values(last_used_at=moment)
                    .execution_options(synchronize_session=False)
                )
