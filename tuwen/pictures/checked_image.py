"""A picture that was let in: what the checks hand to the store and to the catalogue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckedImage:
    """Bytes that are known to be a whole picture within the limits."""

    data: bytes
    sha256: str
    received_sha256: str
    """Of the file as it came, before what it said besides its pixels was removed."""
    extension: str
    width: int
    height: int
    thumbnail: bytes
    """Made where the picture was decoded anyway."""
    is_generated: bool = False
    """Its own metadata says that a model made it."""
