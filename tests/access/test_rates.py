"""Rate limits that processes share, on each store, and what happens while it is away."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from orm_models import RateWindowRow, utc_now
from tests.processes import free_port
from tests.servers import new_mysql_database, running_redis
from tuwen.access import rates as rates_module
from tuwen.access.errors import RateLimited
from tuwen.access.rate_storage import PAGE, DatabaseStorage
from tuwen.access.rates import Rate, RateLimiter, parse_rates
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError
from tuwen.settings import Settings

LIMIT = 300
PER_DAY = (Rate("search", LIMIT, 86400),)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'tuwen.db'}", durable=False)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "mariadb", "redis"])
def limiters(request: pytest.FixtureRequest, database: Database) -> Iterator[Sequence[RateLimiter]]:
    """As two processes have them."""
    storage = request.getfixturevalue("redis") if request.param == "redis" else "database"
    if request.param != "mariadb":
        yield [new_limiter(database, storage) for _ in range(2)]
        return
    shared = Database(new_mysql_database(request.getfixturevalue("mariadb")))
    shared.migrate()
    yield [new_limiter(shared, storage) for _ in range(2)]
    shared.close()


def new_limiter(database: Database, storage: str, limits: str = "") -> RateLimiter:
    return RateLimiter(Settings(rate_limits=limits, rate_limit_storage=storage), database)


async def take_all(limiter: RateLimiter, client: str, rates: Sequence[Rate] = PER_DAY, at_once: int = 20) -> int:
    """How many are let through until each of those that ask beside each other is refused."""

    async def take() -> int:
        taken = 0
        while True:
            try:
                await limiter.take(client, rates)
            except RateLimited:
                return taken
            taken += 1

    return sum(await asyncio.gather(*(take() for _ in range(at_once))))


def test_processes_together_let_through_what_the_limit_allows(limiters: Sequence[RateLimiter]) -> None:
    async def scenario() -> None:
        together = sum(await asyncio.gather(*(take_all(each, "key both") for each in limiters)))
        assert 0.9 * LIMIT <= together <= LIMIT
        first, second = limiters
        await second.take("key one", PER_DAY)
        assert 0.9 * LIMIT <= await take_all(first, "key one") <= LIMIT - 1
        assert await take_all(second, "key one", at_once=1) <= 0.1 * LIMIT  # what it was lent
        assert await take_all(first, "key another") > 0

    asyncio.run(scenario())


def test_a_client_is_limited_by_each_of_its_limits_and_refused_ones_count_for_none(database: Database) -> None:
    limiter = new_limiter(database, "memory", "search=5/day, search=8/2 days, write=1/second")

    async def scenario() -> None:
        rates = limiter.rates_of("search", None)
        assert await take_all(limiter, "address ::/64", rates) == 5
        [short, long] = limiter.standings("address ::/64", rates)
        assert (short.left, long.left) == (0, 3)
        with pytest.raises(RateLimited) as refused:
            await limiter.take("address ::/64", rates)
        assert refused.value.retry_after_s == pytest.approx(short.ends_in_s, abs=1)
        limiter.give_back("address ::/64", rates)
        assert await take_all(limiter, "address ::/64", rates) == 1

    asyncio.run(scenario())
    assert limiter.rates_of("generate", None) == ()
    assert limiter.rates_of("search", "search=7/minute") == [Rate("search", 7, 60)]
    assert limiter.rates_of("write", "search=7/minute") == [Rate("write", 1, 1)]


def test_a_window_that_is_over_gives_way_to_the_next(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 86400.0 * 20_000
    monkeypatch.setattr("time.time", lambda: moment)

    async def scenario() -> None:
        nonlocal moment
        limiter = new_limiter(database, "database")
        assert await take_all(limiter, "key till") == LIMIT
        moment += 86399
        assert await take_all(limiter, "key till") == 0
        moment += 1
        assert await take_all(limiter, "key till") == LIMIT

    asyncio.run(scenario())


def test_while_the_store_is_away_each_process_counts_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = new_limiter(database, f"redis://127.0.0.1:{free_port()}")

    async def scenario() -> None:
        assert await take_all(limiter, "key till") == LIMIT
        monkeypatch.setattr(limiter, "_storage", DatabaseStorage(database))  # it is back
        limiter._alone_until = 0
        await limiter.take("key other", PER_DAY)
        limiter._windows["key till", PER_DAY[0]].spent_until = 0
        assert await take_all(limiter, "key till") == 0  # what was lent meanwhile is told to the store
        assert await take_all(new_limiter(database, "database"), "key till") == 0

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "RATE_LIMIT_STORAGE" in said[0]


def test_an_answer_after_the_deadline_counts_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often another writer keeps the store from answering in time."""
    monkeypatch.setattr(rates_module, "LEND_WITHIN_S", 0.05)
    monkeypatch.setattr(rates_module, "ALONE_FOR_S", 0.0)
    limiter, rounds, each = new_limiter(database, "database"), 6, 5

    async def scenario() -> None:
        with closing(sqlite3.connect(tmp_path / "tuwen.db", isolation_level=None)) as other:
            for _ in range(rounds):
                other.execute("BEGIN IMMEDIATE")
                for _ in range(each):
                    await limiter.take("key till", PER_DAY)
                other.execute("ROLLBACK")
                window = limiter._windows["key till", PER_DAY[0]]
                if window.lending is not None:
                    await window.lending
                if window.asking is not None:
                    await window.asking
        with database.read() as session:
            stored = session.scalars(sa.select(RateWindowRow.spent)).one()
        assert window.spent == rounds * each
        assert stored + window.owed == window.spent + window.at_hand
        assert await take_all(new_limiter(database, "database"), "key till") >= 0.9 * LIMIT - rounds * each

    asyncio.run(scenario())


def test_old_windows_go_and_there_is_a_bound_on_those_in_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [{"name": f"old/{number}", "spent": 1, "expires_at": utc_now()} for number in range(PAGE + 1)]
    with database.write() as session:
        session.execute(sa.insert(RateWindowRow), old)
    storage = DatabaseStorage(database)
    storage.incr("new", 60)
    storage.delete_old()
    with database.read() as session:
        assert session.scalars(sa.select(RateWindowRow.name)).all() == ["new"]
    monkeypatch.setattr(rates_module, "MOST_WINDOWS", 10)
    limiter = new_limiter(database, "memory")

    async def scenario() -> None:
        for number in range(100):
            await limiter.take(f"address 10.0.0.{number}", PER_DAY)

    asyncio.run(scenario())
    assert len(limiter._windows) == 10


def test_a_store_that_is_none_is_one_clear_line(database: Database) -> None:
    for address in ("nonsense", "postgres://user:secret@host"):
        with pytest.raises(ConfigurationError, match="RATE_LIMIT_STORAGE") as refused:
            new_limiter(database, address)
        assert "secret" not in refused.value.detail


def test_limits_are_read_as_they_are_written() -> None:
    assert parse_rates("search=50/second, write=20/10 seconds,search=1000/hour") == {
        "search": [Rate("search", 50, 1), Rate("search", 1000, 3600)],
        "write": [Rate("write", 20, 10)],
    }
    for wrong in ("search", "search=0/second", "read=1/second", "search=5/fortnight", "search=5/second,"):
        with pytest.raises(ValueError, match="rate_limits"):
            Settings(rate_limits=wrong)
