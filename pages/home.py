"""Home: what this is, how much is in it, and whether all its parts are up."""

from typing import Literal

import streamlit as st

from data_models import Health
from web.cards import api_client, as_plain, show_facts
from web.frame import PAGES, run_page
from web.texts import t

BADGE_COLORS: dict[str, Literal["green", "orange", "red"]] = {"ok": "green", "degraded": "orange", "down": "red"}


def show_home() -> None:
    st.title(t("home_title"), anchor=False)
    st.write(t("home_intro"))
    health = api_client().health()
    if health.demo_models:
        st.info(f"{t('demo_models_banner')}\n\n{t('demo_models_how_to_switch')}", icon=":material/science:")
    show_pages()
    show_counts()
    show_health(health)


def show_pages() -> None:
    with st.container(border=True, gap="xsmall"):
        for page in PAGES:
            st.page_link(page.file, label=f"**{t(f'page_{page.name}')}**  :gray[{t(f'home_{page.name}')}]")


def show_counts() -> None:
    client = api_client()
    total, pending, failed = st.columns(3, wrap=False)
    total.metric(t("products_total"), f"{client.list_products(page_size=1).total:,}")
    waiting = client.list_products(page_size=1, index_status="pending").total
    pending.metric(t("products_pending"), f"{waiting:,}")
    failures = client.list_products(page_size=1, index_status="failed").total
    failed.metric(t("products_failed"), f"{failures:,}")


def show_health(health: Health) -> None:
    st.subheader(t("health_title"), anchor=False)
    if health.status == "ok":
        st.success(t("health_ok"), icon=":material/check_circle:")
    else:
        st.error(t("health_degraded"), icon=":material/error:")
    with st.container(border=True, gap="xsmall"):
        for name, component in health.components:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.badge(t(f"component_{component.status}"), color=BADGE_COLORS[component.status])
                st.markdown(t(f"component_{name}"), width="content")
                if component.detail:
                    st.caption(as_plain(component.detail), width="content")
    facts = {t("fact_api"): api_client().address}
    if health.version is not None:
        facts[t("fact_version")] = health.version
    if health.index is not None:
        facts |= {t("fact_index"): health.index.collection, t("fact_models"): health.index.model}
    show_facts(facts)


run_page(show_home)
