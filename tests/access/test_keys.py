"""API keys in the database, on SQLite and on MariaDB, and what a process knows of them."""

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from data_models import CreatedApiKey, KeyScope, NewApiKey
from orm_models import ApiKeyRow, utc_now
from tests.promises import require_in_time
from tests.servers import new_mysql_database
from tuwen.access import keyring as keyring_module
from tuwen.access.errors import KeyNameTaken
from tuwen.access.key_file import keep_key_in_file
from tuwen.access.keyring import Keyring
from tuwen.access.keys import MOST_KEYS, create_key, list_keys, new_key, parse_expiry, revoke_key, sha256_of
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError, DatabaseUnavailable, InvalidInput, NotFound, Overloaded


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    is_sqlite = request.param == "sqlite"
    dsn = f"sqlite:///{tmp_path / 'tuwen.db'}" if is_sqlite else new_mysql_database(request.getfixturevalue("mariadb"))
    opened = Database(dsn, timeout_s=2)
    opened.migrate()
    yield opened
    opened.close()


def make(database: Database, name: str, *scopes: KeyScope, expires_at: datetime | None = None) -> CreatedApiKey:
    with database.write() as session:
        return create_key(session, NewApiKey(name=name, scopes=list(scopes) or ["search"], expires_at=expires_at))


def revoke(database: Database, name: str) -> None:
    with database.write() as session:
        revoke_key(session, name)


def test_a_key_is_random_and_only_its_hash_is_kept(database: Database) -> None:
    first, second = make(database, "first", "write", "search"), make(database, "second")
    assert re.fullmatch(r"tuwen_[\w-]{43}", first.key)
    assert first.key != second.key
    with database.read() as session:
        rows = session.execute(sa.select(ApiKeyRow.__table__)).mappings().all()
        shown = list_keys(session)
    assert [row["key_sha256"] for row in rows] == [sha256_of(first.key), sha256_of(second.key)]
    assert not any(each.key in str(row) for row in rows for each in (first, second))
    assert [(key.name, key.scopes) for key in shown] == [("first", ["search", "write"]), ("second", ["search"])]


def test_a_key_may_be_of_one_shop_and_is_no_operators_then(database: Database) -> None:
    with database.write() as session:
        create_key(session, new_key("shoes", ["search", "write"], shop="shoes.2"))
    make(database, "all")
    with database.read() as session:
        assert [(key.name, key.shop_id) for key in list_keys(session)] == [("all", None), ("shoes", "shoes.2")]
    with pytest.raises(InvalidInput, match="of the whole service"), database.write() as session:
        create_key(session, new_key("boss", ["search", "admin"], shop="shoes.2"))
    for wrong in ("a b", "-a", "店", "a" * 65, "a\n", 'a"'):
        with pytest.raises(InvalidInput):
            new_key("wrong", ["search"], shop=wrong)


def test_a_name_is_free_again_once_its_key_has_ended(database: Database) -> None:
    make(database, "feed")
    with pytest.raises(KeyNameTaken):
        make(database, "feed")
    revoke(database, "feed")
    revoke(database, "feed")  # safe to repeat
    make(database, "feed", expires_at=utc_now() + timedelta(hours=1))
    with database.write() as session:
        session.execute(sa.update(ApiKeyRow).values(expires_at=utc_now()))
    make(database, "feed")
    with pytest.raises(NotFound):
        revoke(database, "nobody")


def test_there_is_a_bound_on_keys_and_ended_ones_make_room(database: Database) -> None:
    rows = [{"name": f"n{n}", "key_sha256": f"{n:064}", "scopes": ["search"], "created_at": utc_now()}
            for n in range(MOST_KEYS)]  # fmt: skip
    with database.write() as session:
        session.execute(sa.insert(ApiKeyRow), rows)
    with pytest.raises(InvalidInput, match="revoke some"):
        make(database, "one-more")
    revoke(database, "n7")
    make(database, "one-more")


@pytest.mark.parametrize("moment", [timedelta(seconds=-1), timedelta(days=366 * 60)])
def test_a_key_expires_in_the_future_and_not_beyond_all_plans(database: Database, moment: timedelta) -> None:
    with pytest.raises(InvalidInput, match="expires_at"):
        make(database, "key", expires_at=utc_now() + moment)


def test_an_expiry_is_a_date_or_days() -> None:
    assert parse_expiry("2031-02-03") == datetime(2031, 2, 3, tzinfo=UTC)
    assert abs(parse_expiry("90d") - utc_now() - timedelta(days=90)) < timedelta(minutes=1)
    for wrong in ("soon", "d", "9999999999999d", "2031-13-01"):
        with pytest.raises(InvalidInput):
            parse_expiry(wrong)
    with pytest.raises(InvalidInput, match=r"name: .*scopes\.0: "):
        new_key("no name", ["everything"])


def test_a_key_in_a_file_stays_while_it_is_good(database: Database, tmp_path: Path) -> None:
    file, wanted = tmp_path / "pages", new_key("pages", ["search", "write"])
    keep_key_in_file(database, wanted, file)
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    keep_key_in_file(database, wanted, file)
    assert file.read_text() == first
    file.write_text("tuwen_another\n")
    keep_key_in_file(database, wanted, file)
    second = file.read_text()
    keep_key_in_file(database, new_key("pages", ["search"]), file)
    third = file.read_text()
    keep_key_in_file(database, wanted, file)
    with database.read() as session:
        kept = session.scalars(sa.select(ApiKeyRow.key_sha256).where(ApiKeyRow.revoked_at.is_(None))).all()
    assert len({first, second, third, file.read_text()}) == 4
    assert kept == [sha256_of(file.read_text().strip())]
    good = file.read_text()
    file.write_text(good, encoding="utf-8-sig")
    keep_key_in_file(database, wanted, file)
    assert file.read_text(encoding="utf-8-sig") == good
    folder = tmp_path / "folder"
    folder.mkdir()
    for unusable in (tmp_path / "nowhere" / "pages", folder):
        with pytest.raises(ConfigurationError, match="can't be kept"):
            keep_key_in_file(database, wanted, unusable)
    keep_key_in_file(database, wanted, file)  # still good: nothing was revoked for what could not be written
    assert file.read_text(encoding="utf-8-sig") == good
    file.write_bytes(good.encode("utf-16"))
    keep_key_in_file(database, wanted, file)
    assert file.read_text() != good
    assert {each.name for each in tmp_path.iterdir() if each.name.startswith(".")} == set()


def test_a_key_in_a_file_that_was_revoked_comes_back_by_no_restart(database: Database, tmp_path: Path) -> None:
    file, wanted = tmp_path / "pages", new_key("pages", ["search", "write"])
    keep_key_in_file(database, wanted, file)
    before = file.read_text()
    revoke(database, "pages")
    for again in (wanted, new_key("pages", ["search"])):
        keep_key_in_file(database, again, file)
    assert file.read_text() == before
    with database.read() as session:
        assert session.scalars(sa.select(ApiKeyRow.name).where(ApiKeyRow.revoked_at.is_(None))).all() == []
    keep_key_in_file(database, new_key("pages-2", ["search"]), file)
    assert file.read_text() != before


def test_whoever_tries_keys_asks_the_database_once_a_second_at_most(database: Database) -> None:
    good = make(database, "good")
    selects = 0

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal selects
        selects += statement.startswith("SELECT")

    async def tried() -> None:
        keyring = Keyring(database)
        assert await keyring.find(good.key) is not None
        event.listen(database.engine, "before_cursor_execute", count)
        tries = (keyring.find(f"tuwen_{number}") for number in range(2000))
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert found.count(None) == keyring_module.MOST_WAITING  # they share a reading
        assert {type(each) for each in found} == {type(None), Overloaded}
        assert (await keyring.find(good.key)) is not None
        assert await keyring.find("tuwen_another") is None  # nobody waits any more
        event.remove(database.engine, "before_cursor_execute", count)

    asyncio.run(tried())
    assert selects == 2


def test_a_new_key_is_good_at_its_first_request(database: Database) -> None:
    async def scenario() -> None:
        keyring = Keyring(database)
        for number in range(3):
            assert await keyring.find("tuwen_unknown") is None  # takes the query of this second
            began_at = time.monotonic()
            assert await keyring.find(make(database, f"new-{number}").key) is not None
            require_in_time(time.monotonic() - began_at, keyring_module.ASK_AGAIN_S + 1)

    asyncio.run(scenario())


def test_a_new_key_is_known_and_a_revoked_one_out_within_seconds(database: Database) -> None:
    async def scenario() -> None:
        keyring = Keyring(database)
        running = [asyncio.ensure_future(loop()) for loop in keyring.loops().values()]
        assert not await keyring.has_any()
        key = make(database, "new")
        assert await keyring.find(key.key) is not None
        revoke(database, "new")

        async def is_out() -> bool:
            found = await keyring.find(key.key)
            return found is not None and found.revoked_at is not None

        await asyncio.wait_for(_until(is_out), keyring_module.MOST_AGE_S)
        assert await keyring.has_any()  # ended ones count: nobody is let in by a revocation
        for task in running:
            task.cancel()

    asyncio.run(scenario())


def test_use_is_noted_once_a_minute_at_most_and_never_by_who_asks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(database, "used")
    monkeypatch.setattr(keyring_module, "READ_EVERY_S", 0.05)

    def last_use() -> datetime | None:
        with database.read() as session:
            return session.scalar(sa.select(ApiKeyRow.last_used_at))

    async def scenario() -> None:
        keyring = Keyring(database)
        known = await keyring.find(key.key)
        assert known is not None
        keyring.note_use(known)
        assert last_use() is None
        running = [asyncio.ensure_future(loop()) for loop in keyring.loops().values()]
        first = await asyncio.wait_for(_until(lambda: asyncio.to_thread(last_use)), 5)
        keyring.note_use(known)
        await asyncio.sleep(0.5)  # ten rounds
        assert await asyncio.to_thread(last_use) == first
        keyring.note_use(known)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        at_the_stop = await asyncio.to_thread(last_use)
        assert at_the_stop is not None
        assert at_the_stop > first  # type: ignore[operator]  # a moment, too

    asyncio.run(scenario())


def test_while_the_database_is_down_a_key_is_good_for_seconds_more(tmp_path: Path) -> None:
    path = tmp_path / "tuwen.db"
    database = Database(f"sqlite:///{path}", timeout_s=2)
    database.migrate()
    key = make(database, "good")

    async def scenario() -> None:
        keyring = Keyring(database)
        assert await keyring.find(key.key)
        database.close()
        path.rename(tmp_path / "away")
        path.mkdir()  # can't be opened any more
        assert await keyring.find(key.key)
        with pytest.raises(DatabaseUnavailable):
            await keyring.find("tuwen_unknown")
        _grow_older(keyring, keyring_module.MOST_AGE_S)
        with pytest.raises(DatabaseUnavailable):
            await keyring.find(key.key)
        assert await keyring.has_any()  # as it was: nobody is let in without a key
        with pytest.raises(DatabaseUnavailable):
            await Keyring(database).has_any()

    asyncio.run(scenario())


def test_a_reading_that_is_stuck_keeps_no_revoked_key_in(mariadb: str) -> None:
    """Whoever asks meanwhile is told so in time; and another reading takes the stuck one's place once it can."""
    database = Database(new_mysql_database(mariadb), timeout_s=30)
    database.migrate()
    key = make(database, "good")

    async def scenario() -> None:
        keyring = Keyring(database)
        assert await keyring.find(key.key)
        with database.engine.connect() as other:
            other.execute(sa.text("LOCK TABLES api_key WRITE"))
            _grow_older(keyring, keyring_module.MOST_AGE_S)
            began_at = time.monotonic()
            asked = await asyncio.gather(*(keyring.find(key.key) for _ in range(20)), return_exceptions=True)
            assert {type(each) for each in asked} == {DatabaseUnavailable}
            require_in_time(time.monotonic() - began_at, 2 * keyring_module.READ_WITHIN_S + 1)
            other.execute(sa.text("UNLOCK TABLES"))
        revoke(database, "good")

        async def is_out() -> bool:
            try:
                found = await keyring.find(key.key)
            except DatabaseUnavailable:
                return False
            assert found is not None
            return found.revoked_at is not None

        await asyncio.wait_for(_until(is_out), keyring_module.MOST_AGE_S)

    asyncio.run(scenario())
    database.close()


def _grow_older(keyring: Keyring, by_s: float) -> None:
    keys = keyring._keys
    assert keys is not None
    keyring._keys = keys._replace(read_at=keys.read_at - by_s)


async def _until(step: object) -> object:
    """What it gives once that is something."""
    assert callable(step)
    while not (found := await step()):  # noqa: ASYNC110  # of the database, which tells nobody
        await asyncio.sleep(0.02)
    return found
