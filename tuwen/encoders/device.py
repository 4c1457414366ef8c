"""Where a model runs when its setting leaves the choice, and how it runs behind all other work."""

import os
import threading
from contextlib import suppress

import torch

NICENESS = 10


def choose_device(setting: str) -> str:
    """The setting itself, or for `auto` the best that this machine has: cuda, mps or cpu."""
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def run_behind_all_others() -> None:
    """This thread from now on: a lower priority, and one core for its models. Other threads keep theirs."""
    with suppress(OSError, AttributeError):  # only on Linux a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    # That also is what threads to come begin with, which another thread's call puts right again.
    restoring = threading.Thread(target=torch.set_num_threads, args=[cores])
    restoring.start()
    restoring.join()
