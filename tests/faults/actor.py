"""Whoever does something beside the others in a run, each on a thread of its own."""

import threading
from abc import ABC, abstractmethod

STOP_S = 60.0


class Actor(ABC):
    """`act` goes on until `stopping` is set."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def act(self) -> None: ...

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Raises RuntimeError where it failed, or does not come to an end."""
        self.stopping.set()
        self._thread.join(STOP_S)
        if self._failure is not None or self._thread.is_alive():
            raise RuntimeError(f"{self._thread.name} did not do its part") from self._failure

    def _run(self) -> None:
        try:
            self.act()
        except BaseException as error:  # `stop` raises it
            self._failure = error
