# The one image of Shallop: app, Dagster code location, web server and daemon differ by command.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# `cpu` takes torch from PyTorch's CPU index where it answers, `cuda` from the default index.
ARG TORCH=cpu

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# Training and the collector compile their inner loops for the processor that they find
# (warehouse/compiled.py).
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ > /dev/null \
    && rm -rf /var/lib/apt/lists/*

# What changes rarely first: the dependencies are one layer, kept until a pin moves.
COPY pyproject.toml constraints.txt torch_index.py ./
RUN index=$([ "$TORCH" = cuda ] || python3 torch_index.py) \
    && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /tmp/requirements.txt \
    && python3 -m pip install --constraint constraints.txt ${index:+--extra-index-url "$index"} \
        --requirement /tmp/requirements.txt

COPY . .
RUN python3 -m pip install --no-deps --editable .

# One unprivileged user; the folders exist with its ownership so that named volumes inherit it.
RUN groupadd --gid 10001 shallop && useradd --uid 10001 --gid shallop --create-home shallop \
    && mkdir -p /var/lib/shallop /var/lib/dagster \
    && chown shallop:shallop /var/lib/shallop /var/lib/dagster
ENV SHALLOP_HOME=/var/lib/shallop \
    SHALLOP_DAGSTER_HOME=/var/lib/dagster \
    DAGSTER_HOME=/var/lib/dagster
COPY --chown=shallop:shallop assets/dagster-compose.yaml /var/lib/dagster/dagster.yaml
USER shallop

EXPOSE 8000
CMD ["shallop", "serve", "--host", "0.0.0.0"]
