"""What a ZIP archive is written to, whose beginning is on its way while the rest is made."""

import io
from typing import Any


class Outgoing(io.RawIOBase):
    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: Any) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data
