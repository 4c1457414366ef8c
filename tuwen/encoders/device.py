"""Where a model runs when its setting leaves the choice."""

import torch


def choose_device(setting: str) -> str:
    """The setting itself, or for `auto` the best that this machine has: cuda, mps or cpu."""
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
