"""A key in a file, for a program that shall find one there without a step of anybody's, such as the stack's pages."""

import os
from pathlib import Path

from data_models import NewApiKey
from orm_models import ApiKeyRow, utc_now
from tuwen.access.keys import create_key, find_key, revoke_key, sha256_of
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError


def keep_key_in_file(database: Database, wanted: NewApiKey, file: Path) -> None:
    """Nothing where the file has a good key of this name and these scopes; else a new one takes its place.

    The key is good before it is in the file. Raises ConfigurationError where the file can't be written.
    """
    try:
        kept = file.read_text(encoding="utf-8").strip() if file.exists() else ""
        with database.write() as session:
            row = find_key(session, wanted.name)
            if row is not None and row.key_sha256 == sha256_of(kept) and _is_as_wanted(row, wanted):
                return
            if row is not None:
                revoke_key(session, wanted.name)
            key = create_key(session, wanted).key
        _write_for_us_alone(file, key)
    except OSError as error:
        raise ConfigurationError(f"The key can't be kept in {file}: {error.strerror}.") from error


def _is_as_wanted(row: ApiKeyRow, wanted: NewApiKey) -> bool:
    """However it was to expire: that is counted from when it was made."""
    has_ended = row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= utc_now())
    return not has_ended and set(row.scopes) == set(wanted.scopes)


def _write_for_us_alone(file: Path, key: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(key + "\n")
    beside.replace(file)
