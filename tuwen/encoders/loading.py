"""Where an encoder runs: torch, or an export of it on this processor. Imports either only when it is to run."""

import logging
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tuwen.encoders.base import ImageTextEncoder, Precision, TextEncoder
from tuwen.encoders.device import choose_device, choose_threads, half_precision, limit_torch
from tuwen.encoders.exported.cache import Kind, NotExportable, export_folder, load_export
from tuwen.encoders.matryoshka import Shortened
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.remote import FoundEndpoint, RemoteClip, RemoteTexts, require_size_if_it_answers
from tuwen.encoders.self_test import (
    AS_GOOD,
    LONG_TEXT,
    SAME_IN_HALF,
    SHORT_TEXT,
    clip_probes,
    least_cosine,
    require_sound_clip,
    require_sound_text,
)
from tuwen.errors import ConfigurationError, ModelUnavailable
from tuwen.settings import Settings

Encoder = TypeVar("Encoder")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundModel:
    """The files of one model, before it is loaded."""

    path: Path
    files: str
    """Digest of those that decide the vectors."""
    precision: Precision | None = None
    """None: float32, or a half precision whose vectors are as good."""
    dimensions: int | None = None
    """None: all that it gives."""


def load_clip(model: FoundModel | FoundEndpoint, settings: Settings) -> ImageTextEncoder:
    """Loaded, and tried once. Raises ModelUnavailable in one sentence, ConfigurationError of another setting."""
    if isinstance(model, FoundEndpoint):
        remote = RemoteClip(model, settings)
        require_size_if_it_answers(remote)
        return remote
    if model.path.suffix == ".pt":
        return _named("CLIP_MODEL", model.path, partial(_checkpoint, model, settings))
    exported = partial(_exported_clip, choose_threads(settings.model_threads))
    in_torch = partial(_clip_in_torch, model.path)
    return _named("CLIP_MODEL", model.path, partial(_load, "clip", model, settings, exported, in_torch))


def load_sentence(model: FoundModel | FoundEndpoint, prompts: Prompts, settings: Settings) -> TextEncoder:
    """The same."""
    if isinstance(model, FoundEndpoint):
        remote = RemoteTexts(model, prompts, settings)
        require_size_if_it_answers(remote)
        return remote
    exported = partial(_exported_sentence, prompts, choose_threads(settings.model_threads))
    in_torch = partial(_sentence_in_torch, model.path, prompts)

    def load() -> TextEncoder:
        encoder = _load("sentence", model, settings, exported, in_torch)
        return encoder if model.dimensions is None else Shortened(encoder, model.dimensions)

    return _named("TEXT_MODEL", model.path, load)


def _named(setting: str, path: Path, load: Callable[[], Encoder]) -> Encoder:
    try:
        return load()
    except ConfigurationError:
        raise
    except ImportError as error:
        raise ModelUnavailable(
            f"{setting}: the model in {path} needs a Python package that is missing here ({_in_a_line(error)}): "
            f"install it, or set {setting} to another model."
        ) from error
    except Exception as error:  # the libraries raise errors of their own for damaged files, and MemoryError
        if "trust_remote_code" in str(error):
            reason = "brings Python code of its own, which is never run here"
        else:
            reason = f"can't be used: {_in_a_line(error)}"
        raise ModelUnavailable(f"{setting}: the model in {path} {reason}; set {setting} to another model.") from error


def _in_a_line(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" …").rstrip(". ")


def _checkpoint(model: FoundModel, settings: Settings) -> ImageTextEncoder:
    path = model.path
    if model.precision is not None:
        raise ModelUnavailable(f"CLIP_MODEL={path} is a cn_clip checkpoint, which can't be run in {model.precision}.")
    try:
        # Imported here: cn_clip is an optional extra that most installations lack.
        from tuwen.encoders.cn_clip import CnClipCheckpoint  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch's raises RuntimeError
        raise ModelUnavailable(
            f"CLIP_MODEL={path} is a cn_clip checkpoint, and cn_clip can't be imported here ({error}): "
            "'pip install -r requirements-cn-clip.txt', or set CLIP_MODEL to a folder in transformers format."
        ) from error
    limit_torch(settings.model_threads)
    encoder = CnClipCheckpoint(path, choose_device(settings.model_device))
    require_sound_clip(encoder)
    return encoder


def _load(
    kind: Kind,
    model: FoundModel,
    settings: Settings,
    load: Callable[[Path], Encoder],
    load_in_torch: Callable[[str, str], Encoder],
) -> Encoder:
    if model.precision == "int8":
        _require_processor(settings, "int8, which ENCODER_PRECISION or the index asks for, is computed")
        return _load_int8(kind, model, settings, load)
    if settings.encoder_backend == "openvino":
        _require_processor(settings, "ENCODER_BACKEND=openvino computes")
    device = "cpu" if settings.encoder_backend == "openvino" else choose_device(settings.model_device)
    if settings.encoder_backend != "torch" and device == "cpu":
        try:
            folder = export_folder(settings.encoder_cache, kind, model.files)
            return load_export(kind, model.path, folder, load, setting=settings.source_of("encoder_cache_dir"))
        except NotExportable as error:
            if settings.encoder_backend == "openvino":
                raise ValueError(f"ENCODER_BACKEND=openvino can't run it ({error})") from error
            logger.warning("%s is run by torch, not OpenVINO: %s", model.path, error)
    limit_torch(settings.model_threads)
    return load_in_torch(device, half_precision(device))


def _require_processor(settings: Settings, what: str) -> None:
    if settings.model_device not in ("auto", "cpu"):
        raise ModelUnavailable(
            f"MODEL_DEVICE={settings.model_device}: {what} on the processor alone. Set MODEL_DEVICE=cpu, or "
            "ENCODER_BACKEND and ENCODER_PRECISION to auto."
        )


def _load_int8(kind: Kind, model: FoundModel, settings: Settings, load: Callable[[Path], Encoder]) -> Encoder:
    """By OpenVINO, whatever else there is: vectors of other precisions are others. Raises ModelUnavailable."""
    refused = f"{model.path} can't be run in int8, which ENCODER_PRECISION or the index asks for"
    if settings.encoder_backend == "torch":
        raise ModelUnavailable(f"{refused}: ENCODER_BACKEND=torch does not compute in it.")
    try:
        half, folder = (export_folder(settings.encoder_cache, kind, model.files, int8=int8) for int8 in (False, True))
        setting = settings.source_of("encoder_cache_dir")
        return load_export(kind, model.path, folder, load, int8_of=half, setting=setting)
    except NotExportable as error:
        raise ModelUnavailable(f"{refused}: {error}.") from error


def _tell_of_not_int8(not_int8: Mapping[str, float], folder: Path) -> None:
    for network, cosine in not_int8.items():
        logger.info(
            "%s in %s stays in half precision: in int8 its vectors would be others (cosine %.4f)",
            *(network, folder, cosine),
        )


def _exported_clip(threads: int, folder: Path) -> ImageTextEncoder:
    from tuwen.encoders.exported.encoders import ExportedClip, require_as_good_as_converted  # noqa: PLC0415

    encoder = ExportedClip(folder, threads)
    _tell_of_not_int8(encoder.manifest.not_int8, folder)
    require_as_good_as_converted(folder, clip_probes(encoder))
    require_sound_clip(encoder, SAME_IN_HALF)
    return encoder


def _exported_sentence(prompts: Prompts, threads: int, folder: Path) -> TextEncoder:
    from tuwen.encoders.exported.encoders import ExportedSentence, require_as_good_as_converted  # noqa: PLC0415

    encoder = ExportedSentence(folder, prompts, threads)
    _tell_of_not_int8(encoder.manifest.not_int8, folder)
    require_as_good_as_converted(folder, encoder.encode([SHORT_TEXT, LONG_TEXT], prompt=""))
    require_sound_text(encoder, SAME_IN_HALF)
    return encoder


def _clip_in_torch(path: Path, device: str, half: str) -> ImageTextEncoder:
    import torch  # noqa: PLC0415

    from tuwen.encoders.fg_clip import open_clip  # noqa: PLC0415

    encoder = open_clip(path, device)
    require_sound_clip(encoder)
    if half != "float32":
        faster = open_clip(path, device, getattr(torch, half))
        if least_cosine(clip_probes(encoder), clip_probes(faster)) >= AS_GOOD:
            return faster
    return encoder


def _sentence_in_torch(path: Path, prompts: Prompts, device: str, half: str) -> TextEncoder:
    from tuwen.encoders.sentence import SentenceEncoder  # noqa: PLC0415

    encoder = SentenceEncoder(path, device, prompts)
    require_sound_text(encoder)
    if half != "float32":
        faster = SentenceEncoder(path, device, prompts, half)
        texts = [SHORT_TEXT, LONG_TEXT]
        if least_cosine(encoder.encode_documents(texts), faster.encode_documents(texts)) >= AS_GOOD:
            return faster
    return encoder
