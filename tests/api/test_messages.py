"""What errors say: in one table with codes, parameters and Chinese, which has all of ours and nothing that is gone."""

import ast
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import create_product, picture
from tests.processes import ROOT
from tuwen.api.library_messages import OF_LIBRARIES
from tuwen.api.messages import LONGEST_MESSAGE, OF_PICTURES, OURS, find_message, language_of
from tuwen.api.titles import TITLES
from tuwen.errors import AppError

PLACES = (
    "data_models.py",
    "tuwen/access",
    "tuwen/api",
    "tuwen/search",
    "tuwen/catalogue",
    "tuwen/generation",
    "tuwen/importing",
    "tuwen/twins",
    "tuwen/vectors/calibrations.py",
    "tuwen/indexing/reindex_jobs.py",
    "tuwen/limit_settings.py",
)
RAISES = {"in_field", "ValueError", "FieldError", "MalformedRequest", "UnsupportedMediaType", "NotFound", "_refused"}
RAISES |= {"RowWarning", "VersionMismatch", "IdempotencyKeyUsed", "BadRow", "FileTooLarge"}
RAISES |= {"NotAuthenticated", "KeyRefused", "ScopeMissing", "Forbidden", "RateLimited", "TooManyAtOnce"}
VALUE = "7"
WITHIN_ANOTHER = {"Excess data after padding", "7 is not JSON"}


def said_in(path: str) -> Iterator[tuple[str, str]]:
    """Where, and each sentence of an error with something in its gaps."""
    files = [ROOT / path] if path.endswith(".py") else sorted((ROOT / path).glob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            sentence = node.args[-1] if name in RAISES and node.args else None
            if isinstance(sentence, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else VALUE for part in sentence.values]
                yield f"{file.name}:{node.lineno}", "".join(parts)
            elif isinstance(sentence, ast.Constant) and isinstance(sentence.value, str):
                yield f"{file.name}:{node.lineno}", sentence.value


def test_every_sentence_of_ours_has_a_code_and_is_said_in_chinese() -> None:
    sentences = [each for path in PLACES for each in said_in(path)]
    assert len(sentences) > 30
    unknown = [each for each in sentences if find_message(each[1]) is None]
    assert [each for each in unknown if each[1] not in WITHIN_ANOTHER] == []


def test_the_table_has_nothing_of_ours_that_is_gone() -> None:
    said = {message.code for path in PLACES for _, sentence in said_in(path) if (message := find_message(sentence))}
    tried_below = {"missing_query", "other_query", "needs_one_query", "taken", "picture_not_stored"}
    assert {code for code, _, _ in OURS} - said - tried_below == set()


def test_what_is_said_in_chinese_names_what_is_said_in_english() -> None:
    for code, english, chinese in (*OURS, *OF_PICTURES, *OF_LIBRARIES):
        gaps = [set(re.findall(r"(?<!{){(\w+)}(?!})", text)) - {"s", "more"} for text in (english, chinese)]
        assert gaps[1] <= gaps[0], code
        assert re.search("[\u4e00-\u9fff]", chinese), code


def test_every_kind_of_error_has_a_chinese_title() -> None:
    kinds, waiting = list[type[AppError]](), [AppError]
    while waiting:
        kinds.append(kind := waiting.pop())
        waiting += kind.__subclasses__()
    never_answered = {"configuration", "model-mismatch", "model-unavailable", "gate-closed", "message-refused"}
    never_answered |= {"queue-unavailable"}
    assert {kind.slug for kind in kinds} - set(TITLES) == never_answered


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh-CN;q=0.8", "en"),
        ("fr-FR, zh-Hant;q=0.5", "zh"),
        ("zh;q=0, de", "en"),
        ("*", "en"),
        ("zh;q=much", "en"),
        (",;q=,;", "en"),
    ],
)
def test_the_language_is_the_one_that_is_wanted_most(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


def test_a_problem_has_a_code_and_parameters_and_is_said_in_chinese_on_request(api: httpx.Client) -> None:
    create_product(api, "桌子", sku="TWO")
    form = {"data": {"title": "椅子", "sku": "TWO"}, "files": {"image": picture()}}
    long = {"data": {"title": "长" * 501}, "files": {"image": picture()}}
    query = {"mode": "text_to_image"}
    for method, path, request, code, parameters, title, chinese in (
        ("POST", "/product", form, "taken", {"sku": "TWO"}, "sku 重复", "sku：另一件商品已经使用 sku 'TWO'"),
        ("POST", "/product", long, "too_long", {"limit": 500}, "输入无效", "title：最多 500 个字符"),
        ("GET", "/product/0", {}, "too_small", {"limit": 1}, "输入无效", "product_id：不能小于 1"),
        ("GET", "/product/999999", {}, "no_product", {"product_id": 999999}, "没有找到", "没有商品 999999。"),
        ("GET", "/nowhere", {}, "no_page", {}, "没有找到", "没有这个页面"),
        ("PUT", "/search", {}, "no_method", {}, "不支持该方法", "这个地址不支持该方法"),
        ("POST", "/search", {"content": b"{"}, "wrong_body", {"method": "POST"}, "不支持的请求体类型", "不接受 ''。"),
        (
            "POST",
            "/search",
            {"json": query},
            "missing_query",
            {"allowed": "text, product_id, terms"},
            "输入无效",
            "一个也没有",
        ),
        ("POST", "/search", {"json": query | {"text": "a", "product_id": 1}}, "other_query", {}, "输入无效", "有 text"),
        ("GET", f"/images/{'9' * 900}.png", {}, "no_picture", {}, "没有找到", "没有图片 999"),
    ):
        english = api.request(method, path, **request, headers={"Accept-Language": "en-GB"})
        answered = api.request(method, path, **request, headers={"Accept-Language": "zh-CN,zh;q=0.9"})
        assert [each.headers["Content-Language"] for each in (english, answered)] == ["en", "zh"]
        said, in_chinese = english.json(), answered.json()
        assert (said["type"], said["status"]) == (in_chinese["type"], in_chinese["status"])
        for problem in (said, in_chinese):
            told = problem["errors"][0] if problem["code"] is None else problem
            assert told["code"] == code, problem
            assert parameters.items() <= told["parameters"].items(), problem
        assert (in_chinese["title"], chinese in in_chinese["detail"]) == (title, True), in_chinese
        assert not re.search("[\u4e00-\u9fff]", said["detail"]), said


@pytest.mark.parametrize(
    "sentence",
    [
        "a takes " * 200,
        "a has 1 bytes, the limit is " * 60,
        "has " + " × " * 120 + " = " * 200,
        f"{'has 1 bytes, the limit is ' * 34!r} is not in the archive",
    ],
)
def test_what_a_caller_wrote_takes_no_long_time(sentence: str) -> None:
    started = time.process_time()
    for _ in range(100):
        find_message(sentence[:LONGEST_MESSAGE])
    assert time.process_time() - started < 0.5  # some hundredths; by regular expressions, seconds


def test_a_gap_is_as_short_as_can_be_and_may_be_empty() -> None:
    for sentence, code, parameters in (
        ("'' is not in the archive", "not_in_archive", {"path": "''"}),
        ("has 1 × 2 = 3 pixels, the limit is 1,000", "too_many_pixels", {"pixels": 3, "limit": 1000}),
        ("has a twice, once as b twice, once as c", "file_columns", {"field": "a", "column": "b twice, once as c"}),
        ("No product has the sku '007'.", "no_product", {"sku": "007"}),
        (r"The charset 'a\'b' is not known here; send UTF-8.", "unknown_charset", {"charset": r"a\'b"}),
        ('must be a JSON object, such as {"sku": "A1", "title": "..."}', "not_an_object", {}),
        ("String should have at least 1 character", "too_short", {"limit": 1}),
        ("is empty.", None, {}),
    ):
        said = find_message(sentence)
        assert (said.code if said else None) == code, sentence
        assert parameters.items() <= (said.parameters if said else {}).items()
