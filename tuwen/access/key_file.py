"""A key in a file, for a program that shall find one there without a step of anybody's, such as the stack's pages."""

import logging
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from data_models import NewApiKey
from orm_models import ApiKeyRow, utc_now
from tuwen.access.keys import create_key, find_key, revoke_key, sha256_of
from tuwen.database.engine import Database
from tuwen.errors import ConfigurationError

logger = logging.getLogger(__name__)


def keep_key_in_file(database: Database, wanted: NewApiKey, file: Path) -> None:
    """Nothing where the file has a good key of this name, these scopes and this shop; else a new one takes its place.

    Nor where that key is revoked: what somebody has ended comes back by no restart. The key is good before it is in the
    file. Raises ConfigurationError where the file can't be written: then all is as it was.
    """
    try:
        kept = _kept_in(file)
        with ExitStack() as at_last:
            with database.write() as session:
                row = find_key(session, wanted.name)
                if row is not None and row.revoked_at is not None:
                    logger.warning("The API key %s is revoked, and stays so: make one of another name.", wanted.name)
                    return
                if row is not None and row.key_sha256 == sha256_of(kept) and _is_as_wanted(row, wanted):
                    return
                if row is not None:
                    revoke_key(session, wanted.name)
                beside = _write_beside(file, create_key(session, wanted).key)
                at_last.callback(beside.unlink, missing_ok=True)
            beside.replace(file)
    except OSError as error:
        raise ConfigurationError(f"The key can't be kept in {file}: {error.strerror}.") from error


def _is_as_wanted(row: ApiKeyRow, wanted: NewApiKey) -> bool:
    """However it was to expire: that is counted from when it was made."""
    has_ended = row.expires_at is not None and row.expires_at <= utc_now()
    return not has_ended and set(row.scopes) == set(wanted.scopes) and row.shop_id == wanted.shop_id


def _kept_in(file: Path) -> str:
    """Empty: none that we could read. Raises OSError where none can be kept there, as for a folder."""
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (FileNotFoundError, PermissionError, UnicodeDecodeError):
        return ""


def _write_beside(file: Path, key: str) -> Path:
    """For us alone, and whole before it takes the file's place."""
    descriptor, beside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(key + "\n")
    return Path(beside)
