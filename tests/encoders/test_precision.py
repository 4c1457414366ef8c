"""int8 is a class of vectors of its own: an index has one class, and what can't be had is refused in a sentence."""

import logging
from pathlib import Path
from typing import Any

import pytest

from nlp_models import choose_models, find_models, load_encoders, names_of, names_to_build
from tuwen.encoders.base import KnownIndex
from tuwen.encoders.exported import cache
from tuwen.encoders.loading import FoundModel
from tuwen.errors import ModelUnavailable
from tuwen.settings import Settings


def _settings(models: dict[str, str], **values: Any) -> Settings:
    named = {"clip_model": models["CLIP_MODEL"], "text_model": models["TEXT_MODEL"]}
    return Settings(_env_file=None, **(named | values))


@pytest.mark.parametrize("made_in", ["auto", "int8"])
def test_an_index_goes_on_in_the_precision_that_it_was_made_in(
    tiny_models: dict[str, str], caplog: pytest.LogCaptureFixture, made_in: str
) -> None:
    before = _settings(tiny_models, encoder_precision=made_in)
    made = find_models(names_of(before), before)
    now = _settings(tiny_models, encoder_precision="auto" if made_in == "int8" else "int8")
    other = find_models(names_of(now), now)
    assert made.fingerprint != other.fingerprint
    with caplog.at_level(logging.WARNING):
        goes_on = choose_models(now, KnownIndex(made.fingerprint, made.names), [])
    assert isinstance(goes_on.clip, FoundModel)
    assert (goes_on.fingerprint, goes_on.clip.precision) == (made.fingerprint, made.names.precision)
    assert "python cli.py reindex --clip-model" in caplog.text
    built = find_models(names_to_build(now.clip_model, now.text_model, now), now)
    assert built.fingerprint == other.fingerprint


def test_an_index_of_version_0_2_0_is_not_in_int8(tiny_models: dict[str, str]) -> None:
    plain, int8 = (_settings(tiny_models, encoder_precision=precision) for precision in ("auto", "int8"))
    index = KnownIndex(find_models(names_of(plain), plain).fingerprint, None)
    assert choose_models(int8, index, []).names.precision is None


def test_what_int8_takes_is_said(tiny_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tiny_models, encoder_precision="int8", encoder_cache_dir=tmp_path)
    with pytest.raises(ModelUnavailable, match=r"can't be run in int8, .* ENCODER_BACKEND=torch does not"):
        load_encoders(settings.model_copy(update={"encoder_backend": "torch"}))
    monkeypatch.setattr(cache, "QUANTIZER", "not-installed-anywhere")
    with pytest.raises(ModelUnavailable, match=r"not-installed-anywhere is not installed: pip install -r requirements"):
        load_encoders(settings)


def test_a_cn_clip_checkpoint_is_refused_in_int8(tiny_models: dict[str, str], tmp_path: Path) -> None:
    checkpoint = tmp_path / "clip.pt"
    checkpoint.write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="is a cn_clip checkpoint, which can't be run in int8"):
        load_encoders(_settings(tiny_models | {"CLIP_MODEL": str(checkpoint)}, encoder_precision="int8"))
