"""Where a model's files come from: a local folder as given, or a hub's repository, kept in the client's own cache."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tuwen.errors import ModelUnavailable

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
Fetcher = Callable[[str, str | None], Path]  # hub id and revision → folder


def resolve_model(model: str, hub: str, setting: str, fetchers: Mapping[str, Fetcher]) -> Path:
    """The local folder (or checkpoint file) of a model; `fetchers` by hub. Raises ModelUnavailable naming `setting`.

    A hub id may end in `@revision`: a commit, a tag or a branch.
    """
    path = Path(model)
    if path.exists():
        return path.resolve()
    hub_id, _, revision = model.partition("@")
    if not HUB_ID.fullmatch(hub_id):
        raise ModelUnavailable(f"{setting}={model}: there is no such folder, and a hub id looks like 'owner/name'.")
    if hub == "none":
        raise ModelUnavailable(f"{setting}={model}: no such folder, and MODEL_HUB=none forbids fetching it.")
    logger.info("Fetching %s from %s (kept for the next start)", model, hub)
    try:
        return fetchers[hub](hub_id, revision or None)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelUnavailable(
            f"{setting}={model} can't be had from {hub}: {reason} "
            f"Without internet, set {setting} to a local folder of the model; MODEL_HUB chooses the hub."
        ) from error


def pinned_name(model: str, path: Path) -> str:
    """The same model again at any later time: a folder's whole path, or a hub id with the revision that was found."""
    if Path(model).exists():
        return str(path)
    hub_id, _, revision = model.partition("@")
    if path.parent.name == "snapshots":  # Hugging Face's cache keeps a folder for each commit
        revision = path.name
    return f"{hub_id}@{revision}" if revision else hub_id


# Both hubs' clients are slow to import, and a local folder needs neither.


def fetch_from_huggingface(model: str, revision: str | None, ignored_files: Sequence[str]) -> Path:
    import huggingface_hub  # noqa: PLC0415

    return Path(huggingface_hub.snapshot_download(model, revision=revision, ignore_patterns=list(ignored_files)))


def fetch_from_modelscope(model: str, revision: str | None, ignored_files: Sequence[str]) -> Path:
    import modelscope_hub  # noqa: PLC0415
    from modelscope_hub.compat import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(model, revision=revision, ignore_patterns=list(ignored_files)))
    except modelscope_hub.HubError as error:  # only some of them are an OSError
        raise OSError(str(error)) from error
