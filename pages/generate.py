"""A5: draw pictures for a title, watch them come, see which products look like them, keep one as a product."""

import streamlit as st

from data_models import ENDED, GeneratedImage, GenerateRequest, GenerationJob, SearchHit
from web.cards import api_client, as_plain, show_error, show_hit_grid, show_page_head
from web.client import ApiError
from web.frame import run_page
from web.product_form import forget_what_is_known, show_now, wait_until_indexed, with_duplicates
from web.texts import EXAMPLE_PROMPTS, t

REFRESH_S = 0.5
PROMPT_KEY, EXAMPLE_KEY, JOB_KEY = "generate_prompt", "generate_example", "generate_job"


def show_generate() -> None:
    show_page_head(t("page_generate"), t("ask_generate"))
    request = ask_for_request()
    if request is not None:
        try:
            # Kept before the address is changed: what is clicked meanwhile runs the page anew with the address before.
            st.session_state[JOB_KEY] = str(api_client().generate(request).job_id)
            st.query_params["job_id"] = st.session_state[JOB_KEY]
        except ApiError as error:
            show_error(error)
    # The address names the job, so that reloading the page or sharing the link shows it again.
    wanted = st.query_params.get("job_id") or st.session_state.get(JOB_KEY, "")
    if wanted.isdecimal():
        show_job(int(wanted))


def ask_for_request() -> GenerateRequest | None:
    """What the button sent; unchecked, for the API to refuse in its words."""

    def take_example() -> None:
        st.session_state[PROMPT_KEY] = st.session_state[EXAMPLE_KEY]
        st.session_state[EXAMPLE_KEY] = None  # so that the same one can be clicked again

    st.pills(t("examples"), EXAMPLE_PROMPTS, key=EXAMPLE_KEY, on_change=take_example)
    with st.form("generate_form", border=False):  # all at once, or a field that is left runs the page under the click
        prompt = st.text_area(t("prompt"), key=PROMPT_KEY, placeholder=t("prompt_placeholder"), height=80).strip()
        with st.expander(t("generate_options"), icon=":material/tune:"):
            left, middle, right = st.columns(3)
            num_images = left.slider(t("num_images"), 1, 4, 1, key="generate_num_images")
            seed = left.number_input(t("seed"), 0, 2**32 - 1, None, key="generate_seed", help=t("seed_help"))
            width = middle.number_input(t("width"), 64, None, None, 8, key="generate_width", help=t("model_default"))
            height = middle.number_input(t("height"), 64, None, None, 8, key="generate_height")
            steps = right.number_input(t("steps"), 1, None, None, key="generate_steps", help=t("model_default"))
            guidance = right.number_input(t("guidance"), 0.0, None, None, 0.5, key="generate_guidance")
            negative_prompt = st.text_input(t("negative_prompt"), key="generate_negative_prompt").strip()
        wants = st.form_submit_button(t("draw"), type="primary", icon=":material/brush:")
    if not wants:
        return None
    return GenerateRequest.model_construct(
        prompt=prompt,
        negative_prompt=negative_prompt or None,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        seed=seed,
        num_images=num_images,
    )


def show_job(job_id: int) -> None:
    job = api_client().generation(job_id)
    st.subheader(as_plain(job.prompt), anchor=False)
    if job.status not in ENDED:
        follow(job_id)
    elif job.status == "done":
        for image in job.images:
            show_image(job, image)
    elif job.status == "failed":
        st.error(as_plain(job.error or ""), icon=":material/error:")
    else:
        st.warning(t("job_cancelled"))


@st.fragment(run_every=REFRESH_S)
def follow(job_id: int) -> None:
    """The live part of the page; the whole page runs once more when the job has ended."""
    try:
        job = api_client().generation(job_id)
        if job.status in ENDED:
            st.rerun()
        if job.status == "queued":
            st.progress(0.0, t("job_queued", jobs_before=job.jobs_before))
        else:
            st.progress(job.progress, t("job_running", percent=round(job.progress * 100)))
        if st.button(t("cancel"), icon=":material/cancel:", key="generate_cancel"):
            api_client().cancel_generation(job_id)
            st.rerun()
    except ApiError as error:
        show_error(error)


def show_image(job: GenerationJob, image: GeneratedImage) -> None:
    with st.container(border=True, key=f"generated_{image.image_id}"):
        drawn, similar = st.columns([2, 3], gap="large")
        with drawn:
            # Small pictures are shown larger: the demo model draws 128 pixels.
            st.image(api_client().image(image.image_url), width=384, alt=job.prompt)
            st.caption(t("image_facts", seed=image.seed, agreement=image.agreement))
            save_as_product(job, image)
        with similar:
            st.markdown(f"**{t('similar_products')}**")
            show_similar(image)


def show_similar(image: GeneratedImage) -> None:
    if image.similar is None:
        st.warning(t("similar_unknown"), icon=":material/cloud_off:")
        return
    hits = [
        SearchHit(rank=rank, score=each.score, product=each.product, image=each.image)
        for rank, each in enumerate(image.similar, start=1)
    ]
    show_hit_grid(hits, key=f"similar_{image.image_id}")


def save_as_product(job: GenerationJob, image: GeneratedImage) -> None:
    with st.expander(t("save_as_product"), icon=":material/inventory_2:"), st.form(f"save_{image.image_id}"):
        title = st.text_input(t("field_title"), job.prompt[:500], max_chars=500, key=f"save_title_{image.image_id}")
        category = st.text_input(t("field_category"), max_chars=100, key=f"save_category_{image.image_id}")
        if not st.form_submit_button(t("save_product"), type="primary"):
            return
    fields = {"title": title.strip(), "category": category.strip(), "generated_image_id": str(image.image_id)}
    try:
        product = api_client().create_product(fields, None)
        message = with_duplicates(wait_until_indexed(product.product_id), product)
    except ApiError as error:
        show_error(error)
        return
    forget_what_is_known()
    show_now(message)
    query = {"product_id": str(product.product_id)}
    st.page_link("pages/edit_product.py", label=t("details"), icon=":material/edit:", query_params=query)


run_page(show_generate)
