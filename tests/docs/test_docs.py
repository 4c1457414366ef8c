"""What the documents say is true: examples run, every route and error is described, the exported schema is fresh."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from data_models import Problem, Product, SearchRequest
from tests.conftest import picture
from tests.processes import ROOT, environment, require_program
from tuwen.api.failure_messages import OF_FAILURES
from tuwen.api.library_messages import OF_LIBRARIES
from tuwen.api.messages import OF_PICTURES, OURS
from tuwen.api.warning_messages import OF_WARNINGS
from tuwen.errors import (
    AppError,
    ConfigurationError,
    DependencyUnavailable,
    GateClosed,
    GenerationRefused,
    IndexChanged,
    MessageRefused,
    QueueUnavailable,
)
from tuwen.settings import Settings

DOCUMENTS = ("docs/api.md", "docs/api.zh-CN.md")
EVERY_DOCUMENT = sorted(str(file.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for file in folder.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"^ *(?:#|//) → (.+)$", re.MULTILINE)
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
SETTING_NAME = re.compile(r"`([A-Z]+_[A-Z_]+)`")
ADDRESS = "http://127.0.0.1:8000"
# What no request is answered with: they end a start, or are said in /health or as a job's error alone.
NEVER_ANSWERED = {
    ConfigurationError,
    DependencyUnavailable,
    GateClosed,
    GenerationRefused,
    IndexChanged,
    MessageRefused,
    QueueUnavailable,
}


@dataclass(frozen=True)
class Language:
    prelude: str
    suffix: str
    end_of_block: str

    def command(self, script: Path) -> list[str]:
        programs = {".sh": "bash", ".mjs": "node"}
        program = require_program(programs[self.suffix]) if self.suffix in programs else sys.executable
        return [program, str(script)]


LANGUAGES = {
    "bash": Language("set -euo pipefail", ".sh", "printf '\\n{}\\n'"),
    "python": Language("", ".py", "print('{}')"),
    "javascript": Language("", ".mjs", "console.log('{}');"),
}


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [code for tag, code in BLOCK.findall(document(name)) if tag == language]


def leaf_errors(error: type[AppError] = AppError) -> Iterator[type[AppError]]:
    yield error
    for subclass in error.__subclasses__():
        yield from leaf_errors(subclass)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_examples_run_and_print_what_is_said(name: str, language: str, api: httpx.Client, tmp_path: Path) -> None:
    if language == "bash":
        require_program("curl")
    kind, examples = LANGUAGES[language], blocks(name, language)
    parts = [kind.prelude]
    for number, example in enumerate(examples):
        parts += [example, kind.end_of_block.format(f"--- end of example {number}")]
    script = tmp_path / f"examples{kind.suffix}"
    script.write_text("\n".join(parts).replace(ADDRESS, str(api.base_url).rstrip("/")), encoding="utf-8")
    (tmp_path / "sofa.jpg").write_bytes(picture("red", (640, 480), "JPEG"))

    process = subprocess.run(
        kind.command(script),
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="utf-8"),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert process.returncode == 0, f"{process.stdout[-2000:]}\n{process.stderr[-2000:]}"
    rest = process.stdout
    for number, example in enumerate(examples):
        printed, _, rest = rest.partition(f"--- end of example {number}\n")
        missing = [text for text in EXPECTED.findall(example) if text not in printed]
        assert missing == [], f"{example}\nprinted:\n{printed}"
    assert api.get("/product/list").json()["total"] == 0, "the examples clean up after themselves"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_curl_fails_where_the_service_does_unless_the_error_is_the_example(name: str) -> None:
    calls = 0
    for example in blocks(name, "bash"):
        shows_an_error = "urn:tuwen:problem:" in example
        for call in re.findall(r"\bcurl\b[^\n]*", example):
            calls += 1
            assert shows_an_error or "--fail-with-body" in call, call
    assert calls > 10


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_section_with_examples_has_all_three_languages(name: str) -> None:
    for section in re.split(r"^##+ ", document(name), flags=re.MULTILINE):
        shown = {tag for tag, _ in BLOCK.findall(section)} & set(LANGUAGES)
        assert shown in (set(), set(LANGUAGES)), section.splitlines()[0]


@pytest.mark.parametrize("name", EVERY_DOCUMENT)
def test_headings_have_words_and_there_is_one_title(name: str) -> None:
    headings = re.findall(r"^(#+)(?: +(.*))?$", BLOCK.sub("", document(name)), re.MULTILINE)
    assert [level for level, words in headings if not words.strip()] == []
    assert [level for level, _ in headings].count("#") == 1


def test_every_start_of_the_api_says_where_it_listens() -> None:
    """Without `--host` it is every address of the machine."""
    told = {name: document(name) for name in (*EVERY_DOCUMENT, "web/texts.py", "clients/catalogue_import.py")}
    commands = [(name, line) for name, text in told.items() for line in re.findall(r"\bfastapi run\b.*", text)]
    assert {name for name, _ in commands} >= {"README.md", "README.zh-CN.md", "docs/security.md", "web/texts.py"}
    assert [found for found in commands if not re.match(r"fastapi run main\.py --host \S", found[1])] == []


def test_both_languages_say_the_same_in_the_same_order() -> None:
    outlines = []
    for name in DOCUMENTS:
        text = document(name)
        code = [tag for tag, _ in BLOCK.findall(text)]
        rows = len(re.findall(r"^\|", text, re.MULTILINE))
        outlines.append((HEADING.findall(BLOCK.sub("", text)), code, rows))
    assert outlines[0] == outlines[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_within_the_document_arrive(name: str) -> None:
    text = document(name)
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - anchors == set()
    for link in re.findall(r"\]\((?!#|https?://)([^)#]+)", text):
        assert (ROOT / "docs" / link).is_file(), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_route_is_described(name: str) -> None:
    from main import app  # noqa: PLC0415  # loads everything that the service needs

    text = document(name)
    routes = [f"`{method.upper()} {path}`" for path, methods in app.openapi()["paths"].items() for method in methods]
    assert [route for route in routes if text.count(route) < 2] == [], "in the overview and in its own section"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_error_is_described(name: str) -> None:
    described = set(re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", document(name), re.MULTILINE))
    answered = [
        error for error in leaf_errors() if error not in NEVER_ANSWERED and not issubclass(error, ConfigurationError)
    ]
    assert described == {(str(error.status), error.slug) for error in answered} | {("405", "method-not-allowed")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_code_is_listed_with_its_parameters(name: str) -> None:
    section = re.search(r"^### (?:Codes|错误代码)$(.*?)^## ", document(name), re.MULTILINE | re.DOTALL)
    assert section is not None
    listed = {
        code: set(re.findall(r"`(\w+)`", parameters))
        for code, parameters in re.findall(r"^\| `([a-z0-9_]+)` \| (-|`[^|]*`) \|", section[1], re.MULTILINE)
    }
    sent = dict[str, set[str]]()
    for code, english, _ in (*OURS, *OF_PICTURES, *OF_LIBRARIES, *OF_WARNINGS, *OF_FAILURES):
        gaps = set(re.findall(r"(?<!{){(\w+)}(?!})", english)) - {"s", "more"}
        sent[code] = sent.get(code, set()) | gaps
    assert listed == sent


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_that_are_named_exist(name: str) -> None:
    named = set(SETTING_NAME.findall(document(name)))
    assert named
    assert named - {field.upper() for field in Settings.model_fields} == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_json_that_is_shown_has_the_right_fields(name: str) -> None:
    error, product, composed = blocks(name, "json")
    assert set(json.loads(error)) == set(Problem.model_fields)
    assert set(json.loads(product)) == set(Product.model_fields)
    Problem.model_validate_json(error)
    Product.model_validate_json(product)
    SearchRequest.model_validate_json(composed)


def test_the_exported_schema_is_fresh() -> None:
    from main import app  # noqa: PLC0415  # loads everything that the service needs

    current = json.dumps(app.openapi(), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    stored = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert stored == current, "docs/openapi.json is stale: run python cli.py openapi"
