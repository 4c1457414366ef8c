"""`cli.py calibrate`: what is fitted, what it is worth, and that a service has it afterwards."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from evaluation.fitting import Pairs, auroc, best_threshold, cross_validated, fit, quality
from evaluation.make_no_match_queries import read_missing
from evaluation.make_queries import FOLDER
from evaluation.measures import Judged
from evaluation.no_match import separations
from evaluation.queries import read_query_file
from tests.conftest import create_product, picture, wait_until_indexed
from tests.demo.test_demo_command import assert_one_sentence, run_cli
from tests.evaluation.test_evaluate import COLOURS, write_lines
from tests.processes import wait_until

KINDS = ("沙发", "餐桌", "台灯", "书柜", "地毯")


def drawn(queries: int = 400, hits: int = 10, seed: int = 3) -> tuple[Pairs, np.ndarray]:
    """Hits whose relevance is known: by two signals."""
    generator = np.random.default_rng(seed)
    cosine, words = generator.uniform(0, 0.8, queries * hits), generator.uniform(0, 1, queries * hits)
    probability = 1 / (1 + np.exp(-(-5 + 4 * cosine + 5 * words)))
    is_relevant = (generator.uniform(size=queries * hits) < probability).astype(np.float64)
    numbers = np.repeat(np.arange(queries), hits)
    return Pairs(("cosine", "words"), np.column_stack([cosine, words]), is_relevant, numbers), probability


def test_what_is_fitted_is_what_it_was_drawn_by() -> None:
    pairs, probability = drawn()
    found = fit(pairs)
    assert found.intercept == pytest.approx(-5, abs=0.4)
    assert found.weights == pytest.approx([4, 5], abs=0.6)
    assert np.abs(found.relevance(pairs.signals) - probability).mean() < 0.02
    assert np.array_equal(fit(pairs).weights, found.weights), "the same each time"


def test_a_signal_that_would_lower_relevance_is_left_out() -> None:
    pairs, _ = drawn()
    wrong = 0.3 * np.random.default_rng(4).uniform(size=len(pairs.is_relevant)) - pairs.is_relevant
    found = fit(
        Pairs((*pairs.names, "wrong"), np.column_stack([pairs.signals, wrong]), pairs.is_relevant, pairs.queries)
    )
    assert found.weights.tolist() == [*fit(pairs).weights.tolist(), 0.0]


def test_quality_is_that_of_what_was_not_fitted_on() -> None:
    pairs, probability = drawn()
    judged = quality(cross_validated(pairs), pairs)
    ideal = quality(probability, pairs)
    assert judged.auroc == pytest.approx(ideal.auroc, abs=0.01)
    assert judged.log_loss == pytest.approx(ideal.log_loss, abs=0.01)
    assert judged.calibration_error < 0.03
    shuffled = Pairs(pairs.names, pairs.signals, np.random.default_rng(5).permutation(pairs.is_relevant), pairs.queries)
    assert quality(cross_validated(shuffled), shuffled).auroc == pytest.approx(0.5, abs=0.05)
    too_sure = quality(np.clip(3 * probability, 0, 1), pairs)
    assert too_sure.calibration_error > 0.2


def test_auroc_is_mann_and_whitney_s() -> None:
    generator = np.random.default_rng(7)
    for _ in range(20):
        positives = generator.integers(0, 8, 30).astype(np.float64)
        negatives = generator.integers(-2, 6, 45).astype(np.float64)
        theirs = stats.mannwhitneyu(positives, negatives).statistic / (30 * 45)
        assert auroc(positives, negatives) == pytest.approx(theirs)


def test_queries_with_a_product_are_told_from_those_without() -> None:
    results = [
        Judged(str(number), "hybrid", "", {"mrr@10": 1.0}, ["A"], {"relevance": 0.3 + number / 100, "words": 0.5})
        for number in range(10)
    ]
    results += [
        Judged(f"no {number}", "hybrid", "", {}, [], {"relevance": number / 100, "words": number / 10})
        for number in range(9)
    ]
    results.append(Judged("no hits", "hybrid", "", {}, []))
    relevance, words = separations(results, 0.25)
    assert (relevance.signal, relevance.auroc.value, relevance.best_right) == ("relevance", 1.0, 1.0)
    assert (relevance.with_product, relevance.without_product, relevance.right_at_min_score) == (10, 10, 1.0)
    assert separations(results, 0.35)[0].right_at_min_score == pytest.approx(0.75)
    assert words.auroc.value == pytest.approx((6 + 0.5) / 10)
    assert words.right_at_min_score is None
    assert separations(results[:10], 0.25) == []


@pytest.fixture(scope="module")
def catalogue(api: httpx.Client) -> httpx.Client:
    for number, colour in enumerate(COLOURS):
        for kind in KINDS:
            create_product(api, f"{colour}款{kind}", picture(colour, (40 + number, 48)), sku=f"{colour}-{kind}")
    wait_until_indexed(api)
    return api


def test_a_service_has_what_was_fitted_on_query_files(catalogue: httpx.Client, tmp_path: Path) -> None:
    service = ("--api-url", str(catalogue.base_url))
    lines = [
        {"mode": "hybrid", "text": kind, "relevant": [f"{colour}-{kind}" for colour in COLOURS], "id": kind}
        for kind in KINDS
    ]
    lines += [
        {"mode": "hybrid", "text": f"{colour}款{kind}", "relevant": [f"{colour}-{kind}"], "id": f"{colour} {kind}"}
        for colour in COLOURS
        for kind in KINDS
    ]
    missing = ("自行车", "感冒药", "量子力学教科书第三版", "搬家服务", "QN-7781-ZX", "violin")
    lines += [{"mode": "hybrid", "text": text, "relevant": [], "id": text} for text in missing]
    queries, out = write_lines(tmp_path / "queries.jsonl", lines), tmp_path / "fitted.json"
    command = ("calibrate", "--queries", str(queries), "--mode", "hybrid", "--out", str(out), *service)
    tried = run_cli(*command, "--dry-run")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "Nothing is kept." in tried.stdout
    assert catalogue.get("/calibration").json()["modes"] == {}
    first = out.read_text(encoding="utf-8")

    fitted = run_cli(*command)
    assert fitted.returncode == 0, fitted.stdout + fitted.stderr
    assert out.read_text(encoding="utf-8") == first, "the same queries, the same weights"
    kept = catalogue.get("/calibration").json()
    [(fingerprint, modes)] = json.loads(first).items()
    assert fingerprint == kept["fingerprint"]
    assert {mode: each["weights"] for mode, each in kept["modes"].items()} == {
        mode: {"picture_cosine": 0.0, "title_cosine": 0.0, "words": 0.0, **each["weights"]}
        for mode, each in modes.items()
    }
    assert kept["modes"]["hybrid"]["weights"]["words"] > 1
    assert kept["modes"]["hybrid"]["fitted_on"]["auroc"] > 0.9

    def knows_nothing_fits() -> bool:
        asked = {"mode": "hybrid", "text": "自行车", "min_score": 0.15}
        response = catalogue.post("/search", json=asked)
        return response.status_code == httpx.codes.OK and response.json()["no_match"] is True

    wait_until(knows_nothing_fits, timeout_s=30, what="the calibration to be used")
    run = run_cli("evaluate", str(queries), "--out", str(tmp_path / "run.json"), *service)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "whether any product fits" in run.stdout
    results = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["results"]
    assert len(results) == len(lines)
    assert [bool(each["measures"]) for each in results] == [bool(each["relevant"]) for each in lines]
    [relevance, *_] = separations([Judged(**each) for each in results], 0.15)
    assert relevance.auroc.value > 0.95


def test_without_query_files_searches_are_made_of_the_catalogue(catalogue: httpx.Client) -> None:
    modes = ("--mode", "text_to_text", "--mode", "image_to_image")
    made = run_cli("calibrate", *modes, "--sample", "30", "--dry-run", "--api-url", str(catalogue.base_url))
    assert made.returncode == 0, made.stdout + made.stderr
    assert "text_to_text" in made.stdout
    assert "image_to_image" in made.stdout


def test_too_little_to_fit_on_says_so(catalogue: httpx.Client, tmp_path: Path) -> None:
    queries = write_lines(tmp_path / "few.jsonl", [{"mode": "hybrid", "text": "沙发", "relevant": ["red-沙发"]}])
    service = ("--api-url", str(catalogue.base_url))
    refused = run_cli("calibrate", "--queries", str(queries), "--mode", "hybrid", *service)
    assert_one_sentence(refused, "hybrid has 1 queries", "that takes 20")


def test_what_is_missing_in_one_file_is_missing_in_no_other() -> None:
    """Under no name: else what is held out would have been fitted on."""
    things = [thing for of_sort in read_missing().values() for thing in of_sort]
    asked = [
        {str(query.text) for query in read_query_file(FOLDER / f"{name}.jsonl", "") if not query.relevant}
        for name in ("no_match", "no_match_tuning")
    ]
    halves = [{thing[0] for thing in things if texts.intersection(thing)} for texts in asked]
    assert [len(texts) for texts in asked] == [200, 200]
    assert min(map(len, halves)) > 80
    assert halves[0].isdisjoint(halves[1])
    assert asked[0].isdisjoint(asked[1])


def test_the_threshold_tells_queries_with_a_product_from_those_without() -> None:
    highest, has_one = np.repeat([0.9, 0.8, 0.3, 0.25, 0.2, 0.1], 4), np.repeat([1, 1, 1, 0, 0, 0], 4)
    assert best_threshold(highest, has_one) == pytest.approx(0.275)
    assert best_threshold(highest, np.ones(24)) is None
    assert best_threshold(highest[:16], has_one[:16]) is None, "four say nothing"
