# Two images; docker-compose.yml chooses what each container runs. `web` has the pages, and none of the models'
# libraries; `app`, the default, has everything: the API, the workers and the command line.
FROM python:3.11-slim-bookworm AS base

WORKDIR /app

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMLIT_BROWSER_GATHER_USAGE_STATS=false

RUN useradd --uid 10001 --user-group --create-home tuwen

ENTRYPOINT ["/app/deploy/entrypoint.sh"]


FROM base AS web

# pip reads it by itself: --build-arg PIP_INDEX_URL=... chooses a mirror.
ARG PIP_INDEX_URL=https://pypi.org/simple

# Before the code, so that a change of the code builds in seconds.
COPY requirements-web.txt constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements-web.txt -c constraints.txt

# The pages speak to the API over HTTP alone: of the service's code they share the settings and the data models.
COPY .streamlit/ .streamlit/
COPY deploy/ deploy/
COPY pages/ pages/
COPY web/ web/
COPY clients/__init__.py clients/patience.py clients/
COPY tuwen/__init__.py tuwen/errors.py tuwen/limit_settings.py tuwen/settings.py tuwen/texts.py tuwen/
COPY data_models.py web_demo.py ./

USER 10001:10001
EXPOSE 6006

CMD ["streamlit", "run", "web_demo.py", "--server.port=6006", "--server.address=0.0.0.0", "--server.headless=true"]


FROM base AS app

# PyPI's torch for x86-64 Linux brings 4 GB of CUDA. PyTorch's own index has the same version as a CPU build
# (2.13.0+cpu), which fits the pin and which pip prefers as the higher of the two. For a GPU build, pass an empty
# PIP_EXTRA_INDEX_URL. pip reads both of these by itself, like the one above.
ARG PIP_INDEX_URL=https://pypi.org/simple
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

COPY requirements.txt requirements-web.txt requirements-int8.txt requirements-redis.txt constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt -r requirements-int8.txt -r requirements-redis.txt -c constraints.txt

# A volume that is first mounted on one of these takes over its owner, so that the process may write there.
RUN install -d -o tuwen -g tuwen /data /keys

COPY . .

# Models from a hub are kept on the volume, too: they are fetched once.
ENV DATA_DIR=/data \
    HF_HOME=/data/huggingface \
    MODELSCOPE_CACHE=/data/modelscope

USER 10001:10001
EXPOSE 8000 6006

CMD ["fastapi", "run", "main.py", "--host", "0.0.0.0", "--port", "8000", "--no-proxy-headers"]
