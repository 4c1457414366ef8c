"""Encoders converted for this processor: the vectors of torch, without torch; and conversions that fail."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nlp_models import find_models, load_encoders
from tests.processes import EXPORTS, ROOT, environment
from tests.tiny_models import (
    save_tiny_chinese_clip,
    save_tiny_naflex,
    save_tiny_sentence_model,
    save_tiny_siglip,
)
from tuwen.encoders.base import Embeddings, ImageTextEncoder, ModelNames, TextEncoder
from tuwen.encoders.exported.cache import QUANTIZER, REFUSED, export_folder, load_export
from tuwen.encoders.exported.encoders import IMAGE_NETWORK, TEXT_NETWORK, ExportedClip, ExportedSentence
from tuwen.encoders.exported.export import export_clip, export_sentence
from tuwen.encoders.loading import FoundModel
from tuwen.encoders.prompts import Prompts
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings

DEMO = ModelNames(str(ROOT / "models" / "demo-clip-2"), str(ROOT / "models" / "demo-bge"))
# Of all lengths and out of order; truncated, empty, in capitals, with spaces around it.
TEXTS = ["红色布艺沙发" * 9, "a", "", " Red SOFA\t", "蓝色木椅 现代简约", "很长" * 400, "red", "黑白灰" * 5]


def _pictures() -> list[Image.Image]:
    rows, columns = np.mgrid[:90, :60]
    colours = Image.fromarray(np.stack([rows * 2, columns * 4, rows + columns], -1).astype(np.uint8))
    seen_through = Image.new("RGBA", (80, 80))
    seen_through.paste("red", (20, 30, 60, 50))
    return [colours, colours.resize((400, 37)), seen_through, Image.new("L", (1, 1))]


def _least_cosine(rows: Embeddings, others: Embeddings) -> float:
    return float((rows * others).sum(axis=1).min())


@pytest.mark.parametrize("save", [save_tiny_chinese_clip, save_tiny_siglip])
def test_a_converted_clip_gives_the_vectors_of_torch(tmp_path: Path, save: Any) -> None:
    model = save(tmp_path / "model")
    export_clip(model, tmp_path)
    converted, original = ExportedClip(tmp_path, threads=2), TransformersClip(model, "cpu")
    assert converted.dim == original.dim
    texts = [text for text in TEXTS if text or save is save_tiny_chinese_clip]  # SigLIP's has no token of an empty one
    assert _least_cosine(converted.encode_texts(texts), original.encode_texts(texts)) > 0.999
    assert _least_cosine(converted.encode_images(_pictures()), original.encode_images(_pictures())) > 0.999


def test_a_converted_sentence_model_gives_the_vectors_of_torch(tmp_path: Path) -> None:
    model = save_tiny_sentence_model(tmp_path / "model")
    prompts = Prompts(query="query: ", document="")
    export_sentence(model, tmp_path)
    converted, original = ExportedSentence(tmp_path, prompts, threads=2), SentenceEncoder(model, "cpu", prompts)
    assert converted.dim == original.dim
    assert _least_cosine(converted.encode_documents(TEXTS), original.encode_documents(TEXTS)) > 0.999
    assert _least_cosine(converted.encode_queries(TEXTS), original.encode_queries(TEXTS)) > 0.999


def test_a_model_that_the_tracer_would_get_wrong_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its picture processor, Siglip2ImageProcessorPil, takes other steps"):
        export_clip(save_tiny_naflex(tmp_path / "model"), tmp_path)


@dataclass
class Loaded:
    vectors: dict[str, Embeddings]
    modules: set[str]


LOAD_THE_DEMO_MODELS = """
import json, sys
import numpy as np
from PIL import Image
from nlp_models import load_encoders
from tuwen.settings import load_settings
encoders = load_encoders(load_settings())
catalogue = json.loads(sys.stdin.read())
images = [Image.open(path) for path in catalogue["images"]]
np.savez(
    sys.argv[1],
    images=np.concatenate([encoders.clip.encode_images(images[i:i + 16]) for i in range(0, len(images), 16)]),
    clip_texts=encoders.clip.encode_texts(catalogue["titles"]),
    texts=encoders.text.encode_documents(catalogue["titles"]),
)
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""


@pytest.fixture(scope="module")
def catalogue() -> dict[str, list[str]]:
    """Every fourteenth of the demo products."""
    lines = (ROOT / "demo" / "catalogue.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines][::14]
    return {
        "images": [str(ROOT / "demo" / item["image"]) for item in items],
        "titles": [item["title"] for item in items],
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, catalogue: dict[str, list[str]]) -> Loaded:
    """By a process that finds them converted, as all but the first of a machine do."""
    settings = Settings(_env_file=None, encoder_backend="openvino", encoder_cache_dir=EXPORTS)
    load_encoders(settings, find_models(DEMO, settings))
    vectors = tmp_path_factory.mktemp("demo") / "vectors.npz"
    process = subprocess.run(
        [sys.executable, "-c", LOAD_THE_DEMO_MODELS, str(vectors)],
        input=json.dumps(catalogue),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return Loaded(dict(np.load(vectors)), set(json.loads(process.stdout.splitlines()[-1])))


def test_a_start_with_converted_models_loads_no_torch(demo: Loaded) -> None:
    assert "openvino" in demo.modules
    assert demo.modules & {"torch", "transformers", "sentence_transformers"} == set()


def test_openvino_reports_to_nobody(demo: Loaded) -> None:
    assert not any(module.startswith("openvino_telemetry") for module in demo.modules)


@pytest.fixture(scope="module")
def by_torch(catalogue: dict[str, list[str]]) -> dict[str, Embeddings]:
    clip = TransformersClip(Path(DEMO.clip), "cpu")
    sentence = SentenceEncoder(Path(DEMO.text), "cpu", Prompts())
    return _vectors(clip, sentence, catalogue)


def _vectors(clip: ImageTextEncoder, text: TextEncoder, catalogue: dict[str, list[str]]) -> dict[str, Embeddings]:
    images = [Image.open(path) for path in catalogue["images"]]
    return {
        "images": np.concatenate([clip.encode_images(images[i : i + 16]) for i in range(0, len(images), 16)]),
        "clip_texts": clip.encode_texts(catalogue["titles"]),
        "texts": text.encode_documents(catalogue["titles"]),
    }


def test_the_demo_models_converted_find_what_torch_finds(demo: Loaded, by_torch: dict[str, Embeddings]) -> None:
    _assert_find_the_same(demo.vectors, by_torch, cosine=0.999)


def _assert_find_the_same(vectors: dict[str, Embeddings], by_torch: dict[str, Embeddings], cosine: float) -> None:
    for kind, rows in by_torch.items():
        assert _least_cosine(rows, vectors[kind]) > cosine, kind
    for query, found in (("images", "images"), ("texts", "texts"), ("images", "clip_texts"), ("clip_texts", "images")):
        assert _overlap(by_torch[query], by_torch[found], vectors[query], vectors[found]) >= 0.95
        # A collection of version 0.2.0, which torch filled, is searched with new queries.
        assert _overlap(by_torch[query], by_torch[found], vectors[query], by_torch[found]) >= 0.95


@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="it converts all models once more: make test-long")
@pytest.mark.skipif(find_spec(QUANTIZER) is None, reason=f"{QUANTIZER} is not installed: requirements-dev.txt has it")
def test_the_demo_models_in_int8_find_what_torch_finds(
    by_torch: dict[str, Embeddings], catalogue: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(_env_file=None, encoder_cache_dir=EXPORTS)
    with caplog.at_level(logging.INFO):
        encoders = load_encoders(settings, find_models(replace(DEMO, precision="int8"), settings))
    assert isinstance(encoders.clip, ExportedClip)
    # EfficientNet would lose too much; that it is seen decides what becomes of other models.
    assert list(encoders.clip.manifest.not_int8) == [IMAGE_NETWORK]
    assert "image.xml" in caplog.text
    assert isinstance(encoders.text, ExportedSentence)
    assert encoders.text.manifest.not_int8 == {}
    vectors = _vectors(encoders.clip, encoders.text, catalogue)
    assert _least_cosine(vectors["clip_texts"], by_torch["clip_texts"]) < 0.9999, "in int8 they are others"
    _assert_find_the_same(vectors, by_torch, cosine=0.99)


def _overlap(queries: Embeddings, rows: Embeddings, other_queries: Embeddings, other_rows: Embeddings) -> float:
    """The share of the ten nearest that both have."""
    nearest, others = _nearest(queries @ rows.T), _nearest(other_queries @ other_rows.T)
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(nearest, others, strict=True)]))


def _nearest(scores: Embeddings) -> Sequence[Sequence[int]]:
    nearest: Sequence[Sequence[int]] = np.argsort(-scores, axis=1)[:, :10].tolist()
    return nearest


def test_what_is_refused_is_run_by_torch_or_named(
    tiny_models: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values: dict[str, Any] = {"clip_model": tiny_models["CLIP_MODEL"], "text_model": tiny_models["TEXT_MODEL"]}
    settings = Settings(_env_file=None, encoder_backend="auto", encoder_cache_dir=tmp_path, **values)
    found = find_models(ModelNames(settings.clip_model, settings.text_model), settings)
    assert isinstance(found.clip, FoundModel)
    assert isinstance(found.text, FoundModel)
    for kind, model in (("clip", found.clip), ("sentence", found.text)):
        folder = export_folder(tmp_path, kind, model.files)  # type: ignore[arg-type]
        folder.mkdir()
        (folder / REFUSED).write_text("it takes more than tokens")
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_encoders(settings, found).clip, TransformersClip)
    assert f"{found.clip.path} is run by torch, not OpenVINO: it takes more than tokens" in caplog.messages
    settings = settings.model_copy(update={"encoder_backend": "openvino"})
    with pytest.raises(ModelUnavailable, match=r"CLIP_MODEL: .*ENCODER_BACKEND=openvino .*more than tokens"):
        load_encoders(settings, found)


def test_a_damaged_export_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save_tiny_sentence_model(tmp_path / "model")
    folder = tmp_path / "cache" / "sentence-x"
    folder.mkdir(parents=True)
    export_sentence(model, folder)
    (folder / TEXT_NETWORK).write_bytes(b"")
    with caplog.at_level(logging.INFO):
        encoder = load_export("sentence", model, folder, lambda path: ExportedSentence(path, Prompts(), threads=1))
    assert encoder.encode_queries(["a"]).shape == (1, encoder.dim)
    assert "is made anew" in caplog.text
