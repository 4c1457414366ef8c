"""Pictures: what is accepted, where the bytes are kept (a local folder or S3, through fsspec), thumbnails.

A picture is stored under the SHA-256 of its bytes, so storing is idempotent and a stored file never changes. Files are
removed only by `reconcile.py`, once no product has named them for a while: an upload of the same picture that happens
at the same moment can then never lose it.
"""

import hashlib
import io
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from errors import (
    ConfigurationError,
    ImageStoreUnavailable,
    ImageTooLarge,
    NotFound,
    UnreadableImage,
    UnsupportedImageType,
)
from settings import Settings

# Format as Pillow names it → file extension.
ACCEPTED_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"}
# Whatever else is asked for is not ours, wherever it would lead.
STORED_PATH = re.compile(r"(thumbnails/)?[0-9a-f]{2}/[0-9a-f]{64}\.(jpg|png|webp|gif|bmp)")
THUMBNAIL_SIDE = 320
PNG_XMP = "XML:com.adobe.xmp"
# How IPTC has pictures say that a trained model made them: cv.iptc.org/newscodes/digitalsourcetype
GENERATED_SOURCE = "digitalsourcetype/trainedAlgorithmicMedia"
GENERATED_XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/{GENERATED_SOURCE}"/></rdf:RDF></x:xmpmeta>"""
# JPEG decodes to a power-of-two fraction at once, no smaller than this: encoders look at 224 to 384 pixels.
DECODE_SIDE = 1024


@dataclass(frozen=True)
class CheckedImage:
    """Bytes that are known to be a whole picture within the limits."""

    data: bytes
    sha256: str
    extension: str
    width: int
    height: int
    is_generated: bool = False
    """Its own metadata says that a model made it."""

    @property
    def path(self) -> str:
        """Inside the store."""
        return f"{self.sha256[:2]}/{self.sha256}.{self.extension}"


@dataclass(frozen=True)
class StoredFile:
    path: str
    modified_at: datetime


def check_image(data: bytes, settings: Settings) -> CheckedImage:
    """Decode the picture once, whole. Raises ImageTooLarge, UnsupportedImageType or UnreadableImage."""
    if len(data) > settings.upload_max_bytes:
        raise ImageTooLarge.in_field(
            "image", f"has {len(data):,} bytes, the limit is {settings.upload_max_bytes:,}; send a smaller picture"
        )
    image = _open(data)
    if image.format not in ACCEPTED_FORMATS:
        accepted = ", ".join(ACCEPTED_FORMATS)
        raise UnsupportedImageType.in_field("image", f"is a {image.format} file; send one of {accepted}")
    width, height = ImageOps.exif_transpose(_check_pixels(image, settings)).size
    sha256 = hashlib.sha256(data).hexdigest()
    return CheckedImage(data, sha256, ACCEPTED_FORMATS[image.format], width, height, _says_generated(image))


def decode_image(data: bytes) -> Image.Image:
    """Pixels of a picture that was checked when it came in. Raises UnreadableImage."""
    image = _open(data)
    image.draft("RGB", (DECODE_SIDE, DECODE_SIDE))
    _load(image)
    return image


def encode_generated(image: Image.Image, notes: Mapping[str, str]) -> CheckedImage:
    """A PNG that says of itself that a model made it; `notes` are its further text chunks. Same input, same bytes."""
    info = PngInfo()
    info.add_itxt(PNG_XMP, GENERATED_XMP)
    for key, value in notes.items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    return CheckedImage(data, hashlib.sha256(data).hexdigest(), "png", image.width, image.height, is_generated=True)


def thumbnail_path(image_path: str) -> str:
    return f"thumbnails/{Path(image_path).with_suffix('.webp')}"


class ImageStore:
    """The picture files behind one address: a folder, or any fsspec URL such as s3://bucket/prefix."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(settings.image_store_address)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"IMAGE_STORE_URL={settings.image_store_address}: {error}") from error

    def save(self, image: CheckedImage) -> None:
        """Store the picture and its thumbnail; again, if they are there, so that they count as fresh."""
        self._write(image.path, image.data)
        self._write(thumbnail_path(image.path), _thumbnail(image.data))

    def read(self, path: str) -> bytes:
        """Raises NotFound, or ImageStoreUnavailable when the store does not answer."""
        try:
            return bytes(self._files.cat_file(self._full(path)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"There is no picture {path}.") from error
        except OSError as error:
            raise ImageStoreUnavailable(f"The image store does not answer (IMAGE_STORE_URL): {error}") from error

    def delete(self, path: str) -> None:
        """Remove a picture and its thumbnail; gone already is no error."""
        for each in (path, thumbnail_path(path)):
            try:
                self._files.rm_file(self._full(each))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ImageStoreUnavailable(f"The image store does not answer (IMAGE_STORE_URL): {error}") from error

    def list_images(self) -> Iterator[StoredFile]:
        """All stored pictures, without thumbnails."""
        for full, info in self._files.find(self._root, detail=True).items():
            path = full.removeprefix(self._root).lstrip("/")
            if not path.startswith("thumbnails/"):
                yield StoredFile(path, _modified_at(info))

    def check(self) -> None:
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.ls(self._root)
        except OSError as error:
            raise ImageStoreUnavailable(f"The image store does not answer (IMAGE_STORE_URL): {error}") from error

    def _full(self, path: str) -> str:
        if not STORED_PATH.fullmatch(path):
            raise NotFound(f"There is no picture {path}.")
        return f"{self._root}/{path}"

    def _write(self, path: str, data: bytes) -> None:
        full = self._full(path)
        try:
            if not isinstance(self._files, LocalFileSystem):
                self._files.pipe_file(full, data)  # object stores show an object whole or not at all
                return
            self._files.makedirs(full.rpartition("/")[0], exist_ok=True)
            part = f"{full}.{uuid.uuid4().hex}.part"
            self._files.pipe_file(part, data)
            self._files.mv(part, full)  # renamed into place: a crash never leaves half a picture
        except OSError as error:
            raise ImageStoreUnavailable(f"The image store does not answer (IMAGE_STORE_URL): {error}") from error


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_pixels is stricter
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge.in_field("image", f"has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage.in_field("image", "is not a picture; send a JPEG, PNG, WebP, GIF or BMP file") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage.in_field("image", f"can't be read: {error}") from error


def _check_pixels(image: Image.Image, settings: Settings) -> Image.Image:
    pixels = image.width * image.height
    if pixels > settings.image_max_pixels:
        raise ImageTooLarge.in_field(
            "image",
            f"has {image.width} × {image.height} = {pixels:,} pixels, the limit is {settings.image_max_pixels:,}",
        )
    _load(image)
    return image


def _says_generated(image: Image.Image) -> bool:
    packet = image.info.get(PNG_XMP) or image.info.get("xmp") or ""
    text = packet.decode(errors="replace") if isinstance(packet, bytes) else str(packet)
    return GENERATED_SOURCE in text


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnreadableImage.in_field("image", f"is broken or cut off: {error}") from error


def _thumbnail(data: bytes) -> bytes:
    image = ImageOps.exif_transpose(decode_image(data))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def _modified_at(info: dict[str, Any]) -> datetime:
    moment = info.get("mtime") or info.get("LastModified")
    return moment if isinstance(moment, datetime) else datetime.fromtimestamp(float(moment or 0), UTC)
