"""Promises of seconds, told from all others: what is late may be so for what runs beside it (`tests/second_try.py`)."""


class TooLate(AssertionError):
    """Everything was right so far, but for how long it took."""


def require_in_time(took_s: float, limit_s: float, what: str = "it") -> None:
    """Raises TooLate."""
    if took_s >= limit_s:
        raise TooLate(f"{what} took {took_s:.2f} s, and less than {limit_s:.2f} s are promised")
