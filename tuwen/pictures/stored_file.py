"""A file of the picture store, as a listing shows it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoredFile:
    path: str
    """Relative to the store's root."""
    modified_at: datetime
