"""What a sentence model is sent in front of queries and titles, and what that does to the fingerprint."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from nlp_models import FoundModels, choose_models, find_models, names_of, names_to_build
from tests.processes import ROOT
from tests.tiny_models import save_tiny_sentence_model, save_tiny_siglip
from tuwen.encoders.base import KnownIndex, ModelNames, Vector
from tuwen.encoders.loading import FoundModel
from tuwen.encoders.sentence import SentenceEncoder
from tuwen.errors import ModelMismatch
from tuwen.settings import DEMO_CLIP, FIRST_DEMO_CLIP, Settings

TITLE = "红色布艺沙发"
E5 = {"query": "query: ", "passage": "passage: "}
# What version 0.2.0 computed for the models that it shipped.
FINGERPRINT_OF_0_2_0 = "31c0e03b8ac13d359f3513b3dbce8b7a45dd1266fbaed9b22dcc4b8ec126ad9a"


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sentence_model(tmp_path_factory.mktemp("prompts") / "e5", prompts=E5)


def _settings(clip: str, text: Path, **prompts: Any) -> Settings:
    return Settings(_env_file=None, clip_model=clip, text_model=str(text), **prompts)


def _sent(model: Path, text: str) -> Vector:
    vector: Vector = SentenceTransformer(str(model), device="cpu").encode([text], prompt="", normalize_embeddings=True)[
        0
    ]
    return vector


def _assert_sends(settings: Settings, model: Path, query: str, document: str) -> None:
    found = find_models(names_of(settings), settings)
    encoder = SentenceEncoder(model, "cpu", found.prompts)
    assert np.allclose(encoder.encode_queries([TITLE])[0], _sent(model, query + TITLE), atol=1e-5)
    assert np.allclose(encoder.encode_documents([TITLE])[0], _sent(model, document + TITLE), atol=1e-5)


def test_a_models_own_prompts_are_sent(tiny_models: dict[str, str], e5: Path) -> None:
    _assert_sends(_settings(tiny_models["CLIP_MODEL"], e5), e5, "query: ", "passage: ")


def _of_files_alone(found: FoundModels) -> str:
    """As version 0.2.0 had it."""
    digest = hashlib.sha256()
    for model in (found.clip, found.text):
        assert isinstance(model, FoundModel)
        for file in sorted(path for path in model.path.rglob("*") if path.is_file()):
            if file.suffix in (".safetensors", ".json", ".txt"):
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def test_a_default_prompt_holds_where_no_role_is_named(tiny_models: dict[str, str], tmp_path: Path) -> None:
    model = save_tiny_sentence_model(tmp_path / "model", prompts={"title": "title: "}, default_prompt_name="title")
    path = model / "config_sentence_transformers.json"
    path.write_text(path.read_text().replace('"query": "",', "").replace('"document": "",', ""))
    found = find_models(ModelNames(tiny_models["CLIP_MODEL"], str(model)), Settings(_env_file=None))
    assert (found.prompts.query, found.prompts.document) == ("title: ", "title: ")
    assert found.fingerprint == _of_files_alone(found)


def test_settings_go_before_the_models_own(tiny_models: dict[str, str], e5: Path) -> None:
    settings = _settings(tiny_models["CLIP_MODEL"], e5, text_query_prompt="搜 ", text_document_prompt="none")
    _assert_sends(settings, e5, "搜 ", "")


def test_settings_hold_for_their_own_model_alone(tiny_models: dict[str, str], e5: Path) -> None:
    """A model that the index is changed for does not get the prompts of the one before."""
    settings = _settings(tiny_models["CLIP_MODEL"], Path(tiny_models["TEXT_MODEL"]), text_document_prompt="标题 ")
    found = find_models(names_to_build(settings.clip_model, str(e5), settings), settings)
    assert (found.prompts.query, found.prompts.document) == ("query: ", "passage: ")


def test_the_fingerprint_has_the_document_prompt_and_no_other(tiny_models: dict[str, str]) -> None:
    def fingerprint_with(**prompts: str) -> str:
        settings = _settings(tiny_models["CLIP_MODEL"], Path(tiny_models["TEXT_MODEL"]), **prompts)
        return find_models(names_of(settings), settings).fingerprint

    plain = fingerprint_with()
    assert fingerprint_with(text_query_prompt="搜 ") == plain
    assert fingerprint_with(text_document_prompt="none") == plain
    assert len({plain, fingerprint_with(text_document_prompt="a"), fingerprint_with(text_document_prompt="b")}) == 3


def test_the_demo_models_have_the_fingerprint_of_version_0_2_0() -> None:
    names = ModelNames(str(ROOT / "models" / "demo-clip"), str(ROOT / "models" / "demo-bge"))
    assert find_models(names, Settings(_env_file=None)).fingerprint == FINGERPRINT_OF_0_2_0


def _refusal_by_an_index_of_0_2_0(settings: Settings) -> str:
    found = find_models(names_of(settings), settings)
    index = KnownIndex(_of_files_alone(found), None)
    with pytest.raises(ModelMismatch) as refused:
        choose_models(settings, index, [])
    return refused.value.detail


def test_an_index_of_0_2_0_is_refused_with_what_lets_it_go_on(
    tiny_models: dict[str, str], e5: Path, tmp_path: Path
) -> None:
    settings = _settings(tiny_models["CLIP_MODEL"], e5)
    refusal = _refusal_by_an_index_of_0_2_0(settings)
    assert 'did not put "passage: " in front of titles' in refusal
    assert "set TEXT_DOCUMENT_PROMPT=none to go on with it" in refusal
    found = find_models(names_of(settings), settings)
    index = KnownIndex(_of_files_alone(found), None)
    goes_on = choose_models(_settings(tiny_models["CLIP_MODEL"], e5, text_document_prompt="none"), index, [])
    assert goes_on.fingerprint == index.fingerprint
    titled = save_tiny_sentence_model(tmp_path / "titled", prompts=E5 | {"t": "title: "}, default_prompt_name="t")
    refusal = _refusal_by_an_index_of_0_2_0(_settings(tiny_models["CLIP_MODEL"], titled))
    assert 'set TEXT_DOCUMENT_PROMPT="title: " to go on with it' in refusal


def test_an_index_of_0_2_0_of_a_siglip_model_is_refused_for_good(tiny_models: dict[str, str], tmp_path: Path) -> None:
    siglip = save_tiny_siglip(tmp_path / "siglip")
    refusal = _refusal_by_an_index_of_0_2_0(_settings(str(siglip), Path(tiny_models["TEXT_MODEL"])))
    assert refusal.endswith("import the catalogue into a new DATA_DIR.")
    assert "SigLIP" in refusal


def test_a_document_prompt_is_the_indexs_whatever_the_settings_say_later(
    tiny_models: dict[str, str], e5: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip, plain = tiny_models["CLIP_MODEL"], Path(tiny_models["TEXT_MODEL"])
    made_with = _settings(clip, plain, text_query_prompt="搜 ", text_document_prompt="标题 ")
    before = find_models(names_of(made_with), made_with)
    left_over = made_with.model_copy(update={"text_model": str(e5)})
    after = find_models(names_to_build(clip, str(e5), made_with), made_with)
    retired, active = (KnownIndex(found.fingerprint, found.names) for found in (before, after))

    found = choose_models(left_over, active, [retired])
    assert (found.fingerprint, found.prompts.document) == (after.fingerprint, "passage: ")
    assert found.prompts.query == "搜 "  # which may change at any time, but not unsaid
    assert 'TEXT_QUERY_PROMPT is "搜 ", and was not set' in caplog.text
    assert 'TEXT_DOCUMENT_PROMPT="标题 " is not what the index was made with' in caplog.text
    # A rollback, with the settings of the other models; and their names alone.
    assert find_models(before.names, _settings(clip, e5)).fingerprint == before.fingerprint
    assert choose_models(_settings(clip, plain), retired, [active]).fingerprint == before.fingerprint
    caplog.clear()
    assert choose_models(_settings(clip, plain), active, [retired]).fingerprint == after.fingerprint
    assert "remove TEXT_QUERY_PROMPT and remove TEXT_DOCUMENT_PROMPT" in caplog.text


def test_an_index_that_names_no_prompts_yet_goes_on_with_those_of_the_settings(tiny_models: dict[str, str]) -> None:
    settings = _settings(tiny_models["CLIP_MODEL"], Path(tiny_models["TEXT_MODEL"]), text_document_prompt="标题 ")
    found = find_models(names_of(settings), settings)
    unnamed = KnownIndex(found.fingerprint, ModelNames(found.names.clip, found.names.text))
    chosen = choose_models(settings, unnamed, [])
    assert (chosen.fingerprint, chosen.names.document_prompt) == (found.fingerprint, "标题 ")


def test_an_index_of_the_first_demo_models_goes_on_with_them(caplog: pytest.LogCaptureFixture) -> None:
    """With the settings of all who set none: of 0.2.0, which recorded no names, of a moved folder, and of later."""
    caplog.set_level(logging.INFO)
    settings = Settings(_env_file=None)
    first = find_models(replace(names_of(settings), clip=str(FIRST_DEMO_CLIP)), settings)
    moved = ModelNames("/before/models/demo-clip", "/before/models/demo-bge")
    for names in (None, moved, first.names):
        caplog.clear()
        index = KnownIndex(FINGERPRINT_OF_0_2_0, names)
        assert choose_models(settings, index, []).fingerprint == FINGERPRINT_OF_0_2_0
        assert "python cli.py reindex --clip-model" in caplog.text
    second = find_models(names_of(settings), settings)
    of_first, of_second = (KnownIndex(found.fingerprint, found.names) for found in (first, second))
    caplog.clear()
    assert choose_models(settings, of_second, [of_first]).names.clip == str(DEMO_CLIP)
    assert choose_models(settings, None, []).fingerprint == second.fingerprint != first.fingerprint
    assert not caplog.text
    # While the second is filled, and after a rollback, the active one decides.
    assert choose_models(settings, of_first, [of_second]).fingerprint == first.fingerprint
    assert "name the models of another index" not in caplog.text


def test_whoever_left_the_first_demo_models_goes_on_with_what_came_after(
    tiny_models: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Settings that named none named the retired index's models until the upgrade, and were told so."""
    settings = Settings(_env_file=None)
    others = _settings(tiny_models["CLIP_MODEL"], Path(tiny_models["TEXT_MODEL"]))
    now = find_models(names_of(others), others)
    first = find_models(replace(names_of(settings), clip=str(FIRST_DEMO_CLIP)), settings)
    retired = KnownIndex(first.fingerprint, first.names)
    assert choose_models(settings, KnownIndex(now.fingerprint, now.names), [retired]).fingerprint == now.fingerprint
    assert "name the models of another index" in caplog.text
    # A model of one's own that has the name of an edition is none.
    own = KnownIndex("1" * 64, ModelNames("/srv/tuned/demo-clip-2", settings.text_model))
    assert choose_models(settings, retired, [own]).fingerprint == first.fingerprint


def test_a_linked_folder_of_models_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.setattr("nlp_models.DEMO_CLIP", tmp_path / "models" / DEMO_CLIP.name)
    monkeypatch.setattr("nlp_models.FIRST_DEMO_CLIP", tmp_path / "models" / FIRST_DEMO_CLIP.name)
    settings = Settings(_env_file=None, clip_model=str(tmp_path / "models" / DEMO_CLIP.name))
    assert choose_models(settings, KnownIndex(FINGERPRINT_OF_0_2_0, None), []).fingerprint == FINGERPRINT_OF_0_2_0


def test_other_models_than_the_demos_have_no_editions(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(_env_file=None)
    with pytest.raises(ModelMismatch, match="other models than the index was built with"):
        choose_models(settings, KnownIndex("0" * 64, None), [])
    elsewhere = ModelNames("/models/chinese-clip", settings.text_model)
    with pytest.raises(ModelMismatch, match="set both back to /models/chinese-clip"):
        choose_models(settings, KnownIndex("0" * 64, elsewhere), [])
    changed = replace(names_of(settings), clip=str(FIRST_DEMO_CLIP), text="/models/bge")
    with pytest.raises(ModelMismatch, match="set both back"):
        choose_models(settings, KnownIndex("0" * 64, changed), [])
    assert "first edition" not in caplog.text
