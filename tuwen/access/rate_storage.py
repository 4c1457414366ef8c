"""Where processes share what they count of rate limits: Redis (or Valkey), or the relational database.

Both take the amount that a process wants to have, and tell how much that makes in this window. Blocks.
"""

from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa
from limits.errors import ConfigurationError as ClientMissing
from limits.storage import storage_from_string
from sqlalchemy.dialects import mysql, sqlite

from orm_models import RateWindowRow, utc_now
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError
from tuwen.settings import Settings

KEEP_S = 60  # for who is late, or whose clock is
ANSWER_WITHIN_S = 1.0
PAGE = 1000


class RateStorage(Protocol):
    """Of `limits.storage.Storage`, what is needed of one."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """How much that makes. Raises StorageError, or DependencyUnavailable."""


def open_rate_storage(settings: Settings, database: Database) -> RateStorage | None:
    """None: each process counts for itself. Raises ConfigurationError. Asks nobody yet."""
    address = settings.rate_limit_storage
    if address == "memory":
        return None
    if address == "database":
        return DatabaseStorage(database)
    waits = {"socket_timeout": ANSWER_WITHIN_S, "socket_connect_timeout": ANSWER_WITHIN_S}
    try:
        return storage_from_string(address, wrap_exceptions=True, **waits)  # type: ignore[return-value]  # a sync one
    except ClientMissing as error:
        raise ConfigurationError(
            "RATE_LIMIT_STORAGE needs a client: pip install -r requirements-redis.txt -c constraints.txt"
        ) from error
    except ValueError as error:  # without the address, which may hold a password
        raise ConfigurationError(
            "RATE_LIMIT_STORAGE is no address of a Redis; one looks like redis://host:6379/0."
        ) from error


class DatabaseStorage:
    def __init__(self, database: Database) -> None:
        self._database = database

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        row = {"name": key, "spent": amount, "expires_at": utc_now() + timedelta(seconds=expiry + KEEP_S)}
        more = {"spent": RateWindowRow.spent + amount}
        upsert = (
            sqlite.insert(RateWindowRow).values(row).on_conflict_do_update(index_elements=["name"], set_=more)
            if self._database.is_sqlite
            else mysql.insert(RateWindowRow).values(row).on_duplicate_key_update(more)
        )
        with self._database.write() as session:
            session.execute(upsert)  # which locks the row until the end
            return session.scalars(sa.select(RateWindowRow.spent).where(RateWindowRow.name == key)).one()

    def delete_old(self) -> None:
        while True:
            with self._database.write() as session:
                old = sa.select(RateWindowRow.name).where(RateWindowRow.expires_at < utc_now()).limit(PAGE)
                names = session.scalars(old).all()
                session.execute(sa.delete(RateWindowRow).where(RateWindowRow.name.in_(names)))
            if len(names) < PAGE:
                return
