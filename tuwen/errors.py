"""The one error tree. Every error a caller can meet carries its HTTP status and says what to change.

Nothing below `tuwen/api/` raises an HTTPException; `tuwen/api/problems.py` turns these into problem+json (RFC 9457).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class FieldError:
    """One wrong field of a request: where it stands and what is wrong with it."""

    field: str
    message: str


def summary(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{each.field}: {each.message}" for each in errors)


class AppError(Exception):
    """Base of all errors of ours. `detail` is shown to the caller as it is."""

    status = 500
    slug = "internal-error"
    title = "Internal error"
    retry_after_s: int | None = None

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)


class InvalidInput(AppError):
    """The request is understood and can't be done as it stands."""

    status = 422
    slug = "invalid-input"
    title = "Invalid input"

    @classmethod
    def in_field(cls, field: str, message: str) -> Self:
        errors = [FieldError(field, message)]
        return cls(summary(errors), errors)


class ValueRefused(InvalidInput):
    """The database answers, and its own checks refuse a value: one that we should have refused before."""


class MalformedRequest(InvalidInput):
    """The body can't be read at all (broken JSON, broken multipart)."""

    status = 400
    slug = "malformed-request"
    title = "Malformed request"


class UnreadableImage(InvalidInput):
    """The bytes are not a whole, readable picture."""

    slug = "unreadable-image"
    title = "Unreadable image"


class ImageTooLarge(InvalidInput):
    """The upload has too many bytes or too many pixels."""

    status = 413
    slug = "image-too-large"
    title = "Image too large"


class FileTooLarge(InvalidInput):
    """A file to be imported that has too many bytes."""

    status = 413
    slug = "file-too-large"
    title = "File too large"


class UnsupportedImageType(InvalidInput):
    """A picture, but of a format that is not accepted."""

    status = 415
    slug = "unsupported-image-type"
    title = "Unsupported image type"


class UnsupportedMediaType(InvalidInput):
    """A request body that is neither JSON nor a form."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class NotFound(AppError):
    """No such product, picture or page."""

    status = 404
    slug = "not-found"
    title = "Not Found"


class NotCancellable(AppError):
    """The job has ended already."""

    status = 409
    slug = "not-cancellable"
    title = "Not cancellable"


class DuplicateSku(AppError):
    """Another product has this sku."""

    status = 409
    slug = "duplicate-sku"
    title = "Duplicate sku"


class DuplicatePicture(AppError):  # of which the caller has asked to be refused
    status = 409
    slug = "duplicate-picture"
    title = "Duplicate picture"


class VersionMismatch(AppError):
    """Another has changed the product since the caller read it."""

    status = 412
    slug = "version-mismatch"
    title = "Version mismatch"


class IdempotencyKeyUsed(AppError):
    """For another request, or for a product that is deleted by now."""

    status = 422
    slug = "idempotency-key-used"
    title = "Idempotency-Key used"


class DependencyUnavailable(AppError):
    """Something this service stands on does not answer. Work that met it is kept and tried again."""

    status = 503
    slug = "dependency-unavailable"
    title = "A dependency is unavailable"
    retry_after_s = 5


class Overloaded(DependencyUnavailable):
    """A bounded queue is full; the caller may try again shortly."""

    slug = "overloaded"
    title = "Overloaded"
    retry_after_s = 1


class QueueFull(Overloaded):
    """So many pictures wait to be drawn that no more are taken."""

    slug = "queue-full"
    title = "The queue is full"
    retry_after_s = 30


class DatabaseUnavailable(DependencyUnavailable):
    """No connection, a lost one, or no answer in time: whether a write was done is then unknown."""

    slug = "database-unavailable"
    title = "The database does not answer"


class DatabaseBusy(DatabaseUnavailable):
    """A deadlock, or a lock that was waited for too long: nothing was written, and the same again may well work."""

    slug = "database-busy"
    title = "The database is busy with other changes"
    retry_after_s = 1


class DatabaseFull(DatabaseUnavailable):
    """It answers, and has no room for what is to be written."""

    slug = "database-full"
    title = "The database's disk is full"
    retry_after_s = 30


class DatabaseUnusable(DatabaseUnavailable):
    """It answers, and an operator has to act: access denied, no such database, read-only, damaged."""

    slug = "database-unusable"
    title = "The database can't be used as it stands"
    retry_after_s = 30


class VectorDBUnavailable(DependencyUnavailable):
    slug = "vector-db-unavailable"


class CollectionGone(VectorDBUnavailable):
    """Milvus answers, and lacks the collection: dropped, or another Milvus. It is made again within seconds."""


class IndexChanged(DependencyUnavailable):
    """Another index took its place in the middle of the work, which begins again with that one."""

    slug = "index-changed"


class ReindexConflict(AppError):
    """Another change of the models is under way, or something has to be dropped before it."""

    status = 409
    slug = "reindex-conflict"
    title = "Reindex conflict"


class GateClosed(AppError):
    """A new index does not take the live one's place; the detail says why, and its job shows it."""

    slug = "gate-closed"
    title = "Gate closed"


class QueueUnavailable(DependencyUnavailable):
    slug = "queue-unavailable"


class MessageRefused(AppError):
    """The transport answered, and will never take this message."""

    slug = "message-refused"
    title = "Message refused"


class ImageStoreUnavailable(DependencyUnavailable):
    slug = "image-store-unavailable"


class PictureUnreadable(ImageStoreUnavailable):
    """The store answers, and can't give or take this one; it may be the only one."""


class ModelsUnavailable(DependencyUnavailable):
    """The models are loaded, and don't answer, or fail whatever they are given."""

    slug = "models-unavailable"


class EncodingFailed(AppError):
    """The model raised on this very item, twice, and takes others."""

    slug = "encoding-failed"
    title = "Encoding failed"


class GenerationRefused(AppError):
    """The generator will not draw this: a parameter that it lacks, or its safety checker's verdict."""

    status = 422
    slug = "generation-refused"
    title = "Generation refused"


class VectorsRejected(AppError):
    """Milvus answered, and refused the rows themselves."""

    slug = "vectors-rejected"
    title = "Vectors rejected"


class ConfigurationError(AppError):
    """The settings can't work; the message names the setting to change. Ends the process at start."""

    slug = "configuration"
    title = "Configuration error"


class MilvusFileInUse(ConfigurationError):
    """Another process has the Milvus Lite file open: a running API, mostly."""


class ModelUnavailable(ConfigurationError):
    """A model can't be had or can't be read."""

    slug = "model-unavailable"


class ModelMismatch(ConfigurationError):
    """The active collection was built with other models than the settings name."""

    slug = "model-mismatch"
