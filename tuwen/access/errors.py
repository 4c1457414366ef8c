"""What callers meet who may not, as branches of the one tree of errors."""

from tuwen.errors import AppError, InvalidInput


class KeyNameTaken(InvalidInput):
    """Another API key has this name."""

    status = 409
    slug = "key-name-taken"
    title = "Key name taken"


class NotAuthenticated(AppError):
    """No API key where one is needed, or one that is not good (any more)."""

    status = 401
    slug = "not-authenticated"
    title = "Not authenticated"
    challenge = "Bearer"
    """What `WWW-Authenticate` says (RFC 6750)."""


class KeyRefused(NotAuthenticated):
    """Unknown, expired or revoked."""

    slug = "key-refused"
    title = "API key refused"
    challenge = 'Bearer error="invalid_token"'


class Forbidden(AppError):
    """The caller may not do this, and no other key of his is asked for."""

    status = 403
    slug = "forbidden"
    title = "Forbidden"


class ScopeMissing(Forbidden):
    """The key is good, and lacks the scope."""

    slug = "scope-missing"
    title = "Scope missing"


class RateLimited(AppError):
    """As often as the limit of this kind of requests allows."""

    status = 429
    slug = "rate-limited"
    title = "Rate limit reached"


class TooManyAtOnce(AppError):
    """As much as one client may have under way; others are served."""

    status = 429
    slug = "too-many-at-once"
    title = "Too many at once"
    retry_after_s = 1
