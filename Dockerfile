# syntax=docker/dockerfile:1
# One image for all programs: `start SERVICE`, `serve MODEL@ALIAS`, `up`, and the commands of the client.

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
# uv too is the one that the lock names, by its hashes.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > /tmp/uv.txt \
    && pip install --no-cache-dir --require-hashes --no-deps -r /tmp/uv.txt
COPY pyproject.toml LICENSE CHANGELOG.md ./
COPY docs/package.md ./docs/package.md
COPY client ./client
COPY eventstore ./eventstore
COPY services ./services
# What the two distributions need, in the locked versions: a file whose hash is not in the lock is refused.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --python /usr/local/bin/python3 /opt/rollforward \
    && uv pip install --python /opt/rollforward/bin/python --link-mode copy --compile-bytecode --no-editable \
        --constraints requirements.lock --build-constraints requirements.lock "./client[cli]" ".[postgres,sklearn]"

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/rollforward --shell /usr/sbin/nologin rollforward
COPY --from=build /opt/rollforward /opt/rollforward
# In a container the loopback address is of no use to anyone outside.
ENV PATH=/opt/rollforward/bin:$PATH \
    ROLLFORWARD_DATA=/var/lib/rollforward/data \
    ROLLFORWARD_GRPC=0.0.0.0:50051 \
    ROLLFORWARD_HTTP=0.0.0.0:8080
USER 10001:10001
WORKDIR /var/lib/rollforward
EXPOSE 50051 8080 9000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=3)"]
ENTRYPOINT ["rollforward"]
