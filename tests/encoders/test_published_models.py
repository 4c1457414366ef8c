"""Models that the documents name, in their makers' layouts and sizes: each vector is what its paper's recipe gives.

The recipe is written out here, over the bare networks of transformers.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer

from nlp_models import FoundModels, choose_models, find_models, load_encoders, names_of, names_to_build
from tests.published_models import (
    CLIP_MEAN,
    CLIP_STD,
    QWEN_INSTRUCTION,
    save_bge_large_zh,
    save_bge_m3,
    save_chinese_clip_huge,
    save_chinese_clip_large_336,
    save_qwen3_embedding,
)
from tuwen.encoders.base import Embeddings, KnownIndex
from tuwen.encoders.prompts import prompts_of
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import ModelMismatch, ModelUnavailable
from tuwen.settings import Settings

TEXTS = ["红色布艺沙发", "a", "蓝色木椅 现代简约"]


def _unit(rows: torch.Tensor) -> Embeddings:
    unit: Embeddings = torch.nn.functional.normalize(rows.detach().float(), dim=-1).numpy()
    return unit


def _one_by_one(folder: Path, texts: Sequence[str], pool: Callable[[torch.Tensor], torch.Tensor]) -> Embeddings:
    """No padding, and `tokenizer.json` as it was published."""
    model: Any = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        rows.append(pool(states[0]))
    return _unit(torch.stack(rows))


def _first(states: torch.Tensor) -> torch.Tensor:
    return states[0]


def _last(states: torch.Tensor) -> torch.Tensor:
    return states[-1]


@pytest.mark.parametrize(
    ("save", "dim", "side"), [(save_chinese_clip_large_336, 768, 336), (save_chinese_clip_huge, 1024, 224)]
)
def test_larger_chinese_clips(tmp_path: Path, save: Callable[[Path], Path], dim: int, side: int) -> None:
    """Texts: the projection of [CLS] (section 3.1 of arXiv:2211.01335). Pictures: scaled by bicubic, not cropped."""
    folder = save(tmp_path / "clip")
    clip = TransformersClip(folder, "cpu")
    assert clip.dim == dim
    model: Any = transformers.ChineseCLIPModel.from_pretrained(folder)
    model.eval()
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    wide = Image.effect_noise((400, 300), 80).convert("RGB")
    scaled = np.asarray(wide.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = torch.from_numpy(((scaled - CLIP_MEAN) / CLIP_STD).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        of_picture = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        states = [model.text_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[:, 0] for text in TEXTS]
        of_texts = model.text_projection(torch.cat(states))
    assert np.allclose(clip.encode_images([wide]), _unit(of_picture), atol=1e-4)
    assert np.allclose(clip.encode_texts(TEXTS), _unit(of_texts), atol=1e-5)
    long = clip.tokenize(["沙发" * 100])["input_ids"]
    assert long.shape == (1, 52)


@pytest.mark.parametrize(("save", "longest"), [(save_bge_large_zh, 512), (save_bge_m3, 8192)])
def test_bge_is_the_first_tokens_state_and_adds_nothing(
    tmp_path: Path, save: Callable[[Path], Path], longest: int
) -> None:
    folder = save(tmp_path / "bge")
    encoder = SentenceEncoder(folder, "cpu", prompts_of(folder, None, None))
    assert (encoder.dim, encoder.model.max_seq_length) == (1024, longest)
    expected = _one_by_one(folder, TEXTS, _first)
    assert np.allclose(encoder.encode_documents(TEXTS), expected, atol=1e-5)
    assert np.allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)


def test_bge_takes_the_instruction_that_the_settings_give_for_queries_alone(tmp_path: Path) -> None:
    folder = save_bge_large_zh(tmp_path / "bge")
    instruction = "为这个句子生成表示以用于检索相关文章："
    encoder = SentenceEncoder(folder, "cpu", prompts_of(folder, instruction, None))
    assert np.allclose(encoder.encode_documents(TEXTS), _one_by_one(folder, TEXTS, _first), atol=1e-5)
    asked = [instruction + text for text in TEXTS]
    assert np.allclose(encoder.encode_queries(TEXTS), _one_by_one(folder, asked, _first), atol=1e-5)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_embedding(tmp_path_factory.mktemp("qwen") / "Qwen3-Embedding-0.6B")


@pytest.mark.parametrize("side", ["left", "right"])
def test_qwen3_embedding_is_the_state_of_the_end_that_its_tokenizer_sets(qwen: Path, side: str) -> None:
    """Beside longer texts, too, whichever side they are padded on; an instruction before queries alone."""
    encoder = SentenceEncoder(qwen, "cpu", prompts_of(qwen, None, None))
    encoder.model.tokenizer.padding_side = side
    end = Tokenizer.from_file(str(qwen / "tokenizer.json")).token_to_id("<|endoftext|>")
    assert encoder.model.tokenizer("沙发")["input_ids"][-1] == end
    assert np.allclose(encoder.encode_documents(TEXTS), _one_by_one(qwen, TEXTS, _last), atol=1e-4)
    asked = [QWEN_INSTRUCTION + text for text in TEXTS]
    assert np.allclose(encoder.encode_queries(TEXTS), _one_by_one(qwen, asked, _last), atol=1e-4)


def _settings(clip: str, text: str, **changes: Any) -> Settings:
    return Settings(_env_file=None, clip_model=clip, text_model=text, encoder_backend="torch", **changes)


def _found(clip: str, text: str) -> FoundModels:
    settings = _settings(clip, text)
    return find_models(names_of(settings), settings)


def test_a_model_gives_as_many_dimensions_as_its_name_asks_for(tiny_models: dict[str, str], qwen: Path) -> None:
    settings = _settings(tiny_models["CLIP_MODEL"], f"{qwen}?dimensions=256")
    encoders = load_encoders(settings)
    whole = SentenceEncoder(qwen, "cpu", prompts_of(qwen, None, None)).encode_queries(TEXTS)
    expected = whole[:, :256] / np.linalg.norm(whole[:, :256], axis=1, keepdims=True)
    assert encoders.text.dim == 256
    assert np.allclose(encoders.text.encode_queries(TEXTS), expected, atol=1e-5)
    documents = encoders.text.encode_documents(TEXTS)
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-5)
    assert encoders.models.text == f"{qwen}?dimensions=256"
    assert encoders.name.endswith(" + Qwen3-Embedding-0.6B?dimensions=256")
    on_one_thread = encoders.on_one_thread().text
    assert np.allclose(on_one_thread.encode_documents(TEXTS), documents, atol=1e-5)


@pytest.mark.parametrize("dimensions", ["1", "49", "99999"])
def test_no_model_gives_dimensions_that_it_has_not(tiny_models: dict[str, str], dimensions: str) -> None:
    refused = rf"^TEXT_MODEL: .* have 48 dimensions, and {dimensions} are asked for \(2 to 48 can be had\)"
    clip, text = tiny_models["CLIP_MODEL"], tiny_models["TEXT_MODEL"]
    with pytest.raises(ModelUnavailable, match=refused):
        load_encoders(_settings(clip, f"{text}?dimensions={dimensions}"))


@pytest.mark.parametrize("end", ["?dimensions=", "?dimensions=0", "?dimensions=12.5", "?dimension=256"])
def test_a_name_that_asks_for_something_else_is_none(tiny_models: dict[str, str], end: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"^TEXT_MODEL=.*there is no such folder"):
        _found(tiny_models["CLIP_MODEL"], f"{tiny_models['TEXT_MODEL']}{end}")


def test_other_dimensions_are_another_index(tiny_models: dict[str, str]) -> None:
    clip, text = tiny_models["CLIP_MODEL"], tiny_models["TEXT_MODEL"]
    whole, short, shorter = (_found(clip, f"{text}{end}") for end in ("", "?dimensions=32", "?dimensions=16"))
    assert len({whole.fingerprint, short.fingerprint, shorter.fingerprint}) == 3
    active = KnownIndex(short.fingerprint, short.names)
    assert choose_models(_settings(clip, f"{text}?dimensions=32"), active, []).fingerprint == short.fingerprint
    for other in ("", "?dimensions=16"):
        with pytest.raises(ModelMismatch, match=r"set both back to .*\?dimensions=32, start, and run"):
            choose_models(_settings(clip, f"{text}{other}"), active, [])


def test_the_settings_prompts_are_the_models_at_any_size(tiny_models: dict[str, str]) -> None:
    clip, text = tiny_models["CLIP_MODEL"], tiny_models["TEXT_MODEL"]
    settings = _settings(clip, text, text_query_prompt="Instruct: 找商品\nQuery:")
    names = names_to_build(clip, f"{text}?dimensions=32", settings)
    assert names.query_prompt == "Instruct: 找商品\nQuery:"


def test_an_index_without_a_size_keeps_its_fingerprint(tiny_models: dict[str, str]) -> None:
    """By the files alone, as before names could ask for one."""
    digest = hashlib.sha256()
    for folder in (Path(tiny_models["CLIP_MODEL"]), Path(tiny_models["TEXT_MODEL"])):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            if file.suffix in (".safetensors", ".bin", ".pt", ".json", ".txt", ".model"):
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    assert _found(tiny_models["CLIP_MODEL"], tiny_models["TEXT_MODEL"]).fingerprint == digest.hexdigest()
