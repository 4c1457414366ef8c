"""Encoders behind a server that speaks OpenAI's embeddings protocol: a real one, which answers, refuses, and hangs."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nlp_models import FoundModels, choose_models, find_models, load_encoders, names_of, names_to_build
from tests.embedding_server import COLOURS, DIM, MOST_INPUTS, POISON, vector_of
from tests.processes import free_port, wait_until
from tests.promises import require_in_time
from tests.servers import EndpointServer, running_endpoint
from tuwen.encoders.base import Embeddings, Encoders, KnownIndex
from tuwen.encoders.endpoint_name import endpoint_name, unnamed_server
from tuwen.encoders.service import EncodingService
from tuwen.errors import ModelMismatch, ModelsUnavailable, ModelUnavailable
from tuwen.settings import Settings

TEXTS = ["红色布艺沙发", "蓝色木椅", "红色沙发"]


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointServer]:
    with running_endpoint(tmp_path_factory.mktemp("endpoint")) as server:
        yield server


@pytest.fixture
def server(running_server: EndpointServer) -> EndpointServer:
    running_server.behave()
    running_server.seen()
    return running_server


def _settings(models: dict[str, str], **changes: Any) -> Settings:
    values: dict[str, Any] = {"clip_model": models["CLIP_MODEL"], "text_model": models["TEXT_MODEL"]} | changes
    return Settings(_env_file=None, encoder_backend="torch", **values)


def _expected(texts: list[str], dim: int = DIM) -> Embeddings:
    rows = np.array([vector_of(text, dim) for text in texts], np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _answer(vector: str) -> str:
    """To three texts."""
    rows = ", ".join(f'{{"index": {each}, "embedding": {vector}}}' for each in range(3))
    return f'{{"data": [{rows}]}}'


def _found(settings: Settings) -> FoundModels:
    return find_models(names_of(settings), settings)


@pytest.fixture
def encoders(server: EndpointServer, tiny_models: dict[str, str]) -> Encoders:
    return load_encoders(_settings(tiny_models, text_model=server.name, endpoint_timeout_s=1.0))


def test_titles_are_encoded_in_order_with_the_settings_prompts_and_key(
    server: EndpointServer, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-one\n")
    settings = _settings(tiny_models, text_model=server.name, text_query_prompt="问：", endpoint_api_key_file=key)
    text = load_encoders(settings).text
    assert text.dim == DIM
    server.seen()
    assert np.allclose(text.encode_documents(TEXTS), _expected(TEXTS), atol=1e-6)
    assert np.allclose(text.encode_queries(TEXTS), _expected([f"问：{each}" for each in TEXTS]), atol=1e-6)
    first, second = server.seen()
    assert first == {"key": "Bearer sk-one", "model": "BAAI/bge-m3", "encoding_format": "float", "input": TEXTS}
    assert second["input"] == [f"问：{each}" for each in TEXTS]


def test_no_call_has_more_texts_than_the_setting_says(encoders: Encoders, server: EndpointServer) -> None:
    server.seen()
    many = [f"沙发 {number}" for number in range(2 * MOST_INPUTS + 1)]
    assert np.allclose(encoders.text.encode_documents(many), _expected(many), atol=1e-6)
    assert sorted(len(call["input"]) for call in server.seen()) == [1, MOST_INPUTS, MOST_INPUTS]


def test_dimensions_are_asked_for_and_make_another_index(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    settings = _settings(tiny_models, text_model=f"{server.name}?dimensions=16")
    encoders = load_encoders(settings)
    assert (encoders.text.dim, encoders.models.text) == (16, f"{server.name}?dimensions=16")
    assert np.allclose(encoders.text.encode_queries(TEXTS), _expected(TEXTS, 16), atol=1e-6)
    whole = _found(_settings(tiny_models, text_model=server.name))
    assert whole.names.text == f"{server.name}@{DIM}"
    assert whole.names.short.endswith(f" + bge-m3@{DIM}")
    assert whole.fingerprint != encoders.fingerprint


def test_an_index_starts_without_its_endpoint_and_keeps_to_its_size(
    server: EndpointServer, tiny_models: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = _settings(tiny_models, text_model=server.name, endpoint_timeout_s=0.5)
    found = _found(settings)
    index = KnownIndex(found.fingerprint, found.names)
    with server.frozen():
        chosen = choose_models(settings, index, [])  # asks nobody
        assert chosen.fingerprint == found.fingerprint
        with caplog.at_level(logging.WARNING):
            text = load_encoders(settings, chosen).text
        assert "has not answered within 0.5 s (ENDPOINT_TIMEOUT_S)" in caplog.text
    wait_until(lambda: _answers(text), what="the endpoint to be asked again")
    server.behave(dim=DIM // 2)
    with pytest.raises(ModelsUnavailable, match=rf"vectors of {DIM // 2} numbers, not {DIM}: is another model behind"):
        text.encode_queries(TEXTS)
    with pytest.raises(ModelUnavailable, match=rf"^TEXT_MODEL: .* {DIM // 2} numbers, not {DIM}"):
        load_encoders(settings, chosen)


def _answers(text: Any) -> bool:
    try:
        text.encode_queries(TEXTS)
    except ModelsUnavailable:
        return False
    return True


@pytest.mark.parametrize("size", ["?dimensions=16", ""])
def test_what_an_index_recorded_is_known_and_any_other_name_must_answer(
    server: EndpointServer, tiny_models: dict[str, str], size: str
) -> None:
    settings = _settings(tiny_models, text_model=f"{server.url}/#BAAI/bge-m3{size}", endpoint_timeout_s=0.5)
    server.behave(statuses=[400])
    with pytest.raises(ModelUnavailable, match=r"^TEXT_MODEL: the endpoint \S+ refuses it \(400\)"):
        _found(settings)
    found = _found(settings)
    with server.frozen():
        index = KnownIndex(found.fingerprint, found.names)
        assert choose_models(settings, index, []).names == found.names
        with pytest.raises(ModelUnavailable, match=r"has not answered within 0\.5 s"):
            find_models(replace(found.names, text=f"{server.url}#BAAI/bge-m3@{DIM}"), settings)


def test_a_size_that_it_does_not_give_is_refused(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable, match=rf"^TEXT_MODEL: the .* vectors of {DIM} numbers, not 16"):
        _found(_settings(tiny_models, text_model=f"{server.name}@16"))


def test_how_pictures_are_sent_is_of_the_fingerprint(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    styles = [_settings(tiny_models, clip_model=server.name, clip_endpoint_style=each) for each in ("vllm", "infinity")]
    assert _found(styles[0]).fingerprint != _found(styles[1]).fingerprint


@pytest.mark.parametrize(
    ("model", "server"),
    [
        ("https://models.example/v1#another", None),
        ("HTTPS://MODELS.example:443/other/path#m?dimensions=16", None),
        ("http://gpu:8000/v1#m", None),
        ("http://[::1]:8000/v1#m", None),
        ("/models/folder", None),
        ("owner/name@revision", None),
        ("http://models.example/v1#m", "http://models.example"),
        ("https://models.example:8443/v1#m", "https://models.example:8443"),
        ("https://models.example.evil/v1#m", "https://models.example.evil"),
        ("http://gpu/v1#m", "http://gpu"),
    ],
)
def test_a_server_is_named_by_the_settings(model: str, server: str | None) -> None:
    servers = ("http://gpu:8000", "http://[::1]:8000")
    settings = Settings(_env_file=None, text_model="https://models.example/v1#m", endpoint_servers=servers)
    assert unnamed_server(model, settings) == server


def test_another_address_of_the_same_model_is_the_same_index(
    server: EndpointServer, tiny_models: dict[str, str]
) -> None:
    found = _found(_settings(tiny_models, text_model=server.name))
    moved = replace(found.names, text=found.names.text.replace("127.0.0.1", "old.example"))
    index = KnownIndex(found.fingerprint, moved)
    assert choose_models(_settings(tiny_models, text_model=server.name), index, []).names == found.names
    with pytest.raises(ModelMismatch, match=r"set both back to .*#BAAI/bge-m3@64"):
        choose_models(_settings(tiny_models, text_model=f"{server.url}#another"), index, [])
    to_build = names_to_build(found.names.clip, server.name, _settings(tiny_models, text_model=server.name))
    assert find_models(to_build, _settings(tiny_models)).fingerprint == found.fingerprint


def test_one_that_nobody_knows_yet_must_answer(tiny_models: dict[str, str]) -> None:
    settings = _settings(tiny_models, text_model=f"http://127.0.0.1:{free_port()}/v1#m")
    with pytest.raises(ModelUnavailable, match=r"^TEXT_MODEL: the endpoint http://127\.0\.0\.1.* can't be reached"):
        _found(settings)


@pytest.mark.parametrize(
    "name", ["http://host/v1", "http://user:password@host/v1#m", "https:///v1#m", "http://host/v1?key=secret#m"]
)
def test_an_address_that_is_none_is_refused_without_being_shown(name: str) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"^TEXT_MODEL: an endpoint is written http://host:8000/v1#model"
    ) as raised:
        endpoint_name(name, "TEXT_MODEL")
    assert "password@" not in raised.value.detail
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"statuses": [401]}, r"refuses its key \(ENDPOINT_API_KEY\) \(401\)"),
        ({"statuses": [404]}, "refuses the request"),
        ({"statuses": [503]}, "is in trouble: it answers 503"),
        ({"redirect": "http://127.0.0.1:9/v1/embeddings"}, r"no redirect is followed \(307"),
        ({"drop": True}, "was asked for 3 vectors, and answers with 2 others"),
        ({"compressed": True}, "answers compressed, and was asked not to"),
        ({"raw": "[1]"}, "with what are no embeddings"),
        ({"raw": "[" * 100_000}, "with what is no JSON"),
        ({"raw": '{"data": [{"index": Infinity, "embedding": [1.0]}]}'}, "with what are no embeddings"),
        ({"raw": _answer('["1.0", "2.0"]')}, "vectors that are not of numbers alone"),
        ({"raw": _answer("[true, false]")}, "vectors that are not of numbers alone"),
        ({"raw": _answer(f"[1, 1{'0' * 400}]")}, "vectors that are not of numbers alone"),
    ],
)
def test_a_search_learns_at_once_what_is_wrong(
    encoders: Encoders, server: EndpointServer, behaviour: dict[str, Any], said: str
) -> None:
    server.behave(**behaviour)
    started = time.monotonic()
    with pytest.raises(ModelsUnavailable, match=said):
        encoders.text.encode_queries(TEXTS)
    require_in_time(time.monotonic() - started, 0.9)  # nobody waited to try again
    server.behave()
    assert np.allclose(encoders.text.encode_queries(TEXTS), _expected(TEXTS), atol=1e-6)


def test_who_indexes_asks_a_busy_one_again(encoders: Encoders, server: EndpointServer) -> None:
    server.behave(statuses=[429, 503])
    started = time.monotonic()
    assert np.allclose(encoders.text.encode_documents(TEXTS), _expected(TEXTS), atol=1e-6)
    assert time.monotonic() - started > 2, "it was asked to wait a second each time"


def test_a_vector_of_large_numbers_has_a_direction(encoders: Encoders, server: EndpointServer) -> None:
    """Whose squares single precision does not hold."""
    server.behave(raw=_answer(f"[{', '.join(['1e30'] * DIM)}]"))
    assert np.allclose(encoders.text.encode_queries(TEXTS), DIM**-0.5, atol=1e-6)


@pytest.mark.parametrize("status", [401, 403, 404, 413, 422, 501])
def test_nothing_of_what_a_server_repeats_is_said(
    server: EndpointServer, tiny_models: dict[str, str], status: int
) -> None:
    settings = _settings(tiny_models, text_model=server.name, endpoint_api_key="sk-one")
    text = load_encoders(settings).text
    server.behave(statuses=[status])
    with pytest.raises((ModelsUnavailable, ValueError), match=rf"refuses .*\({status}") as raised:
        text.encode_queries(["a"])
    assert [part for part in ("sk-one", "sent", "busy", '"a"') if part in str(raised.value)] == []


def test_what_speaks_no_http_is_not_repeated(tiny_models: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        threads.submit(_greet, listening)
        name = f"http://127.0.0.1:{listening.getsockname()[1]}/v1#m"
        with pytest.raises(ModelUnavailable, match="what it sends is no HTTP") as raised:
            _found(_settings(tiny_models, text_model=name))
    assert "internal" not in raised.value.detail


def _greet(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"SSH-2.0-internal\r\n\r\n")
        while connection.recv(1000):  # else it would be reset
            pass


def test_a_search_does_not_stand_behind_the_index(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    changes = {"endpoint_batch_size": 1, "endpoint_calls_at_once": 2}
    text = load_encoders(_settings(tiny_models, text_model=server.name, **changes)).text
    server.behave(delay=0.3)
    with ThreadPoolExecutor(1) as threads:
        bulk = threads.submit(text.encode_documents, TEXTS * 4)
        time.sleep(0.1)
        started = time.monotonic()
        text.encode_queries(TEXTS[:1])
        require_in_time(time.monotonic() - started, 0.7)
        assert not bulk.done()
        assert np.allclose(bulk.result(), _expected(TEXTS * 4), atol=1e-6)


def test_a_wait_for_other_calls_is_within_the_deadline(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    changes = {"endpoint_batch_size": 1, "endpoint_calls_at_once": 1, "endpoint_timeout_s": 1.0}
    text = load_encoders(_settings(tiny_models, text_model=server.name, **changes)).text
    server.behave(delay=0.7)
    started = time.monotonic()
    with pytest.raises(ModelsUnavailable, match=r"in trouble: the calls before this one .* \(ENDPOINT_CALLS_AT_ONCE\)"):
        text.encode_queries(TEXTS)
    require_in_time(time.monotonic() - started, 1.4)
    assert np.allclose(text.encode_queries(TEXTS[:1]), _expected(TEXTS[:1]), atol=1e-6), "it was not silent"
    assert len(text.encode_documents(TEXTS)) == len(TEXTS), "who indexes waits for them"


@pytest.mark.parametrize(("behaviour", "text"), [({}, POISON), ({"nan": True}, "a")])
def test_what_it_has_no_vector_for_is_the_texts_fault(
    encoders: Encoders, server: EndpointServer, behaviour: dict[str, Any], text: str
) -> None:
    server.behave(**behaviour)
    with pytest.raises(ValueError, match=r"refuses it|without a direction"):
        encoders.text.encode_documents([text])


def test_one_that_hangs_costs_one_deadline_and_not_each_search_its_own(
    encoders: Encoders, server: EndpointServer
) -> None:
    with server.frozen():
        started = time.monotonic()
        with pytest.raises(ModelsUnavailable, match="has not answered within 1 s"):
            encoders.text.encode_queries(TEXTS)
        for _ in range(20):
            with pytest.raises(ModelsUnavailable, match="did not answer a moment ago"):
                encoders.text.encode_queries(TEXTS)
        require_in_time(time.monotonic() - started, 2)
        time.sleep(1)  # its rest; then one of all tries it, and the others don't wait for that
        with ThreadPoolExecutor(8) as threads:
            asked = list(threads.map(lambda _: _trouble_of(encoders), range(8)))
        assert len([each for each in asked if "within 1 s" in each]) == 1
    wait_until(lambda: _answers(encoders.text), what="one of the next calls to find it well")


def _trouble_of(encoders: Encoders) -> str:
    with pytest.raises(ModelsUnavailable) as raised:
        encoders.text.encode_queries(TEXTS)
    return raised.value.detail


def test_no_proxy_of_the_environment_sees_the_key(
    server: EndpointServer, tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert _found(_settings(tiny_models, text_model=server.name, endpoint_api_key="sk-one")).names.text


def test_an_endpoint_that_nobody_has_leaves_no_thread(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    before = threading.active_count()
    for _ in range(3):
        _found(_settings(tiny_models, text_model=server.name))
    wait_until(lambda: threading.active_count() <= before, what="the threads of three endpoints to end")


@pytest.mark.parametrize("style", ["vllm", "infinity"])
def test_pictures_and_texts_share_a_space(server: EndpointServer, tiny_models: dict[str, str], style: str) -> None:
    encoders = load_encoders(_settings(tiny_models, clip_model=server.name, clip_endpoint_style=style))
    pictures = [Image.new("RGB", (900, 500), COLOURS[name]) for name in COLOURS]
    server.seen()
    prepared = [encoders.clip.prepare(picture) for picture in pictures]
    assert pictures[0].size == (900, 500), "whoever has it goes on with it as it was"
    vectors = encoders.clip.index_prepared(prepared)
    assert np.allclose(vectors, _expected(list(COLOURS)), atol=1e-6)
    assert np.allclose(encoders.clip.encode_images(pictures), vectors, atol=1e-6)
    assert np.allclose(encoders.clip.encode_texts(["红", "蓝"]), vectors[:2], atol=1e-6)
    calls = server.seen()
    if style == "vllm":
        assert len(calls) == 8
        system, user = calls[0]["messages"]
        assert (system["role"], user["role"], calls[0]["add_generation_prompt"]) == ("system", "user", True)
    else:
        assert [(call["modality"], len(call["input"])) for call in calls] == [("image", 3), ("image", 3), ("text", 2)]


def test_one_that_takes_no_pictures_is_no_clip(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    server.behave(statuses=[200, 400])
    with pytest.raises(ModelUnavailable, match=r"^CLIP_MODEL: "):
        _found(_settings(tiny_models, clip_model=server.name))


def test_a_picture_search_does_not_stand_behind_the_index(server: EndpointServer, tiny_models: dict[str, str]) -> None:
    settings = _settings(tiny_models, clip_model=server.name, clip_endpoint_style="infinity", endpoint_timeout_s=5.0)
    encoders = load_encoders(settings)
    red, blue = (encoders.clip.prepare(Image.new("RGB", (64, 64), COLOURS[name])) for name in ("红", "蓝"))

    async def scenario() -> None:
        service = EncodingService(encoders, settings)
        server.behave(delay=1.0)
        bulk = asyncio.create_task(service.clip_images.bulk(red))
        await asyncio.sleep(0.3)
        server.behave()
        vector = await service.query_image(blue, "blue")
        assert not bulk.done()
        assert np.allclose([vector, await bulk], _expected(["蓝", "红"]), atol=1e-6)
        await service.close()

    asyncio.run(scenario())
