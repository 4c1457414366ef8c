"""Fixtures of the indexing tests."""

from pathlib import Path
from typing import Any

import pytest

from tests.processes import EXPORTS
from tests.servers import new_mysql_database
from tests.tiny_models import save_tiny_chinese_clip, save_tiny_sentence_model
from tuwen.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str], milvus: str) -> Settings:
    """A new database each time, and so collections of its own on the one Milvus of all tests."""
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, encoder_cache_dir=EXPORTS, milvus_uri=milvus, **models)


@pytest.fixture(params=["sqlite", "mariadb"])
def on_both_databases(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": new_mysql_database(request.getfixturevalue("mariadb"))})


@pytest.fixture(scope="session")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of other dimensions in one of the two spaces."""
    folder = tmp_path_factory.mktemp("other-models")
    return {
        "clip_model": str(save_tiny_chinese_clip(folder / "clip", seed=7, dim=24)),
        "text_model": str(save_tiny_sentence_model(folder / "text", seed=7)),
    }
