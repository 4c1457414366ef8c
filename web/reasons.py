"""Why a hit is one, asked for when somebody wants to know: it takes the models seconds."""

import base64
from collections.abc import Callable
from datetime import datetime

import streamlit as st

from data_models import Explanation, SearchHit
from web.cards import api_client, as_plain, show_error
from web.client import ApiError
from web.results import Query, search
from web.texts import t


def reasons_of(query: Query, as_of: datetime | None) -> Callable[[SearchHit], None]:
    """`as_of`: of the answer that had the hits."""

    def offer(hit: SearchHit) -> None:
        if st.button(t("why"), icon=":material/help:", type="tertiary", key=f"why_{hit.rank}"):
            st.dialog(t("why_title", title=as_plain(hit.product.title)), width="medium")(
                lambda: _show(query, as_of, hit)
            )()

    return offer


def _show(query: Query, as_of: datetime | None, hit: SearchHit) -> None:
    try:
        with st.spinner(t("why_asking")):
            answer = search(api_client(), query, top_k=1, offset=hit.rank - 1, facets=[], as_of=as_of, explain=True)
    except ApiError as error:
        show_error(error)
        return
    if [each.product.product_id for each in answer.hits] != [hit.product.product_id]:
        st.info(t("why_changed"), icon=":material/refresh:")
        return
    [explained] = answer.hits
    assert explained.explanation is not None, "it was asked for"
    _show_ways(explained.explanation)
    if explained.boosted_score is not None:
        st.caption(t("why_boosted", score=explained.boosted_score))
    if explained.matched_words:
        st.caption(t("matched_words", words=t("word_separator").join(map(as_plain, explained.matched_words))))
    if explained.relevance is not None:
        st.caption(t("why_relevance", percent=round(explained.relevance * 100)))
    _show_map(explained.explanation, is_missing="relevance_maps" in answer.missing)


def _show_ways(explanation: Explanation) -> None:
    if not explanation.ways:
        st.caption(t("why_behind"))
        return
    st.table(
        [
            {
                t("why_way"): t(f"way_{each.way}"),
                t("why_rank"): str(each.rank),
                t("why_score"): "–" if each.score is None else f"{each.score:.3f}",
                t("why_share"): f"{each.share:.3f}",
            }
            for each in explanation.ways
        ]
    )


def _show_map(explanation: Explanation, *, is_missing: bool) -> None:
    shown = explanation.relevance_map
    if shown is not None:
        st.image(base64.b64decode(shown.png_base64), width=320, alt=t("why_map"))
        st.caption(t("why_map"))
    elif is_missing:
        st.caption(t("why_no_map"))
