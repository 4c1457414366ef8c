"""The five search pages: ask for the query and its options, search, show the hits and fetch more of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import streamlit as st

from data_models import Product, SearchFacets, SearchMode, SearchSort, Understood
from web.cards import (
    PICTURE_TYPES,
    api_client,
    as_plain,
    load_thumbnails,
    show_error,
    show_hit_grid,
    show_hit_list,
    show_page_head,
    uploaded_picture,
)
from web.client import ApiError
from web.filters import FilterPanel, choose, chosen_in, facets_to_show
from web.frame import run_page
from web.reasons import reasons_of
from web.results import DEFAULT_TOP_K, Query, Results
from web.texts import EXAMPLE_QUERIES, t

Source = Literal["upload", "product"]
View = Literal["grid", "list"]

SORTS: dict[str, SearchSort | None] = {
    "relevance": None,
    "price_up": "price",
    "price_down": "-price",
    "newest": "-created_at",
}
# Offered at once to choose from; any other product is found by its title or sku.
CHOICES = 50
MOST_WORDS = 500  # characters, as of any query


def show_search_page(mode: SearchMode) -> None:
    run_page(lambda: _show_search_page(mode))


def _show_search_page(mode: SearchMode) -> None:
    show_page_head(t(f"page_{mode.value}"), t(f"ask_{mode.value}"))
    given = _ask_for_picture(mode) if mode.query_is_image else _ask_for_text(mode)
    if given is not None and mode is SearchMode.IMAGE_TO_IMAGE:
        given = replace(given, words=_ask_for_words())
    view, top_k = _ask_for_options(mode)
    if given is None:
        return
    panel = FilterPanel("search", on_change=lambda: None)
    beside, main = st.columns([1, 3], gap="medium")
    with main:
        sort, by_group, fold = _ask_for_order()
        panel.show_chips()
        query = replace(given, top_k=top_k, chosen=chosen_in("search"), sort=sort, by_group=by_group, fold=fold)
        results = _results_of(query)
    with beside:  # before the hits, which on a phone stand below
        _show_facets(panel, results.facets if results is not None else None)
    if results is not None:
        with main:
            _show_results(results, view)


# --- Asking ----------------------------------------------------------------------------------------------------------


def _ask_for_text(mode: SearchMode) -> Query | None:
    key, example_key = f"{mode.value}_text", f"{mode.value}_example"

    def take_example() -> None:
        st.session_state[key] = st.session_state[example_key]
        st.session_state[example_key] = None  # so that the same one can be clicked again

    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            t("query_text"), key=key, placeholder=t("query_text_placeholder"), persist_state="session"
        ).strip()
        if st.button(t("search"), type="primary", icon=":material/search:"):
            _forget_results(mode)  # asked again on purpose: the catalogue may have changed
    st.pills(t("examples"), EXAMPLE_QUERIES, key=example_key, on_change=take_example)
    return Query(mode, text=text) if text else None


def _ask_for_picture(mode: SearchMode) -> Query | None:
    source_key, product_key = f"{mode.value}_source", f"{mode.value}_product"
    _follow_address(source_key, product_key)

    def put_into_address() -> None:
        """The address names the product that is shown, for links, bookmarks and the browser's Back."""
        chosen = st.session_state.get(product_key)
        if st.session_state[source_key] == "product" and chosen is not None:
            st.query_params["product_id"] = str(chosen)
            st.session_state[f"{source_key}_address"] = str(chosen)
        else:
            st.query_params.pop("product_id", None)

    sources: tuple[Source, ...] = ("upload", "product")
    source = st.segmented_control(
        t("query_source"),
        sources,
        default=None if source_key in st.session_state else "upload",
        format_func=lambda each: t(f"source_{each}"),
        required=True,
        key=source_key,
        on_change=put_into_address,
    )
    if source == "product":
        return _ask_for_product(mode, product_key, put_into_address)
    return _ask_for_upload(mode)


def _ask_for_words() -> str:
    return st.text_input(
        t("query_words"), key="query_words", placeholder=t("query_words_placeholder"), max_chars=MOST_WORDS
    ).strip()


def _follow_address(source_key: str, product_key: str) -> None:
    """A link with ?product_id= chooses that product, once; from then on the widgets lead."""
    seen_key = f"{source_key}_address"
    wanted = st.query_params.get("product_id", "")
    if not wanted.isdecimal():
        st.session_state.pop(seen_key, None)
    elif st.session_state.get(seen_key) != wanted:
        st.query_params["product_id"] = wanted  # a link from this page to itself reaches us, but not the address bar
        st.session_state[seen_key] = wanted
        st.session_state[source_key] = "product"
        st.session_state[product_key] = int(wanted)


def _ask_for_upload(mode: SearchMode) -> Query | None:
    upload = st.file_uploader(t("upload_picture"), type=PICTURE_TYPES, key=f"{mode.value}_upload")
    if upload is None:
        return None
    data = upload.getvalue()
    if picture := uploaded_picture(data):
        with st.container(horizontal=True, vertical_alignment="center", key="query_picture"):
            st.image(picture, width=120, alt=upload.name)
            st.text(t("query_is_upload"), width="content")
    return Query(mode, image=data)


def _ask_for_product(mode: SearchMode, key: str, on_change: Callable[[], None]) -> Query | None:
    chosen = st.session_state.get(key)
    finding, choosing = st.columns([1, 2])
    wanted = finding.text_input(t("find_product"), key=f"{key}_find").strip()
    titles = {product.product_id: product.title for product in _offered_products(wanted)}
    product = api_client().product(chosen) if chosen is not None else None
    if product is not None:
        titles[product.product_id] = product.title
    product_id = choosing.selectbox(
        t("choose_product"),
        list(titles),
        index=None,
        format_func=lambda each: f"{titles.get(each, '')} (#{each})",
        placeholder=t("choose_product_placeholder"),
        key=key,
        on_change=on_change,
    )
    if product is None or product_id is None:
        return None
    with st.container(horizontal=True, vertical_alignment="center", key="query_picture"):
        st.image(load_thumbnails([product])[0], width=120, alt=product.title)
        st.text(t("query_is_product", title=product.title), width="content")
    return Query(mode, product_id=product_id)


def _offered_products(wanted: str) -> list[Product]:
    return api_client().list_products(page_size=CHOICES, text=wanted).items


def _ask_for_options(mode: SearchMode) -> tuple[View, int]:
    """The number stays as it is from one search page to the next, as filters and order do; the view is each page's."""
    with st.expander(t("options"), icon=":material/tune:"):
        views: tuple[View, ...] = ("grid", "list")
        number, look = st.columns([3, 2], gap="large")
        top_k = number.slider(t("top_k"), 1, 100, DEFAULT_TOP_K, key="top_k", persist_state="session")
        view: View = look.segmented_control(
            t("view"),
            views,
            default="list" if mode.finds_titles else "grid",
            format_func=lambda each: t(f"view_{each}"),
            required=True,
            key=f"{mode.value}_view",
            persist_state="session",
        )
    return view, top_k


def _ask_for_order() -> tuple[SearchSort | None, bool, bool]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        with st.container(width=220):
            sort = choose("search", "sort", list(SORTS), lambda: None, t("search_sort_help"))
        by_group = st.toggle(t("by_group"), key="by_group", help=t("by_group_help"), persist_state="session")
        fold = st.toggle(t("fold"), key="fold", help=t("fold_help"), persist_state="session")
    return SORTS[sort], by_group, fold


# --- Answering -------------------------------------------------------------------------------------------------------


def _results_of(query: Query) -> Results | None:
    """Kept in the session, so that a switch of language or view does not search again. None once the API refused."""
    results: Results | None = st.session_state.get(_results_key(query.mode))
    if results is not None and results.query == query:
        return results
    results = Results(query)
    try:
        results.fetch(api_client(), facets_to_show(query.chosen))
    except ApiError as error:
        show_error(error)
        return None
    if results.hits:  # nothing found may be something found a moment later, once it is indexed
        st.session_state[_results_key(query.mode)] = results
    return results


def _forget_results(mode: SearchMode) -> None:
    st.session_state.pop(_results_key(mode), None)


def _results_key(mode: SearchMode) -> str:
    return f"{mode.value}_results"


def _show_results(results: Results, view: View) -> None:
    if not results.hits:
        _explain_no_hits(results.query)
        return
    if results.nothing_fits and not _nearest_are_wanted(results):
        return
    _show_summary(results)
    offer_reasons = reasons_of(results.query, results.as_of)
    if view == "grid":
        show_hit_grid(results.hits, offer_more=offer_reasons)
    else:
        show_hit_list(results.hits, offer_reasons)
    if results.is_complete:
        st.caption(t("no_more_results"), text_alignment="center")
    elif st.button(t("more_results"), icon=":material/expand_more:", width="stretch"):
        try:
            results.fetch_more(api_client())
        except ApiError as error:
            show_error(error)
        else:
            st.rerun()


def _nearest_are_wanted(results: Results) -> bool:
    """Says that nothing fits, and asks whether what is nearest shall be shown all the same."""
    key = f"{results.query.mode.value}_nearest_of"

    def want() -> None:
        st.session_state[key] = results.query

    st.info(t("nothing_fits"), icon=":material/search_off:")
    if st.session_state.get(key) == results.query:
        return True
    label = t("show_nearest", count=len(results.hits))
    st.button(label, icon=":material/expand_more:", on_click=want)
    return False


def _show_facets(panel: FilterPanel, facets: SearchFacets | None) -> None:
    """None: the search was refused, perhaps because of what is chosen here."""
    if facets is not None and facets.candidates:
        st.caption(t("facets_of_all" if facets.are_all else "facets_of_nearest", count=facets.candidates))
    elif not chosen_in("search"):
        return
    panel.show_facets(facets.counts if facets is not None else {})


def _show_summary(results: Results) -> None:
    took = results.took_ms
    assert took is not None, "hits came with their times"
    steps = t("results_steps", encode=took.encode, vector=took.vector, metadata=took.metadata)
    st.caption(t("results", count=len(results.hits), total=took.total), help=steps)
    if results.understood is not None:
        _show_understood(results.understood)


def _show_understood(understood: Understood) -> None:
    """What moved products beside their meaning, so that a word that was taken for another is seen."""
    wanted = t("word_separator").join(as_plain(each.word) for each in understood.attributes)
    unwanted = t("word_separator").join(map(as_plain, understood.without))
    preferred = [t("understood_wanted", words=wanted)] if wanted else []
    st.caption(" · ".join([*preferred, *([t("understood_unwanted", words=unwanted)] if unwanted else [])]))


def _explain_no_hits(query: Query) -> None:
    client = api_client()
    if client.list_products(page_size=1).total == 0:
        st.info(t("no_hits_empty"), icon=":material/inventory_2:")
        st.page_link("pages/manage_products.py", label=t("add_product"), icon=":material/add:")
    elif pending := client.list_products(page_size=1, index_status="pending").total:
        st.info(t("no_hits_pending", count=pending), icon=":material/hourglass_top:")
    elif query.chosen:
        st.info(t("no_hits_filtered"), icon=":material/filter_alt:")
    else:
        st.info(t("no_hits"), icon=":material/search_off:")
