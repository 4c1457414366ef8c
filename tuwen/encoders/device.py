"""Where a model runs when its setting leaves the choice, and how it runs behind all other work."""

import sys
import threading
from pathlib import Path

from tuwen.cores import available_cores, stand_behind
from tuwen.errors import ModelUnavailable


def choose_device(setting: str, name: str = "MODEL_DEVICE") -> str:
    """The setting itself, or for `auto` the best that this machine has: cuda, mps or cpu.

    Raises ModelUnavailable, with the setting's name, where there is no such device.
    """
    if setting not in ("auto", "cpu"):
        _require_device(setting, name)
    if setting != "auto":
        return setting
    if not _may_have_a_gpu():
        return "cpu"
    import torch  # noqa: PLC0415  # takes seconds, and a quarter of a gigabyte

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require_device(setting: str, name: str) -> None:
    """Before a model is blamed for it."""
    import torch  # noqa: PLC0415

    try:
        torch.zeros(1, device=setting).tolist()
    except Exception as error:  # torch raises AssertionError, NotImplementedError and RuntimeError for it
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelUnavailable(
            f"{name}={setting}: torch can't compute there ({reason}). Set {name} to auto, or to a device that this "
            "machine has."
        ) from error


def _may_have_a_gpu() -> bool:
    """Without torch: Apple's always, others where a driver of NVIDIA's or AMD's is installed."""
    if sys.platform == "darwin":
        return True
    return any(Path(each).exists() for each in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")) or sys.platform == "win32"


def choose_threads(setting: int) -> int:
    """The setting itself, or for 0 as many as this process has cores."""
    return setting or available_cores()


def limit_torch(setting: int) -> None:
    """The threads that it computes on, in all threads to come: the setting's, or for 0 no more than there are cores.

    OMP_NUM_THREADS, which it took its number from, may be less.
    """
    import torch  # noqa: PLC0415

    torch.set_num_threads(setting or min(torch.get_num_threads(), available_cores()))


def half_precision(device: str) -> str:
    """The dtype of torch's that costs a vector next to nothing (cosine 0.999 and more) and the device is fast in."""
    import torch  # noqa: PLC0415

    if device.startswith("cuda"):
        return "float16"
    has_bfloat16 = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return "bfloat16" if device == "cpu" and has_bfloat16 else "float32"


def run_behind_all_others() -> None:
    """This thread from now on: a lower priority, and one core for its models. Other threads keep theirs.

    For encoders that are `on_one_thread`: OpenVINO's threads serve all its models, and have a priority of their own.
    """
    stand_behind()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    # That also is what threads to come begin with, which another thread's call puts right again.
    restoring = threading.Thread(target=torch.set_num_threads, args=[cores])
    restoring.start()
    restoring.join()
