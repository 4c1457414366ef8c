"""The encoders: where their weights come from, preprocessing, embedding. The only importer of torch and its kin.

Both kinds return float32 arrays [n, dim], L2-normalised, so that a dot product is the cosine. They are not thread-safe:
`batching.py` gives each call to one thread.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sentence_transformers import SentenceTransformer

from errors import ModelUnavailable
from model_hub import fetch_from_huggingface, fetch_from_modelscope, resolve_model
from settings import Settings

Encoder = TypeVar("Encoder")

Embeddings: TypeAlias = NDArray[np.float32]  # [n, dim], rows of length 1

# Chinese-CLIP has 512 positions but was trained on 52 (`context_length` in cn_clip/clip/utils.py, Apache-2.0).
CHINESE_CLIP_CONTEXT = 52
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
# Formats of the same weights that nothing here reads.
UNREAD_HUB_FILES = ["*.pt", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "openvino/*", "onnx/*"]
FETCHERS = {
    "huggingface": partial(fetch_from_huggingface, ignored_files=UNREAD_HUB_FILES),
    "modelscope": partial(fetch_from_modelscope, ignored_files=UNREAD_HUB_FILES),
}


class TextEncoder(Protocol):
    """Titles into one space, to be compared with each other."""

    dim: int

    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...


class ImageTextEncoder(TextEncoder, Protocol):
    """Pictures and texts into one space."""

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings: ...


@dataclass(frozen=True)
class Encoders:
    clip: ImageTextEncoder
    text: TextEncoder
    name: str
    fingerprint: str
    """64 hex digits over the weights and configurations; vectors of different fingerprints never share a collection."""


class TransformersClip:
    """Any dual encoder that transformers' AutoModel reads: Chinese-CLIP, CLIP, SigLIP, VisionTextDualEncoder."""

    def __init__(self, folder: Path, device: str) -> None:
        self._device = device
        self._model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        processor = transformers.AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        self._tokenizer = processor.tokenizer
        # PIL resizes as in training; torchvision, which transformers prefers once it is installed, moves vectors 2e-3.
        self._image_processor = transformers.AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil"
        )
        self._pad_to_square = bool(getattr(self._image_processor, "do_center_crop", False))
        self._max_tokens = self._context_length()
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        prepared = [prepare_picture(image, pad_to_square=self._pad_to_square) for image in images]
        pixels = self._image_processor(images=prepared, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            features = self._model.get_image_features(pixel_values=pixels.to(self._device))
        return _unit_rows(features.pooler_output)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            features = self._model.get_text_features(**tokens.to(self._device))
        return _unit_rows(features.pooler_output)

    def _context_length(self) -> int:
        config = self._model.config
        positions = int(getattr(config.text_config, "max_position_embeddings", 512))
        limit = CHINESE_CLIP_CONTEXT if config.model_type == "chinese_clip" else positions
        return min(limit, positions, int(self._tokenizer.model_max_length))


class SentenceEncoder:
    """Any sentence-transformers folder (BGE and its kin)."""

    def __init__(self, folder: Path, device: str) -> None:
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        embeddings = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        return _unit_rows(embeddings)


def load_encoders(settings: Settings) -> Encoders:
    """Load both models. Raises ModelUnavailable, naming the setting, when one can't be had or read."""
    device = choose_device(settings.model_device)
    clip_path = resolve_model(settings.clip_model, settings.model_hub, "CLIP_MODEL", FETCHERS)
    text_path = resolve_model(settings.text_model, settings.model_hub, "TEXT_MODEL", FETCHERS)
    clip = _load_clip(clip_path, device)
    text = _load("TEXT_MODEL", text_path, lambda: SentenceEncoder(text_path, device))
    name = f"{Path(settings.clip_model).name} + {Path(settings.text_model).name}"
    return Encoders(clip, text, name, fingerprint([clip_path, text_path]))


def choose_device(setting: str) -> str:
    if setting != "auto":
        return setting
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_picture(image: Image.Image, *, pad_to_square: bool) -> Image.Image:
    """RGB on white. Transparent margins are cut off; padding keeps a centre crop from cutting the product."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        box = image.getchannel("A").getbbox()
        image = image.crop(box) if box else image
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if pad_to_square and image.width != image.height:
        side = max(image.size)
        image = ImageOps.pad(image, (side, side), color="white")
    return image


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
        from cn_clip_checkpoint import CnClipCheckpoint  # noqa: PLC0415
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


def _unit_rows(features: torch.Tensor) -> Embeddings:
    rows = torch.nn.functional.normalize(features.float(), dim=-1)
    return cast(Embeddings, rows.cpu().numpy())
