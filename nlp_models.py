"""The encoders that the settings choose: found, loaded, and told apart by a fingerprint of their files.

What a model is and how it is called stands in `tuwen/encoders/`.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tuwen.encoders.base import Encoders, ImageTextEncoder, KnownIndex, ModelNames
from tuwen.encoders.device import choose_device
from tuwen.encoders.hub import fetch_from_huggingface, fetch_from_modelscope, pinned_name, resolve_model
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import ModelMismatch, ModelUnavailable
from tuwen.settings import Settings

Encoder = TypeVar("Encoder")

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
# Formats of the same weights that nothing here reads.
UNREAD_HUB_FILES = ["*.pt", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "openvino/*", "onnx/*"]
FETCHERS = {
    "huggingface": partial(fetch_from_huggingface, ignored_files=UNREAD_HUB_FILES),
    "modelscope": partial(fetch_from_modelscope, ignored_files=UNREAD_HUB_FILES),
}


@dataclass(frozen=True)
class FoundModels:
    """The files of two models, before they are loaded."""

    names: ModelNames
    clip: Path
    text: Path
    fingerprint: str


def find_models(names: ModelNames, hub: str) -> FoundModels:
    """Fetches what is not here. Raises ModelUnavailable, naming the setting, when one can't be had."""
    clip = resolve_model(names.clip, hub, "CLIP_MODEL", FETCHERS)
    text = resolve_model(names.text, hub, "TEXT_MODEL", FETCHERS)
    pinned = ModelNames(pinned_name(names.clip, clip), pinned_name(names.text, text))
    return FoundModels(pinned, clip, text, fingerprint([clip, text]))


def choose_models(settings: Settings, active: KnownIndex | None, others: Sequence[KnownIndex]) -> FoundModels:
    """The active index's models. Raises ModelMismatch where the settings name some that no index was made with."""
    wanted = ModelNames(settings.clip_model, settings.text_model)
    recorded = active.models if active else None
    if recorded is not None and _names_same(wanted, recorded):
        wanted = recorded  # a hub's newer revision does not come in by a restart
    found = find_models(wanted, settings.model_hub)
    if active is None or found.fingerprint == active.fingerprint:
        return found
    if recorded is not None and any(found.fingerprint == other.fingerprint for other in others):
        logger.warning(
            "CLIP_MODEL and TEXT_MODEL name the models of another index; the active one's are used: set "
            "CLIP_MODEL=%s and TEXT_MODEL=%s, or change the index by 'python cli.py reindex'.",
            *(recorded.clip, recorded.text),
        )
        return find_models(recorded, settings.model_hub)
    back = f"to {recorded.clip} and {recorded.text}" if recorded else "to what they were"
    command = f"python cli.py reindex --clip-model {settings.clip_model} --text-model {settings.text_model}"
    raise ModelMismatch(
        "CLIP_MODEL and TEXT_MODEL name other models than the index was built with. "
        f"To change them, set both back {back}, start, and run: {command}"
    )


def load_encoders(settings: Settings, found: FoundModels | None = None) -> Encoders:
    """Load both models; without `found`, those of the settings. Raises ModelUnavailable when one can't be read."""
    found = found or find_models(ModelNames(settings.clip_model, settings.text_model), settings.model_hub)
    device = choose_device(settings.model_device)
    clip = _load_clip(found.clip, device)
    text = _load("TEXT_MODEL", found.text, lambda: SentenceEncoder(found.text, device))
    return Encoders(clip, text, found.names, found.fingerprint)


def _names_same(wanted: ModelNames, recorded: ModelNames) -> bool:
    pairs = ((wanted.clip, recorded.clip), (wanted.text, recorded.text))
    return all(
        recorded_name in (name, f"{Path(name).resolve()}") or recorded_name.startswith(f"{name}@")
        for name, recorded_name in pairs
    )


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the files that decide the vectors: weights, configurations, tokenizers."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if file.suffix in (*WEIGHT_SUFFIXES, ".json", ".txt", ".model"):
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _load_clip(path: Path, device: str) -> ImageTextEncoder:
    if path.suffix != ".pt":
        return _load("CLIP_MODEL", path, lambda: TransformersClip(path, device))
    try:
        # Imported here: cn_clip is an optional extra that most installations lack.
        from tuwen.encoders.cn_clip import CnClipCheckpoint  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch's raises RuntimeError
        raise ModelUnavailable(
            f"CLIP_MODEL={path} is a cn_clip checkpoint, and cn_clip can't be imported here ({error}): "
            "'pip install -r requirements-cn-clip.txt', or set CLIP_MODEL to a folder in transformers format."
        ) from error
    return _load("CLIP_MODEL", path, lambda: CnClipCheckpoint(path, device))


def _load(setting: str, path: Path, load: Callable[[], Encoder]) -> Encoder:
    try:
        return load()
    except Exception as error:  # the libraries raise errors of their own for damaged files, and MemoryError
        raise ModelUnavailable(f"{setting}: the model in {path} can't be read: {error}") from error
