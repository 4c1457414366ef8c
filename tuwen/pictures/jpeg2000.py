"""How far down a JPEG 2000 can be decoded at once: it holds its picture in several resolutions."""

CODING_STYLE, ITS_LEVELS = b"\xff\x52", 9  # the marker; from it to the number of decompositions
ANOTHER_STYLE = b"\xff\x53"  # of one component alone
START_OF_DATA = b"\xff\x93"
HEADER_BYTES = 64 * 1024


def resolutions_to_drop(data: bytes, factor: int) -> int:
    """Each halves the sides; no further than to the `factor`th part, and none where the header is unusual."""
    start = data.find(b"\xff\x4f\xff\x51")
    header = data[start : start + HEADER_BYTES].partition(START_OF_DATA)[0] if start >= 0 else b""
    at = header.find(CODING_STYLE)
    if at < 0 or ANOTHER_STYLE in header or len(header) <= at + ITS_LEVELS:
        return 0
    return min(header[at + ITS_LEVELS], max(1, factor).bit_length() - 1)
