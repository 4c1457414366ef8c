"""What narrows and orders a list of products: filters that are chosen from facets, shown with the API's counts and as
chips that can be taken off. They are kept in the session, for the searches and for the list of products apart.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, NamedTuple, TypeVar

import streamlit as st

from data_models import (
    ATTRIBUTE_FACET,
    ATTRIBUTE_NAMES_FACET,
    AttributeFilter,
    Facet,
    FacetValue,
    IndexStatus,
    Scalar,
    SearchFilters,
)
from web.cards import api_client, as_plain, words_of
from web.client import ApiError
from web.texts import session_language, t

Place = Literal["search", "list"]
Option = TypeVar("Option", bound=str)

CATEGORY, PRICE = "category", "price"
BASIC_FACETS = [CATEGORY, PRICE]
MOST_ATTRIBUTES = 6
LOOKED_AT = 10  # attributes, which is what one call counts
MOST_NUMBERS = 12
FEW_VALUES = 6
"""Shown of a facet at once; the others behind a fold."""
NOTHING_COUNTED = Facet(missing=0)


class Choice(NamedTuple):
    facet: str
    json_value: str
    """As JSON, in which 1 is not true."""
    is_member: bool

    @property
    def value(self) -> Scalar:
        value: Scalar = json.loads(self.json_value)
        return value

    @classmethod
    def of(cls, facet: str, value: FacetValue) -> "Choice":
        return cls(facet, json.dumps(value.value, ensure_ascii=False), value.is_member)


@dataclass(frozen=True)
class Chosen:
    """Equal ones ask for the same."""

    choices: tuple[Choice, ...] = ()
    price_min: float | None = None
    price_max: float | None = None

    def __bool__(self) -> bool:
        return self != NOTHING_CHOSEN

    @property
    def facets(self) -> list[str]:
        has_price = self.price_min is not None or self.price_max is not None
        return [*dict.fromkeys(each.facet for each in self.choices), *([PRICE] if has_price else [])]

    def toggled(self, choice: Choice) -> "Chosen":
        """Values and lists' members are asked for in two ways, of which a product would have to fit both: of a facet
        that has both kinds the other kind goes."""
        if choice in self.choices:
            return replace(self, choices=tuple(each for each in self.choices if each != choice))
        others = (each for each in self.choices if each.facet != choice.facet or each.is_member == choice.is_member)
        return replace(self, choices=(*others, choice))

    def without(self, facet: str) -> "Chosen":
        if facet == PRICE:
            return Chosen(self.choices)
        return replace(self, choices=tuple(each for each in self.choices if each.facet != facet))

    def as_filters(self) -> SearchFilters:
        """Unchecked: a range that is no range is for the API to refuse, in its words."""
        attributes: dict[str, AttributeFilter] = {}
        for facet in self.facets:
            chosen = [each for each in self.choices if each.facet == facet]
            if facet not in BASIC_FACETS:
                condition = "contains_any" if chosen[0].is_member else "any_of"
                values = {condition: [each.value for each in chosen]}
                attributes[facet.removeprefix(ATTRIBUTE_FACET)] = AttributeFilter.model_construct(**values)  # type: ignore[arg-type]
        return SearchFilters.model_construct(
            category=[str(each.value) for each in self.choices if each.facet == CATEGORY],
            price_min=_as_price(self.price_min),
            price_max=_as_price(self.price_max),
            attributes={**attributes},
        )


NOTHING_CHOSEN = Chosen()


def _as_price(price: float | None) -> Decimal | None:
    return None if price is None else Decimal(f"{price:.2f}")


# --- Which facets ----------------------------------------------------------------------------------------------------


def facets_to_show(chosen: Chosen) -> list[str]:
    """Those that the API is asked for: also one that is chosen and no longer frequent."""
    try:
        frequent = frequent_attributes(api_client().answers_for)
    except ApiError:  # what they are for says what is wrong
        frequent = []
    return list(dict.fromkeys([*BASIC_FACETS, *frequent, *chosen.facets]))[:LOOKED_AT]


@st.cache_data(ttl=120, show_spinner=False)
def frequent_attributes(_: str) -> list[str]:
    """Facets of the attributes that most products have, and by which a catalogue can be told apart."""
    client = api_client()
    names = client.product_facets([ATTRIBUTE_NAMES_FACET]).facets[ATTRIBUTE_NAMES_FACET].values[:LOOKED_AT]
    asked = [f"{ATTRIBUTE_FACET}{each.value}" for each in names]
    counted = client.product_facets(asked).facets if asked else {}
    return [name for name in asked if tells_apart(counted[name])][:MOST_ATTRIBUTES]


def tells_apart(facet: Facet) -> bool:
    """Neither a measure nor a name that nearly every product has another of."""
    values, shown = facet.values, sum(each.count for each in facet.values)
    is_measure = not any(isinstance(each.value, bool | str) for each in values)
    if is_measure and (len(values) > MOST_NUMBERS or facet.other):
        return False
    is_few = len(values) <= FEW_VALUES or len(values) * 2 <= shown
    return shown > facet.other and values[0].count > 1 and is_few


@st.cache_data(ttl=10, show_spinner=False)
def list_facets(_: str, text: str, status: IndexStatus | None, chosen: Chosen) -> dict[str, Facet]:
    """Of the list of products; a facet of which something is chosen as if nothing were, as a search has it."""
    client = api_client()

    def count(names: Sequence[str], chosen: Chosen) -> dict[str, Facet]:
        return client.product_facets(names, text=text, index_status=status, filters=chosen.as_filters()).facets

    names = facets_to_show(chosen)
    facets = count(names, chosen)
    for name in chosen.facets:
        facets |= count([name], chosen.without(name))
    return facets


# --- Kept in the session ---------------------------------------------------------------------------------------------


def chosen_in(place: Place) -> Chosen:
    chosen: Chosen = st.session_state.setdefault(f"{place}_filters", NOTHING_CHOSEN)
    return chosen


def choose(
    place: Place, name: str, options: Sequence[Option], on_change: Callable[[], None], hint: str | None = None
) -> Option:
    """A select box whose options are words of ours. It identifies them by their words, so each language has its own."""
    language, kept = session_language(), f"{place}_{name}_kept"
    chosen = st.selectbox(
        t(f"list_{name}"),
        options,
        index=options.index(st.session_state.get(kept, options[0])),
        format_func=lambda each: t(f"{name}_{each}"),
        key=f"{place}_{name}_{language}",
        on_change=on_change,
        help=hint,
    )
    st.session_state[kept] = chosen
    return chosen


@dataclass(frozen=True)
class FilterPanel:
    """Of one place; `on_change` is called after each change, before the page runs anew."""

    place: Place
    on_change: Callable[[], None]

    def _set(self, chosen: Chosen) -> None:
        st.session_state[f"{self.place}_filters"] = chosen
        self.on_change()

    def _tick(self, choice: Choice, key: str) -> None:
        """As the box is now: a click may come while the page runs for the one before."""
        chosen = chosen_in(self.place)
        if st.session_state[key] != (choice in chosen.choices):
            self._set(chosen.toggled(choice))

    def show_chips(self) -> None:
        chosen = chosen_in(self.place)
        if not chosen:
            return
        with st.container(horizontal=True, gap="xsmall", key=f"{self.place}_chips"):
            for choice in chosen.choices:
                label = f"{name_of(choice.facet)}: {words_of(choice.value)}"
                self._chip(label, "_".join(map(str, choice)), self._take_off, choice)
            if PRICE in chosen.facets:
                self._chip(f"{t('facet_price')}: {price_range(chosen)}", PRICE, self._take_off_prices)
            if chosen.facets != [PRICE] and chosen != Chosen(chosen.choices[:1]):
                args = (NOTHING_CHOSEN,)
                st.button(t("filters_clear"), type="tertiary", key=f"{self.place}_clear", on_click=self._set, args=args)

    def _take_off(self, choice: Choice) -> None:
        chosen = chosen_in(self.place)
        if choice in chosen.choices:  # a second click may come before the chip is gone
            self._set(chosen.toggled(choice))

    def _take_off_prices(self) -> None:
        self._set(chosen_in(self.place).without(PRICE))

    def _chip(self, label: str, key: str, take_off: Callable[..., None], *what: Choice) -> None:
        st.button(
            as_plain(label),
            icon=":material/close:",
            icon_position="right",
            help=t("filter_remove"),
            key=f"{self.place}_chip_{key}",
            on_click=take_off,
            args=what,
        )

    def show_facets(self, facets: Mapping[str, Facet]) -> None:
        """Also what is chosen and no product has; the prices at any rate, since a wrong range has no counts."""
        with st.container(key=f"{self.place}_facets", gap="small"):
            for name in dict.fromkeys([*facets, PRICE, *chosen_in(self.place).facets]):
                facet = facets.get(name, NOTHING_COUNTED)
                if name == PRICE:
                    self._show_prices(facet)
                else:
                    self._show_values(name, facet)

    def _show_values(self, name: str, facet: Facet) -> None:
        chosen = [each for each in chosen_in(self.place).choices if each.facet == name]
        counts = {Choice.of(name, value): value.count for value in facet.values}
        choices = list(dict.fromkeys([*counts, *chosen]))
        if not choices:
            return
        is_mixed = len({each.is_member for each in choices}) > 1
        at_once = [each for number, each in enumerate(choices) if number < FEW_VALUES or each in chosen]
        with st.container(key=f"{self.place}_facet_{name}", gap="xsmall"):
            st.markdown(f"**{as_plain(name_of(name))}**")
            for choice in at_once:
                self._show_value(choice, counts.get(choice, 0), is_mixed)
            behind = [each for each in choices if each not in at_once]
            if behind or facet.other:
                with st.expander(t("facet_more", count=len(behind)) if behind else t("facet_others")):
                    for choice in behind:
                        self._show_value(choice, counts[choice], is_mixed)
                    if facet.other and name == CATEGORY:
                        self._ask_for_category()
                    elif facet.other:
                        st.caption(t("facet_other", count=facet.other))

    def _show_value(self, choice: Choice, count: int, is_mixed: bool) -> None:
        key = f"{self.place}_value_{'_'.join(map(str, choice))}"
        show_as(key, choice in chosen_in(self.place).choices)
        words = words_of(choice.value)
        if is_mixed and choice.is_member:
            words = t("facet_member", value=words)
        st.checkbox(as_plain(f"{words} ({count:,})"), key=key, on_change=self._tick, args=(choice, key))

    def _ask_for_category(self) -> None:
        key = f"{self.place}_other_category"

        def take() -> None:
            wanted = Choice(CATEGORY, json.dumps(st.session_state[key].strip(), ensure_ascii=False), False)
            st.session_state[key] = ""
            chosen = chosen_in(self.place)
            if wanted.value and wanted not in chosen.choices:
                self._set(chosen.toggled(wanted))

        st.text_input(t("facet_other_category"), key=key, on_change=take, max_chars=100)

    def _show_prices(self, facet: Facet) -> None:
        chosen = chosen_in(self.place)
        with st.container(key=f"{self.place}_facet_price", gap="xsmall"):
            st.markdown(f"**{t('facet_price')}**")
            # In front of the ranges, of which there are more or fewer: a field that moves loses what is typed in it.
            with st.container(horizontal=True, wrap=False, gap="xsmall"):
                self._ask_for_price("price_min", chosen.price_min)
                self._ask_for_price("price_max", chosen.price_max)
            for each in facet.ranges:
                lowest, highest = float(each.min), float(each.max)
                key = f"{self.place}_value_price_{each.min}"
                show_as(key, (chosen.price_min, chosen.price_max) == (lowest, highest))
                label = f"{lowest:,.0f} – {highest:,.2f} ({each.count:,})"
                st.checkbox(as_plain(label), key=key, on_change=self._tick_prices, args=(lowest, highest, key))

    def _tick_prices(self, lowest: float, highest: float, key: str) -> None:
        """One range at a time: a filter has one."""
        others = chosen_in(self.place).without(PRICE)
        self._set(replace(others, price_min=lowest, price_max=highest) if st.session_state[key] else others)

    def _ask_for_price(self, end: Literal["price_min", "price_max"], price: float | None) -> None:
        key = f"{self.place}_{end}"
        show_as(key, price)

        def take() -> None:
            self._set(replace(chosen_in(self.place), **{end: st.session_state[key]}))

        st.number_input(t(end), min_value=0.0, value=None, step=10.0, format="%.2f", key=key, on_change=take)


def show_as(key: str, value: object) -> None:
    """A widget, which is told only of what is new to it: else it would take back a click that comes meanwhile."""
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


# --- Words -----------------------------------------------------------------------------------------------------------


def name_of(facet: str) -> str:
    return t(f"facet_{facet}") if facet in BASIC_FACETS else facet.removeprefix(ATTRIBUTE_FACET)


def price_range(chosen: Chosen) -> str:
    if chosen.price_min is None:
        return f"≤ {chosen.price_max:,.2f}"
    if chosen.price_max is None:
        return f"≥ {chosen.price_min:,.2f}"
    return f"{chosen.price_min:,.2f} – {chosen.price_max:,.2f}"
