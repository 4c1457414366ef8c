"""Import: a file of products, with its pictures, goes up; how far it is and what is wrong with its rows comes back."""

from typing import get_args

import streamlit as st

from data_models import ENDED, ImportJob, ImportMode
from web.cards import api_client, show_error, show_page_head
from web.client import ApiError
from web.frame import run_page
from web.import_report import first_rows
from web.product_form import forget_what_is_known
from web.texts import IMPORT_COLUMNS, IMPORT_TEMPLATES, session_language, t

LARGEST_MB = 500  # which the pages' process holds in memory; for larger ones there is `cli.py import`
KINDS = ["csv", "tsv", "txt", "xlsx", "jsonl", "ndjson", "json", "zip"]
JOB_KEY = "import_job"
WATCH_EVERY_S = 1
ROWS_SHOWN = 100
COUNTS = ("created", "updated", "unchanged", "failed")


def show_import() -> None:
    show_page_head(t("page_import_products"), t("import_intro"))
    explain_columns()
    ask_for_file()
    if JOB_KEY in st.session_state:
        show_job()


def ask_for_file() -> None:
    with st.form("import_form", border=True):
        file = st.file_uploader(t("import_file"), type=KINDS, max_upload_size=LARGEST_MB, help=t("import_file_help"))
        modes: tuple[ImportMode, ...] = get_args(ImportMode)
        mode = st.radio(
            t("import_mode"), modes, format_func=lambda each: t(f"import_mode_{each}"), key=of_language("mode")
        )
        percent = st.number_input(
            t("import_allow_deletes"), 0.0, 100.0, value=None, format="%g", help=t("import_allow_deletes_help")
        )
        mask = st.checkbox(t("import_mask"))
        dry_run = st.checkbox(t("import_dry_run"))
        wants = st.form_submit_button(t("import_start"), type="primary", icon=":material/upload:")
    if not wants:
        return
    if file is None:
        st.warning(t("import_no_file"), icon=":material/attach_file:")
        return
    try:
        with st.spinner(t("import_sending")):
            options = {"mask_personal_data": mask, "dry_run": dry_run}
            job = api_client().import_file(file.name, file, mode, **options, allow_deletes_percent=percent)
    except ApiError as error:
        show_error(error)
        return
    st.session_state[JOB_KEY] = job.job_id


def of_language(name: str) -> str:
    """Options are known by their words, so each language has a widget of its own."""
    return f"import_{name}_{session_language()}"


def show_job() -> None:
    job = api_client().import_job(st.session_state[JOB_KEY])
    if job.status in ENDED:
        show_progress(job)
        show_report(job)
    else:
        st.fragment(watch, run_every=WATCH_EVERY_S)()


def watch() -> None:
    try:
        job = api_client().import_job(st.session_state[JOB_KEY])
        show_progress(job)
        if job.status in ENDED:
            forget_what_is_known()
            st.rerun()
        if st.button(t("cancel"), icon=":material/close:", key="import_cancel"):
            api_client().cancel_import(job.job_id)
    except ApiError as error:
        show_error(error)


def show_progress(job: ImportJob) -> None:
    st.subheader(job.file_name, anchor=False)
    share = 1.0 if job.status == "done" else job.progress
    rate = f" · {t('import_rate', rows=round(job.rows_per_s))}" if job.rows_per_s else ""
    st.progress(share, text=f"{t(f'import_{job.status}')} · {t('import_rows', rows=job.rows)}{rate}")
    for name, column in zip(COUNTS, st.columns(len(COUNTS), wrap=False), strict=True):
        column.metric(t(f"import_{name}"), f"{getattr(job, name):,}")


def show_report(job: ImportJob) -> None:
    if job.error:
        st.error(job.error, icon=":material/error:")
    if job.dry_run:
        st.info(t("import_was_dry"), icon=":material/visibility:")
    if job.mode == "replace_all":
        show_deletions(job)
    if job.failed or job.warnings:
        st.warning(t("import_look", failed=job.failed, warnings=job.warnings), icon=":material/rule:")
        report = api_client().import_errors(job.job_id)
        st.download_button(
            t("import_report"),
            report,
            file_name=f"import-{job.job_id}-errors.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.dataframe(first_rows(report, ROWS_SHOWN), hide_index=True)
    elif job.status == "done":
        st.success(t("import_would_fit" if job.dry_run else "import_all_in"), icon=":material/check_circle:")
    with st.expander(t("import_columns")):
        st.table([{t("import_column"): name, t("import_meaning"): meaning} for name, meaning in job.columns.items()])


def show_deletions(job: ImportJob) -> None:
    said = []
    if job.deleted or not job.error:
        said.append(t("import_would_delete" if job.dry_run else "import_deleted", count=job.deleted))
    if job.deletes_allowed is not None:
        said.append(t("import_may_delete", count=job.deletes_allowed))
    if said:
        st.write(" ".join(said))


def explain_columns() -> None:
    language = session_language()
    with st.expander(t("import_help"), icon=":material/table:"):
        columns = [
            {t("import_column"): name, t("import_meaning"): meaning} for name, meaning in IMPORT_COLUMNS[language]
        ]
        st.table(columns)
        st.download_button(
            t("import_template"),
            IMPORT_TEMPLATES[language].encode("utf-8-sig"),  # with the mark by which a spreadsheet knows UTF-8
            file_name=t("import_template_name"),
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )


run_page(show_import)
