"""Settings are documented, all of them and nothing else, and a wrong one is said in a line."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.processes import ROOT, environment
from tuwen.settings import Settings

FIELDS = {name.upper() for name in Settings.model_fields}
ENV_LINE = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$")
# A table's row that opens with an upper-case name of two words or more.
TABLE_ROW = re.compile(r"^\| *`([A-Z][A-Z0-9]*_[A-Z0-9_]+)` *\|", re.MULTILINE)
COMPOSE_ONLY_HEADING = "# --- Compose only"
MODULES = (ROOT / "tuwen" / "settings.py", ROOT / "tuwen" / "limit_settings.py")
PRINT_SETTINGS = "from tuwen.settings import load_settings; print(load_settings().model_dump_json())"


def env_example() -> tuple[dict[str, str], set[str], list[str]]:
    """What `.env.example` says of Settings (name → value), the compose-only names, and every name in order."""
    of_settings: dict[str, str] = {}
    compose_only: set[str] = set()
    names = []
    in_compose_section = False
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        in_compose_section = in_compose_section or line.startswith(COMPOSE_ONLY_HEADING)
        if match := ENV_LINE.match(line):
            names.append(match[1])
            if in_compose_section:
                compose_only.add(match[1])
            else:
                of_settings[match[1]] = match[2]
    return of_settings, compose_only, names


def load_in_process(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """As the programs do it: started in `folder`, where an `.env` may be."""
    env = (
        environment(TUWEN_ENV_FILE=".env", ENCODER_CACHE_DIR="")
        | {"PYTHONPATH": str(ROOT)}
        | {name: str(value) for name, value in settings.items()}
    )
    return subprocess.run(
        [sys.executable, "-c", PRINT_SETTINGS], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def loaded(folder: Path, **settings: object) -> Settings:
    process = load_in_process(folder, **settings)
    assert process.returncode == 0, process.stderr
    return Settings.model_validate_json(process.stdout)


def test_env_example_has_every_setting_once_and_nothing_else() -> None:
    of_settings, compose_only, names = env_example()
    assert set(of_settings) == FIELDS
    assert compose_only
    assert not compose_only & FIELDS
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_env_example_is_in_the_order_of_the_settings() -> None:
    sections = re.compile(r"^# --- ([A-Z][a-z ]+?)[^a-z ]", re.MULTILINE)
    in_example = [name.strip() for name in sections.findall((ROOT / ".env.example").read_text(encoding="utf-8"))]
    in_settings = re.findall(r"^    # ([A-Z][a-z ]+)$", "".join(map(Path.read_text, MODULES)), re.MULTILINE)
    assert in_example[:-1] == in_settings


def test_env_example_shows_the_defaults(tmp_path: Path) -> None:
    shown, _, _ = env_example()
    defaults = loaded(tmp_path)
    models = {name: ROOT / shown[name] for name in ("CLIP_MODEL", "TEXT_MODEL", "GENERATOR_MODEL")}
    assert loaded(tmp_path, **shown | models) == defaults


def test_env_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    defaults = loaded(tmp_path)
    (tmp_path / ".env").write_bytes((ROOT / ".env.example").read_bytes())
    assert loaded(tmp_path) == defaults


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readme_table_has_every_setting_and_nothing_else(readme: str) -> None:
    rows = set(TABLE_ROW.findall((ROOT / readme).read_text(encoding="utf-8")))
    _, compose_only, _ = env_example()
    assert sorted(FIELDS - rows) == []
    assert sorted(rows - FIELDS - compose_only) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "70000"),
        ("API_PORT", "eighty"),
        ("LOG_LEVEL", "loud"),
        ("AUTO_MIGRATE", "perhaps"),
        ("UPLOAD_MAX_BYTES", "0"),
        ("TITLE_MAX_LENGTH", "501"),
        ("MODEL_HUB", "github"),
    ],
)
def test_a_wrong_value_ends_with_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    process = load_in_process(tmp_path, **{name: value})
    assert process.returncode == 1
    assert process.stdout == ""
    heading, *lines = process.stderr.splitlines()
    assert heading == "Settings can't be used:"
    assert len(lines) == 1
    assert lines[0].strip().startswith(f"{name}: ")
    assert value in lines[0]


def test_every_wrong_value_gets_its_line(tmp_path: Path) -> None:
    process = load_in_process(tmp_path, API_PORT=0, WEB_PORT=-1)
    assert [line.split(":")[0].strip() for line in process.stderr.splitlines()[1:]] == ["API_PORT", "WEB_PORT"]


def test_values_come_from_the_env_file_and_real_variables_win(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "API_PORT=8123\nWEB_PORT=6123\nWEB_LANGUAGE=en\nIMAGE_URL_HOSTS=a.example, b.example\nMILVUS_URI=\n"
        "MYSQL_PASSWORD=not-a-setting\n",
        encoding="utf-8",
    )
    settings = loaded(tmp_path, WEB_PORT=6200)
    assert (settings.api_port, settings.web_port, settings.web_language) == (8123, 6200, "en")
    assert settings.image_url_hosts == ("a.example", "b.example")
    assert settings.milvus_is_file


def test_a_mark_in_front_of_the_env_file_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_PORT=8123\n", encoding="utf-8-sig")
    assert loaded(tmp_path).api_port == 8123


def test_a_wrong_value_in_the_env_file_is_named_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MILVUS_TIMEOUT_S=soon\n", encoding="utf-8")
    process = load_in_process(tmp_path)
    assert process.returncode == 1
    assert "MILVUS_TIMEOUT_S" in process.stderr
    assert "Traceback" not in process.stderr


def test_another_env_file_can_be_named_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_PORT=8123\n", encoding="utf-8")
    (tmp_path / "staging.env").write_text("API_PORT=8124\n", encoding="utf-8")
    assert loaded(tmp_path, TUWEN_ENV_FILE="staging.env").api_port == 8124
    assert loaded(tmp_path, TUWEN_ENV_FILE="").api_port == 8000


def test_the_processes_of_the_tests_read_no_settings_of_their_developer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a test would write into the database that somebody's .env names."""
    (tmp_path / ".env").write_text("\n".join(f"{name}=from-a-file" for name in FIELDS), encoding="utf-8")
    for name in FIELDS:
        monkeypatch.setenv(name, "from-the-environment")
    assert loaded(tmp_path, TUWEN_ENV_FILE="") == Settings(_env_file=None, **defaults())


def defaults() -> dict[str, Any]:
    return {name: field.default for name, field in Settings.model_fields.items()}


def test_empty_values_mean_the_defaults(tmp_path: Path) -> None:
    defaults = loaded(tmp_path)
    assert loaded(tmp_path, **dict.fromkeys(FIELDS, "")) == defaults


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_key_is_read_from_its_file_as_windows_writes_it(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "key"
    file.write_text("tuwen_k\r\n", encoding=encoding)
    assert Settings(api_key_file=file).key_to_send() == "tuwen_k"
    assert Settings(api_key_file=file).key_to_send("tuwen_given") == "tuwen_given"


def test_what_no_header_can_carry_is_refused_in_words_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("tuwen_k", encoding="utf-16")
    for settings, given in (
        (Settings(api_key_file=file), ""),
        (Settings(api_key=SecretStr("密钥")), ""),
        (Settings(), "密钥"),
        (Settings(), "tuwen_\nk"),
    ):
        with pytest.raises(ValueError, match=r"no API key.*API_KEY_FILE \(UTF-8\)") as refused:
            settings.key_to_send(given)
        assert "密钥" not in str(refused.value)
    with pytest.raises(ValueError, match=r"API_KEY_FILE=.* can't be read: "):
        Settings(api_key_file=tmp_path).key_to_send()
