# The gateway as a container: one worker, no root, nothing in it that it does not need.

# deploy/images.env pins it by its digest: docker compose --env-file .env --env-file deploy/images.env build, or
# docker build --build-arg with that file's line.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS base

FROM base AS build
# Where pip looks for packages, if not at its default: docker build --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
# The environment gets no pip of its own: the one of this stage fills it.
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt /tmp/requirements.txt
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes \
        --only-binary :all: -r /tmp/requirements.txt
WORKDIR /srv/gateway
COPY main.py LICENSE ./
COPY app ./app
COPY simulator ./simulator
# Compiled here, because nothing can be written where it runs; and never compared with the source, which can't change.
RUN python -m compileall -q --invalidation-mode unchecked-hash main.py app simulator && chmod -R a+rX .

FROM base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="kimi-ai-2api" \
      org.opencontainers.image.description="The Kimi web chat as the OpenAI API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 gateway && \
    useradd --uid 10001 --gid gateway --no-create-home --home-dir /srv/gateway --shell /usr/sbin/nologin gateway
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/gateway /srv/gateway
# Keys and the ledger: the only folder that is written to.
RUN mkdir /srv/gateway/data && chown 10001:10001 /srv/gateway/data
WORKDIR /srv/gateway
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    API_HOST=0.0.0.0 \
    API_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['API_PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "main.py", "serve"]
