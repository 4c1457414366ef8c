"""Whose turn it is across both models: what a search waits for, and what it does not."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from PIL import Image

from tuwen.encoders.base import Embeddings, Encoders, ModelNames, PreparedPicture
from tuwen.encoders.service import EncodingService
from tuwen.settings import Settings

DIM, WAITS_S = 4, 20.0


class HeldUpModels:
    """Both models in one. Pictures wait until they may go on."""

    dim = DIM
    indexes_apart = is_remote = False

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def prepare(self, image: Image.Image) -> PreparedPicture:
        return {"size": np.array(image.size)}

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        self.begun.set()
        assert self.go.wait(WAITS_S)
        return np.ones((len(pictures), DIM), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return np.full((len(texts), DIM), 2, np.float32)

    index_prepared, index_texts = encode_prepared, encode_texts

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return np.full((len(texts), DIM), 3, np.float32)

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        return np.full((len(texts), DIM), 4, np.float32)

    def on_one_thread(self) -> Self:
        return self


def test_a_searchs_text_waits_for_no_picture_and_no_title_of_the_index() -> None:
    async def go() -> None:
        models: Any = HeldUpModels()
        encoders = Encoders(models, models, ModelNames("clip", "text"), "0" * 64)
        service = EncodingService(encoders, Settings(_env_file=None))
        picture = service.prepare(Image.new("RGB", (8, 8)))
        held_up = [
            asyncio.create_task(each) for each in (service.clip_images.bulk(picture), service.clip_texts.bulk("a"))
        ]
        assert await asyncio.to_thread(models.begun.wait, WAITS_S)
        async with asyncio.timeout(WAITS_S / 2):
            clip, text = await asyncio.gather(service.query_clip_text("b"), service.query_text("c"))
        assert (clip[0], text[0]) == (2, 3)
        assert not any(task.done() for task in held_up)
        models.go.set()
        assert [vector[0] for vector in await asyncio.gather(*held_up)] == [1, 2]
        await service.close()

    asyncio.run(go())


class HeldUpTitles(HeldUpModels):
    """A text model that has a network of its own for titles, which wait until they may go on."""

    indexes_apart = True

    def encode_documents(self, texts: Sequence[str]) -> Embeddings:
        self.begun.set()
        assert self.go.wait(WAITS_S)
        return super().encode_documents(texts)


def test_a_searchs_text_waits_for_no_title_where_one_model_alone_has_a_network_of_its_own_for_them() -> None:
    async def go() -> None:
        clip: Any = HeldUpModels()
        text: Any = HeldUpTitles()
        service = EncodingService(Encoders(clip, text, ModelNames("clip", "text"), "0" * 64), Settings(_env_file=None))
        held_up = asyncio.create_task(service.text_documents.bulk("a"))
        assert await asyncio.to_thread(text.begun.wait, WAITS_S)
        async with asyncio.timeout(WAITS_S / 2):
            assert (await service.query_text("b"))[0] == 3
            assert (await service.clip_texts.bulk("c"))[0] == 2
        assert not held_up.done()
        text.go.set()
        assert (await held_up)[0] == 4
        await service.close()

    asyncio.run(go())
