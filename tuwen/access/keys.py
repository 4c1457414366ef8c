"""API keys in the database: made, listed, revoked. A key itself is shown once; what is kept is its SHA-256.

Not bcrypt or Argon2: these make it expensive to guess passwords that people choose. A key has 256 random bits, which
nobody guesses, and a slow hash would cost each search tens of milliseconds. Never commits: the caller's
`Database.write()` block is the transaction.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy import orm
from sqlalchemy.exc import IntegrityError

from data_models import KEY_SCOPES, ApiKey, CreatedApiKey, NewApiKey
from orm_models import ApiKeyRow, utc_now
from tuwen.access.errors import KeyNameTaken
from tuwen.errors import FieldError, InvalidInput, NotFound, summary

PREFIX = "tuwen_"  # by which scanners of published code know one
RANDOM_BYTES = 32
MOST_KEYS = 1000  # each process reads them all every few seconds
LONGEST_LIFE = timedelta(days=365 * 50)


def sha256_of(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def create_key(session: orm.Session, wanted: NewApiKey) -> CreatedApiKey:
    """A name is free again once its key is revoked or expired. Raises KeyNameTaken, or InvalidInput."""
    now = utc_now()
    if wanted.shop_id is not None and "admin" in wanted.scopes:
        raise InvalidInput.in_field("scopes", "has admin, which is of the whole service, and not of one shop")
    if wanted.expires_at is not None and not now < wanted.expires_at < now + LONGEST_LIFE:
        raise InvalidInput.in_field("expires_at", "must be a moment within the next 50 years")
    _make_room(session, wanted.name, now)
    key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    row = ApiKeyRow(
        name=wanted.name,
        key_sha256=sha256_of(key),
        scopes=[scope for scope in KEY_SCOPES if scope in wanted.scopes],
        shop_id=wanted.shop_id,
        created_at=now,
        expires_at=wanted.expires_at,
        rate_limits=wanted.rate_limits,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # at this very moment, by somebody else
        raise _taken(wanted.name) from error
    return CreatedApiKey(**_shown(row).model_dump(), key=key)


def list_keys(session: orm.Session) -> list[ApiKey]:
    """By name, with those that are revoked or expired."""
    return [_shown(row) for row in session.scalars(sa.select(ApiKeyRow).order_by(ApiKeyRow.name))]


def find_key(session: orm.Session, name: str) -> ApiKeyRow | None:
    return session.scalar(sa.select(ApiKeyRow).where(ApiKeyRow.name == name))


def revoke_key(session: orm.Session, name: str) -> None:
    """Its row stays: a service that had a key once is open to nobody by itself again. Raises NotFound."""
    row = find_key(session, name)
    if row is None:
        raise NotFound(f"There is no API key '{name}'.")
    row.revoked_at = row.revoked_at or utc_now()


def new_key(name: str, scopes: Sequence[str], expires: str = "", rate_limits: str = "", shop: str = "") -> NewApiKey:
    """As it is asked for in words. Raises InvalidInput."""
    try:
        expires_at = parse_expiry(expires) if expires else None
        return NewApiKey.model_validate(
            {
                "name": name,
                "scopes": scopes,
                "shop_id": shop or None,
                "expires_at": expires_at,
                "rate_limits": rate_limits or None,
            }
        )
    except ValidationError as error:
        wrong = [
            FieldError(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, "))
            for each in error.errors()
        ]
        raise InvalidInput(summary(wrong), wrong) from error


def parse_expiry(text: str) -> datetime:
    """`90d` from now, or a date: the first moment of it, UTC. Raises InvalidInput."""
    try:
        if text.endswith("d"):
            return utc_now() + timedelta(days=int(text[:-1]))
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput.in_field("expires", f"is '{text}'; write a date, as 2027-01-01, or days, as 90d") from error


def _make_room(session: orm.Session, name: str, now: datetime) -> None:
    ended = sa.or_(ApiKeyRow.revoked_at.is_not(None), ApiKeyRow.expires_at <= now)
    count = session.scalar(sa.select(sa.func.count()).select_from(ApiKeyRow)) or 0
    which = ended if count >= MOST_KEYS else sa.and_(ended, ApiKeyRow.name == name)
    session.execute(sa.delete(ApiKeyRow).where(which))
    if find_key(session, name) is not None:
        raise _taken(name)
    if count >= MOST_KEYS <= (session.scalar(sa.select(sa.func.count()).select_from(ApiKeyRow)) or 0):
        raise InvalidInput.in_field("name", f"is one too many: there are {MOST_KEYS} API keys; revoke some")


def _taken(name: str) -> KeyNameTaken:
    return KeyNameTaken.in_field("name", f"another API key has the name '{name}'; revoke that one, or use another name")


def _shown(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        name=row.name,
        scopes=row.scopes,
        shop_id=row.shop_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        rate_limits=row.rate_limits,
    )
