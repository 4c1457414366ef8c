"""The encoders that the settings choose: found, loaded, and told apart by a fingerprint of their files.

What a model is and how it is called stands in `tuwen/encoders/`.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tuwen.encoders.base import Encoders, ImageTextEncoder
from tuwen.encoders.device import choose_device
from tuwen.encoders.hub import fetch_from_huggingface, fetch_from_modelscope, resolve_model
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings

Encoder = TypeVar("Encoder")

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
# Formats of the same weights that nothing here reads.
UNREAD_HUB_FILES = ["*.pt", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "openvino/*", "onnx/*"]
FETCHERS = {
    "huggingface": partial(fetch_from_huggingface, ignored_files=UNREAD_HUB_FILES),
    "modelscope": partial(fetch_from_modelscope, ignored_files=UNREAD_HUB_FILES),
}


def load_encoders(settings: Settings) -> Encoders:
    """Load both models. Raises ModelUnavailable, naming the setting, when one can't be had or read."""
    device = choose_device(settings.model_device)
    clip_path = resolve_model(settings.clip_model, settings.model_hub, "CLIP_MODEL", FETCHERS)
    text_path = resolve_model(settings.text_model, settings.model_hub, "TEXT_MODEL", FETCHERS)
    clip = _load_clip(clip_path, device)
    text = _load("TEXT_MODEL", text_path, lambda: SentenceEncoder(text_path, device))
    name = f"{Path(settings.clip_model).name} + {Path(settings.text_model).name}"
    return Encoders(clip, text, name, fingerprint([clip_path, text_path]))


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
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise ModelUnavailable(f"{setting}: the model in {path} can't be read: {error}") from error
