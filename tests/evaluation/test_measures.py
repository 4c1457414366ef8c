"""Measures and significance against the libraries that the field counts by: ir-measures (trec_eval) and scipy."""

import ir_measures
import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from clients.catalogue_import import CatalogueError
from evaluation.measures import MEASURES, Judged, compare, judged, summarise
from evaluation.queries import Key, Query

QUERIES = 300
OF_LIBRARY = {
    "recall@1": "Success@1",
    "recall@5": "Success@5",
    "recall@10": "Success@10",
    "mrr@10": "RR@10",
    "ndcg@10": "nDCG@10",
    "share@10": "R@10",
}


def answers(seed: int, better: float = 0.0) -> tuple[list[Query], list[list[str]]]:
    """Random ones: 1 to 15 relevant products with grades of 1 to 3 of 60, and 0 to 10 hits. `better`: how often a
    relevant one is brought to the front."""
    random = np.random.default_rng(7)
    queries: list[Query] = []
    hits: list[list[str]] = []
    for number in range(QUERIES):
        products = [f"S-{each}" for each in random.permutation(60)]
        relevant: dict[Key, int] = {product: int(random.integers(1, 4)) for product in products[: number % 15 + 1]}
        category = "brand" if number % 3 else "number"
        queries.append(Query(f"q{number}", "text_to_text", relevant, text="x", category=category))
        shown = [str(each) for each in random.permutation(products)[: number % 11]]
        if np.random.default_rng(seed + number).random() < better:
            shown = [products[0], *(each for each in shown if each != products[0])][:10]
        hits.append(shown)
    return queries, hits


def judged_all(queries: list[Query], hits: list[list[str]]) -> list[Judged]:
    return [judged(query, [(sku, 1) for sku in shown]) for query, shown in zip(queries, hits, strict=True)]


def test_every_measure_of_every_query_is_what_trec_eval_says() -> None:
    queries, hits = answers(1)
    results = {each.query_id: each for each in judged_all(queries, hits)}
    qrels = {query.query_id: {str(key): grade for key, grade in query.relevant.items()} for query in queries}
    run = {
        query.query_id: {sku: 1.0 / rank for rank, sku in enumerate(shown, start=1)}
        for query, shown in zip(queries, hits, strict=True)
        if shown  # trec_eval knows no answer without a hit
    }
    measures = {ir_measures.parse_measure(theirs): ours for ours, theirs in OF_LIBRARY.items()}
    compared = 0
    for theirs in ir_measures.iter_calc(list(measures), qrels, run):
        ours = results[theirs.query_id].measures[measures[theirs.measure]]
        assert ours == pytest.approx(theirs.value, abs=1e-9), theirs
        compared += 1
    assert compared >= len(run) * len(measures)
    for query, shown in zip(queries, hits, strict=True):
        if not shown:
            assert set(results[query.query_id].measures.values()) == {0.0}
        of_query = results[query.query_id].measures
        right = sum(sku in query.relevant for sku in shown[:5])
        assert of_query["right@5"] == pytest.approx(right / min(5, len(query.relevant)))
        assert of_query["mean_recall"] == pytest.approx(np.mean([of_query[f"recall@{k}"] for k in (1, 5, 10)]))


def test_a_product_counts_by_its_id_where_the_file_names_that() -> None:
    query = Query("q", "text_to_text", {7: 1}, text="x")
    assert judged(query, [("S-1", 3), (None, 7)]).measures["mrr@10"] == 0.5
    assert judged(query, [("7", 3)]).measures["mrr@10"] == 0.0  # a sku that looks like the id is another product


def test_what_should_not_be_shown_is_counted_among_the_first_ten() -> None:
    unwanted: frozenset[Key] = frozenset({"S-1", 7, "S-11"})
    query = Query("q", "text_to_text", {"S-2": 1}, text="x", unwanted=unwanted)
    hits = [("S-1", 1), (None, 7), ("S-2", 2), *((f"S-{number}", number) for number in range(20, 27)), ("S-11", 11)]
    assert judged(query, hits).measures["unwanted@10"] == pytest.approx(0.2)
    assert judged(query, hits[2:]).measures["unwanted@10"] == pytest.approx(0.1)


def test_means_have_the_intervals_that_scipy_gives_them() -> None:
    results = judged_all(*answers(1))
    [all_of_them, brand, number] = sorted(summarise(results), key=lambda each: each.category)
    assert (all_of_them.category, brand.category, number.category) == ("", "brand", "number")
    assert (all_of_them.queries, brand.queries) == (QUERIES, QUERIES * 2 // 3)
    for name in MEASURES:
        values = np.array([result.measures[name] for result in results])
        ours = all_of_them.measures[name]
        theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=3).confidence_interval
        assert ours.value == pytest.approx(values.mean())
        assert ours.low == pytest.approx(theirs.low, abs=0.008)
        assert ours.high == pytest.approx(theirs.high, abs=0.008)


def test_a_better_run_is_told_from_chance() -> None:
    queries, hits = answers(1)
    before = judged_all(queries, hits)
    assert {each.p_value for each in compare(before, before)} == {1.0}

    after = judged_all(*answers(2, better=0.06))
    found = {(each.category, each.measure): each for each in compare(before, after)}
    assert len(found) == 3 * len(MEASURES)
    for name in MEASURES:
        old, new = (np.array([each.measures[name] for each in results]) for results in (before, after))
        ours = found["", name]
        theirs = stats.permutation_test(
            (new, old),
            lambda a, b, axis: (a - b).mean(axis=axis),
            permutation_type="samples",
            n_resamples=10_000,
            vectorized=True,
            rng=3,
        ).pvalue
        assert ours.after - ours.before == pytest.approx((new - old).mean())
        assert ours.difference.low <= ours.difference.value <= ours.difference.high
        assert ours.p_value == pytest.approx(theirs, abs=0.02), name
    assert found["", "ndcg@10"].p_value < 0.01 < found["", "ndcg@10"].after

    with pytest.raises(CatalogueError, match="no query in common"):
        compare(before, judged_all([Query("other", "text_to_text", {"S-1": 1}, text="x")], [["S-1"]]))
