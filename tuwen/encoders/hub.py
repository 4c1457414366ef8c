"""Where a model's files come from: a local folder as given, or a hub's repository, kept in the client's own cache."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tuwen.errors import ModelUnavailable

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def resolve_model(model: str, hub: str, setting: str, fetchers: Mapping[str, Callable[[str], Path]]) -> Path:
    """The local folder (or checkpoint file) of a model; `fetchers` by hub. Raises ModelUnavailable naming `setting`."""
    path = Path(model)
    if path.exists():
        return path.resolve()
    if not HUB_ID.fullmatch(model):
        raise ModelUnavailable(f"{setting}={model}: there is no such folder, and a hub id looks like 'owner/name'.")
    if hub == "none":
        raise ModelUnavailable(f"{setting}={model}: no such folder, and MODEL_HUB=none forbids fetching it.")
    logger.info("Fetching %s from %s (kept for the next start)", model, hub)
    try:
        return fetchers[hub](model)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelUnavailable(
            f"{setting}={model} can't be had from {hub}: {reason} "
            f"Without internet, set {setting} to a local folder of the model; MODEL_HUB chooses the hub."
        ) from error


# Both hubs' clients are slow to import, and a local folder needs neither.


def fetch_from_huggingface(model: str, ignored_files: Sequence[str]) -> Path:
    import huggingface_hub  # noqa: PLC0415

    return Path(huggingface_hub.snapshot_download(model, ignore_patterns=list(ignored_files)))


def fetch_from_modelscope(model: str, ignored_files: Sequence[str]) -> Path:
    import modelscope_hub  # noqa: PLC0415
    from modelscope_hub.compat import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(model, ignore_patterns=list(ignored_files)))
    except modelscope_hub.HubError as error:  # only some of them are an OSError
        raise OSError(str(error)) from error
