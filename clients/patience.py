"""An HTTP client that waits as long as a service asks it to, which has answered 429, and then asks again."""

import time
from typing import Any

import httpx

UNSAID_S = 1.0  # a proxy's 429 need not say how long


class PatientClient(httpx.Client):
    def __init__(self, *, patience_s: float, **options: Any) -> None:
        """`patience_s`: in which one request is sent for the last time. What is to wait for longer is answered 429."""
        super().__init__(**options)
        self._patience_s = patience_s

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        ends_at = time.monotonic() + self._patience_s
        while True:
            response = super().send(request, **options)
            wait_s = _seconds_to_wait(response)
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS or time.monotonic() + wait_s > ends_at:
                return response
            response.close()
            time.sleep(wait_s)


def _seconds_to_wait(response: httpx.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return max(float(said), 0.1) if said.isdecimal() and len(said) < 10 else UNSAID_S  # noqa: PLR2004
