"""Encoders behind an endpoint: titles in the place of a sentence model, pictures and texts in that of a CLIP."""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, ImageOps

from tuwen.encoders.base import Embeddings, ImageTextEncoder, PreparedPicture
from tuwen.encoders.endpoint import Endpoint, NotTheModel
from tuwen.encoders.endpoint_name import EndpointName
from tuwen.encoders.picture import prepare_picture
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.self_test import PICTURE, SHORT_TEXT, least_cosine
from tuwen.errors import ModelsUnavailable, ModelUnavailable
from tuwen.settings import Settings

logger = logging.getLogger(__name__)

JPEG = "jpeg"
# A vision-language model takes 576 tokens for it; a product's picture says no more to it in more pixels.
LONGEST_SIDE, QUALITY = 768, 90
# What the authors of Qwen3-VL-Embedding put before everything that has no instruction of its own.
INSTRUCTION = "Represent the user's input."
DIFFERENT = 0.9999


@dataclass(frozen=True)
class FoundEndpoint:
    """`name.size` is known where it was asked already, now or when the index was made; else the encoder asks."""

    name: EndpointName
    dimensions: int | None = None
    """To be asked for; None: all that it gives."""


class RemoteTexts:
    indexes_apart = True
    is_remote = True

    def __init__(self, found: FoundEndpoint, prompts: Prompts, settings: Settings) -> None:
        self._endpoint = Endpoint(found.name, settings, "TEXT_MODEL")
        self._asked = _asked(found)
        self._prompts = prompts
        self._batch_size = settings.endpoint_batch_size
        self._size = found.name.size
        self.dim = found.name.size or size_of(self)

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return self._encode([self._prompts.query + text for text in texts], patient=False)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        return self._encode([self._prompts.document + text for text in texts], patient=True)

    def on_one_thread(self) -> Self:
        return self  # which computes nothing here

    def probe(self) -> Embeddings:
        return self.encode_queries([SHORT_TEXT])

    def _encode(self, texts: Sequence[str], *, patient: bool) -> Embeddings:
        batches = _batches(texts, self._batch_size)
        requests = [{**self._asked, "input": batch} for batch in batches]
        vectors = self._endpoint.embed(requests, list(map(len, batches)), patient=patient)
        return vectors if self._size is None else self._endpoint.require_size(vectors, self._size)


class RemoteClip(ImageTextEncoder):
    indexes_apart = True
    is_remote = True

    def __init__(self, found: FoundEndpoint, settings: Settings) -> None:
        self._endpoint = Endpoint(found.name, settings, "CLIP_MODEL")
        self._asked = _asked(found)
        self._speaks_infinity = settings.clip_endpoint_style == "infinity"
        self._batch_size = settings.endpoint_batch_size
        self._size = found.name.size
        self.dim = found.name.size or size_of(self)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return self._encode_texts(texts, patient=False)

    def index_texts(self, texts: Sequence[str]) -> Embeddings:
        return self._encode_texts(texts, patient=True)

    def prepare(self, image: Image.Image) -> PreparedPicture:
        prepared = prepare_picture(image, pad_to_square=False)
        if max(prepared.size) > LONGEST_SIDE:
            prepared = ImageOps.contain(prepared, (LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        prepared.save(buffer, "JPEG", quality=QUALITY)
        return {JPEG: np.frombuffer(buffer.getvalue(), np.uint8)[None]}

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        return self._encode_pictures(pictures, patient=False)

    def index_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        return self._encode_pictures(pictures, patient=True)

    def on_one_thread(self) -> Self:
        return self  # which computes nothing here

    def probe(self) -> Embeddings:
        """Raises ValueError where it gives a picture and a text the same."""
        text, picture = self.encode_texts([SHORT_TEXT]), self.encode_images([PICTURE])
        if text.shape != picture.shape or least_cosine(text, picture) > DIFFERENT:
            raise ValueError("CLIP_MODEL: it gives a picture no vector of its own in the space of its texts")
        return text

    def _encode_texts(self, texts: Sequence[str], *, patient: bool) -> Embeddings:
        if self._speaks_infinity:
            return self._of_inputs(texts, "text", patient=patient)
        return self._of_messages([{"type": "text", "text": text} for text in texts], patient=patient)

    def _encode_pictures(self, pictures: Sequence[PreparedPicture], *, patient: bool) -> Embeddings:
        jpegs = (base64.b64encode(picture[JPEG].tobytes()).decode() for picture in pictures)
        urls = [f"data:image/jpeg;base64,{jpeg}" for jpeg in jpegs]
        if self._speaks_infinity:
            return self._of_inputs(urls, "image", patient=patient)
        return self._of_messages([{"type": "image_url", "image_url": {"url": url}} for url in urls], patient=patient)

    def _of_inputs(self, inputs: Sequence[str], modality: str, *, patient: bool) -> Embeddings:
        batches = _batches(inputs, self._batch_size)
        requests = [{**self._asked, "input": batch, "modality": modality} for batch in batches]
        return self._embed(requests, list(map(len, batches)), patient)

    def _of_messages(self, contents: Sequence[Mapping[str, Any]], *, patient: bool) -> Embeddings:
        """One to a request: vLLM makes one vector of all that is in the messages."""
        system = {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]}
        requests = [
            {
                **self._asked,
                "messages": [system, {"role": "user", "content": [content]}],
                "add_generation_prompt": True,
            }
            for content in contents
        ]
        return self._embed(requests, [1] * len(requests), patient)

    def _embed(self, requests: Sequence[Mapping[str, Any]], counts: Sequence[int], patient: bool) -> Embeddings:
        vectors = self._endpoint.embed(requests, counts, patient=patient)
        return vectors if self._size is None else self._endpoint.require_size(vectors, self._size)


def _batches(inputs: Sequence[str], size: int) -> list[Sequence[str]]:
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


def _asked(found: FoundEndpoint) -> dict[str, int]:
    return {} if found.dimensions is None else {"dimensions": found.dimensions}


def size_of(encoder: RemoteTexts | RemoteClip) -> int:
    """Of an endpoint that no index knows yet. Raises ModelUnavailable, where it is not the size that is known, too."""
    try:
        return int(encoder.probe().shape[1])
    except ModelsUnavailable as error:
        raise ModelUnavailable(error.detail) from error
    except ValueError as error:
        raise ModelUnavailable(str(error)) from error


def require_size_if_it_answers(encoder: RemoteTexts | RemoteClip) -> None:
    """At a start. One that is away is waited for, as what else this service stands on. Raises ModelUnavailable."""
    try:
        encoder.probe()
    except NotTheModel as error:
        raise ModelUnavailable(error.detail) from error
    except (ModelsUnavailable, ValueError) as error:
        logger.warning("It is asked again by each search that needs it: %s", error)
