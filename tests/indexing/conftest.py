"""Fixtures of the indexing tests."""

from pathlib import Path
from typing import Any

import pytest

from tuwen.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_models: dict[str, str]) -> Settings:
    models: dict[str, Any] = {name.lower(): value for name, value in tiny_models.items()}
    return Settings(_env_file=None, data_dir=tmp_path, **models)
