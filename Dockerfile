# One image for the API, the worker, the pages and the command line; docker-compose.yml chooses the command.
FROM python:3.11-slim

# PyPI's torch for x86-64 Linux brings 4 GB of CUDA. PyTorch's own index has the same version as a CPU build
# (2.13.0+cpu), which pip prefers as the higher of the two. For a GPU build, pass an empty PIP_EXTRA_INDEX_URL.
# pip reads both of these by itself: --build-arg PIP_INDEX_URL=... chooses a mirror.
ARG PIP_INDEX_URL=https://pypi.org/simple
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

WORKDIR /app

# Before the code, so that a change of the code builds in seconds.
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

# A volume that is first mounted on /data takes over its owner, so that the process may write there.
RUN useradd --uid 10001 --user-group --create-home tuwen && install -d -o tuwen -g tuwen /data

COPY . .

# Models from a hub are kept on the volume, too: they are fetched once.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data \
    HF_HOME=/data/huggingface \
    MODELSCOPE_CACHE=/data/modelscope \
    STREAMLIT_BROWSER_GATHER_USAGE_STATS=false

USER 10001:10001
EXPOSE 8000 6006

ENTRYPOINT ["/app/deploy/entrypoint.sh"]
CMD ["fastapi", "run", "main.py", "--host", "0.0.0.0", "--port", "8000"]
