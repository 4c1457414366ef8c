"""What the databases say when something is wrong, told apart: what passes, what is full, what an operator has to mend,
and what is a mistake of ours."""

import json
import socket
import socketserver
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data_models import MAX_DEPTH
from orm_models import JobRow, ProductRow
from tests.processes import wait_until
from tests.promises import require_in_time
from tests.servers import new_mysql_database
from tuwen.database.engine import Database
from tuwen.errors import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    DatabaseUnusable,
    ValueRefused,
)

TIMEOUT_S = 2.0


def opened(dsn: str) -> Iterator[Database]:
    database = Database(dsn, TIMEOUT_S)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Database]:
    yield from opened(f"sqlite:///{tmp_path / 'tuwen.db'}")


@pytest.fixture(scope="module")
def on_mariadb(mariadb: str) -> Iterator[Database]:
    yield from opened(new_mysql_database(mariadb))


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    chosen: Database = request.getfixturevalue(f"on_{request.param}")
    return chosen


def add_job(database: Database, size: int = 1) -> int:
    job = JobRow(kind="generate", request={"prompt": "x" * size})
    with database.write() as session:
        session.add(job)
    return job.job_id


def execute(database: Database, *statements: str) -> None:
    with database.write() as session:
        for statement in statements:
            session.execute(sa.text(statement))


def test_a_full_disk_is_named(on_sqlite: Database, on_mariadb: Database) -> None:
    with on_sqlite.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    sa.event.listen(on_sqlite.engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(DatabaseFull, match="disk is full"):
        add_job(on_sqlite, size=1_000_000)
    small_table = "CREATE TABLE small (a CHAR(255)) ENGINE=MEMORY"
    row = f"INSERT INTO small VALUES ('{'x' * 200}')"
    with pytest.raises(DatabaseFull, match="1114"):
        execute(on_mariadb, "SET SESSION max_heap_table_size = 16384", small_table, *[row] * 1000)


def test_of_two_changes_in_a_deadlock_one_is_to_be_done_again(on_mariadb: Database) -> None:
    jobs = [add_job(on_mariadb), add_job(on_mariadb)]
    both_hold_one = threading.Barrier(2)

    def change(order: list[int]) -> str:
        try:
            with on_mariadb.write() as session:
                session.get_one(JobRow, order[0], with_for_update=True).progress += 0.1
                session.flush()
                both_hold_one.wait(30)
                session.get_one(JobRow, order[1], with_for_update=True).progress += 0.1
        except DatabaseBusy as error:
            return error.detail
        return "done"

    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(change, (jobs, jobs[::-1])), reverse=True)
    assert ends[0] == "done"
    assert "1213" in ends[1]
    with on_mariadb.read() as session:
        assert [session.get_one(JobRow, job).progress for job in jobs] == [0.1, 0.1]  # nothing of the other one


def test_a_lock_that_is_waited_for_too_long_is_busy_and_no_lost_connection(database: Database) -> None:
    job = add_job(database)
    with database.write() as holder:
        holder.get_one(JobRow, job, with_for_update=True)
        started = time.monotonic()
        with pytest.raises(DatabaseBusy), database.write() as session:
            session.get_one(JobRow, job, with_for_update=True)
        require_in_time(time.monotonic() - started, TIMEOUT_S + 1)
    add_job(database)


def test_a_machine_that_disappears_within_a_transaction_keeps_no_locks(on_mariadb: Database) -> None:
    job = add_job(on_mariadb)
    with on_mariadb.engine.connect() as silent:  # and says nothing more, as one without power
        silent.execute(sa.select(JobRow.job_id).where(JobRow.job_id == job).with_for_update())

        def is_free() -> bool:
            with suppress(DatabaseBusy), on_mariadb.write() as session:
                session.get_one(JobRow, job, with_for_update=True)
                return True
            return False

        assert not is_free()
        wait_until(is_free, what="the server to forget who is silent")
        with pytest.raises(sa.exc.OperationalError):  # its transaction is gone, with all that it had done
            silent.execute(sa.text("SELECT 1"))
        silent.invalidate()
    add_job(on_mariadb)  # what the pool holds was closed as well


def test_a_mistake_of_ours_is_not_taken_for_a_database_that_is_away(database: Database) -> None:
    for statement in ("INSERT INTO no_such_table VALUES (1)", "CREATE TABLE product (id INTEGER)", "SELECT nonsense"):
        with pytest.raises(sa.exc.DBAPIError):
            execute(database, statement)
    add_job(database)


def test_too_many_variables_and_too_much_data_are_mistakes_too(on_sqlite: Database, on_mariadb: Database) -> None:
    with pytest.raises(sa.exc.OperationalError, match="too many SQL variables"), on_sqlite.read() as session:
        session.scalars(sa.select(ProductRow.product_id).where(ProductRow.product_id.in_(range(300_000)))).all()
    with pytest.raises(sa.exc.DataError), on_mariadb.write() as session:
        session.add(ProductRow(title="x" * 600, image_path="a", image_sha256="a", image_width=1, image_height=1))


def test_json_that_nests_too_deep_for_the_database_is_the_callers(on_mariadb: Database) -> None:
    """Attributes that may be sent go in; what MariaDB refuses beyond that is no outage, and no mistake to log."""

    def add(depth: int) -> None:
        attributes = {"a": json.loads("[" * depth + "1" + "]" * depth)}
        with on_mariadb.write() as session:
            row = ProductRow(title="x", image_path="a", image_sha256="a", image_width=1, image_height=1)
            row.attributes = attributes
            session.add(row)

    add(MAX_DEPTH)
    with pytest.raises(ValueRefused, match="4025"):
        add(40)


def test_what_an_operator_has_to_mend_is_waited_for_while_running(on_sqlite: Database, on_mariadb: Database) -> None:
    with pytest.raises(DatabaseUnusable, match="readonly"):
        execute(on_sqlite, "PRAGMA query_only = 1", "DELETE FROM job")
    url = on_mariadb.engine.url
    user = f"reader_{url.database}"
    execute(on_mariadb, f"CREATE USER {user}", f"GRANT SELECT ON {url.database}.* TO {user}")
    reader = Database(url.set(username=user).render_as_string())
    reader.check()
    with pytest.raises(DatabaseUnusable, match="1142"):
        add_job(reader)
    execute(on_mariadb, f"GRANT INSERT ON {url.database}.* TO {user}")
    reader.engine.dispose()  # rights hold for a connection's life, which the pool bounds
    add_job(reader)
    reader.close()


@pytest.mark.parametrize(
    ("change", "code"), [({"username": "stranger", "password": "x"}, 1045), ({"database": "no_such_one"}, 1049)]
)
def test_a_start_with_what_an_operator_has_to_mend_says_so(
    on_mariadb: Database, change: dict[str, Any], code: int
) -> None:
    wrong = Database(on_mariadb.engine.url.set(**change).render_as_string(hide_password=False))
    for start in (wrong.migrate, wrong.require_current_schema):
        with pytest.raises(ConfigurationError, match=rf"DATABASE_URL.*{code}"):
            start()
    wrong.close()


def test_a_start_on_what_is_no_sqlite_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is a letter, and by no means a database of any kind. " * 50)
    for name in ("", "text.db"):
        wrong = Database(f"sqlite:///{tmp_path / name}")
        with pytest.raises(ConfigurationError, match="DATABASE_URL"):
            wrong.migrate()
        wrong.close()


def test_a_connection_that_is_cut_is_waited_for(on_mariadb: Database) -> None:
    with pytest.raises(DatabaseUnavailable) as lost, on_mariadb.write() as session:
        session.execute(sa.text("KILL CONNECTION_ID()"))
    assert type(lost.value) is DatabaseUnavailable
    add_job(on_mariadb)


def test_a_statement_that_takes_too_long_ends_on_the_server_too_and_a_migration_has_longer(
    on_mariadb: Database,
) -> None:
    slow = sa.text(f"SELECT SLEEP({TIMEOUT_S + 0.3})")
    with pytest.raises(DatabaseUnavailable, match="1969"), on_mariadb.read() as session:
        session.execute(slow)
    with on_mariadb.migration_engine.connect() as connection:
        connection.execute(slow)


def test_the_first_start_of_many_waits_for_the_others(tmp_path: Path) -> None:
    """Switching to WAL has no time-out of its own."""
    path = tmp_path / "tuwen.db"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    database = Database(f"sqlite:///{path}", TIMEOUT_S)
    with pytest.raises(DatabaseBusy):
        database.check()
    threading.Timer(0.3, holder.execute, ["ROLLBACK"]).start()
    database.check()
    database.close()
    holder.close()


@contextmanager
def losing_the_answer_to_a_commit(server: int) -> Iterator[tuple[int, threading.Event]]:
    """A way to the server, by its port, that goes silent once a COMMIT went through after the event was set."""
    armed, committed = threading.Event(), threading.Event()

    def pump(source: socket.socket, target: socket.socket, *, to_server: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if to_server or not committed.is_set():
                    if armed.is_set() and b"\x03COMMIT" in data:  # the protocol's code of a statement, and it
                        committed.set()
                    target.sendall(data)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", server)) as upstream:
                answers = threading.Thread(target=pump, args=[upstream, self.request], kwargs={"to_server": False})
                answers.start()
                pump(self.request, upstream, to_server=True)
                upstream.shutdown(socket.SHUT_RDWR)
                answers.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield int(proxy.server_address[1]), armed
        proxy.shutdown()


def test_a_commit_whose_answer_is_lost_is_an_error_and_done_all_the_same(on_mariadb: Database) -> None:
    url = on_mariadb.engine.url
    with on_mariadb.read() as session:
        before = session.scalar(sa.select(sa.func.max(JobRow.job_id))) or 0
    with losing_the_answer_to_a_commit(url.port or 0) as (port, armed):
        database = Database(url.set(port=port).render_as_string(), TIMEOUT_S)
        database.check()  # setting a new connection up commits, too
        armed.set()
        with pytest.raises(DatabaseUnavailable):
            add_job(database)
        database.close()
    with on_mariadb.read() as session:
        assert session.scalar(sa.select(sa.func.max(JobRow.job_id))) == before + 1
