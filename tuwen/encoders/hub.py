"""Where a model's files come from: a local folder as given, or a hub's repository, kept in the client's own cache."""

import http.client
import logging
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tuwen.errors import ModelUnavailable

logger = logging.getLogger(__name__)

# A start from the cache must not wait longer for a hub that is silent; two models ask one after the other.
HUB_TIMEOUT_S = 5.0
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


class Fetcher(Protocol):
    def __call__(self, model: str, revision: str | None, *, local_files_only: bool) -> Path:
        """The folder with the files of a hub id. Raises OSError, ValueError or RuntimeError."""


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
    silence = _why_silent(_address(hub, hub_id))
    if silence is None:
        logger.info("Fetching %s from %s (kept for the next start)", model, hub)
    else:
        logger.warning("%s does not answer (%s); its cache is looked at for %s=%s", hub, silence, setting, model)
    try:
        path = fetchers[hub](hub_id, revision or None, local_files_only=silence is not None)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if silence is not None:
            reason = f"it does not answer ({silence}), and its cache lacks the model or a part of it."
        raise ModelUnavailable(
            f"{setting}={model} can't be had from {hub}: {reason} "
            f"Without internet, set {setting} to a local folder of the model; MODEL_HUB chooses the hub."
        ) from error
    if silence is not None:
        logger.warning("%s=%s is taken from the cache, as it was fetched last, without asking %s", setting, model, hub)
    return path


def _why_silent(address: str) -> str | None:
    """None where a server answers, whatever it says. The hubs' own clients would ask again and again, for minutes."""
    try:
        urllib.request.urlopen(address, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        # Of certificates the clients have a list of their own.
        return None if isinstance(error.reason, ssl.SSLCertVerificationError) else str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None


def _address(hub: str, model: str) -> str:
    """Where its client asks first."""
    if hub == "huggingface":
        import huggingface_hub.constants  # noqa: PLC0415

        return f"{huggingface_hub.constants.ENDPOINT}/api/models/{model}"
    import modelscope_hub.config  # noqa: PLC0415

    return f"{modelscope_hub.config.HubConfig().endpoint}/api/v1/models/{model}"


def pinned_name(model: str, path: Path) -> str:
    """The same model again at any later time: a folder's whole path, or a hub id with the revision that was found."""
    if Path(model).exists():
        return str(path)
    hub_id, _, revision = model.partition("@")
    if path.parent.name == "snapshots":  # Hugging Face's cache keeps a folder for each commit
        revision = path.name
    return f"{hub_id}@{revision}" if revision else hub_id


# Both hubs' clients are slow to import, and a local folder needs neither.


def fetch_from_huggingface(
    model: str, revision: str | None, *, local_files_only: bool, ignored_files: Sequence[str]
) -> Path:
    import huggingface_hub  # noqa: PLC0415

    return Path(
        huggingface_hub.snapshot_download(
            model, revision=revision, ignore_patterns=list(ignored_files), local_files_only=local_files_only
        )
    )


def fetch_from_modelscope(
    model: str, revision: str | None, *, local_files_only: bool, ignored_files: Sequence[str]
) -> Path:
    import modelscope_hub  # noqa: PLC0415
    from modelscope_hub.compat import snapshot_download  # noqa: PLC0415

    try:
        return Path(
            snapshot_download(
                model, revision=revision, ignore_patterns=list(ignored_files), local_files_only=local_files_only
            )
        )
    except modelscope_hub.HubError as error:  # only some of them are an OSError
        raise OSError(str(error)) from error
