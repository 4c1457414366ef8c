"""What is chosen of facets, as the filters that the API takes."""

import pytest

from data_models import Facet, FacetValue, SearchFilters
from web.filters import Choice, Chosen, tells_apart


def choice(facet: str, value: str | int | bool, *, is_member: bool = False) -> Choice:
    return Choice.of(facet, FacetValue(value=value, count=1, is_member=is_member))


def asked_for(chosen: Chosen) -> dict[str, object]:
    """As the client sends it and the API reads it."""
    return SearchFilters.model_validate_json(chosen.as_filters().model_dump_json(exclude_defaults=True)).model_dump(
        exclude_defaults=True, mode="json"
    )


def test_values_of_a_facet_are_any_of_and_facets_are_all() -> None:
    chosen = Chosen(price_min=9.9)
    for each in (
        choice("category", "沙发"),
        choice("category", "椅凳"),
        choice("attributes.颜色", "红"),
        choice("attributes.座位数", 1),
        choice("attributes.座位数", True),
        choice("attributes.标签", "新品", is_member=True),
        choice("attributes.标签", "热卖", is_member=True),
    ):
        chosen = chosen.toggled(each)
    assert asked_for(chosen) == {
        "category": ["沙发", "椅凳"],
        "price_min": 9.9,
        "attributes": {
            "颜色": {"any_of": ["红"]},
            "座位数": {"any_of": [1, True]},
            "标签": {"contains_any": ["新品", "热卖"]},
        },
    }
    assert asked_for(chosen.without("category").without("price").without("attributes.标签")) == {
        "attributes": {"颜色": {"any_of": ["红"]}, "座位数": {"any_of": [1, True]}}
    }
    assert chosen.facets == ["category", "attributes.颜色", "attributes.座位数", "attributes.标签", "price"]
    for each in chosen.choices:
        chosen = chosen.toggled(each)
    assert asked_for(chosen.without("price")) == {}
    assert not chosen.without("price")


def test_of_a_facet_with_values_and_lists_one_kind_is_chosen() -> None:
    chosen = Chosen((choice("attributes.颜色", "红"),)).toggled(choice("attributes.颜色", "红", is_member=True))
    assert asked_for(chosen) == {"attributes": {"颜色": {"contains_any": ["红"]}}}


@pytest.mark.parametrize(
    ("counts", "other", "tells"),
    [
        ({"红": 30, "蓝": 9}, 0, True),
        ({"红": 1, "蓝": 1}, 0, False),  # each product has its own
        ({f"标题 {n}": 2 if n == 0 else 1 for n in range(50)}, 0, False),
        ({f"品牌 {n}": 9 for n in range(50)}, 100, True),
        ({f"品牌 {n}": 9 for n in range(50)}, 1000, False),
        ({1: 9, 2: 8, 3: 1}, 0, True),  # seats
        (dict.fromkeys(range(50), 9), 0, False),  # centimetres
        ({True: 5, False: 9}, 0, True),
    ],
)
def test_an_attribute_is_a_facet_where_it_tells_products_apart(
    counts: dict[str | int, int], other: int, tells: bool
) -> None:
    values = [FacetValue(value=value, count=count) for value, count in counts.items()]
    assert tells_apart(Facet(values=values, other=other, missing=0)) is tells
