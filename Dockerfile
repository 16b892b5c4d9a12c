# The image of docker-compose.yml: Python, Java 17, recsys with its pinned packages. Nothing in it runs as root.
FROM python:3.11.9-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 recsys \
    && mkdir -p /data/events /data/runs \
    && chown -R recsys:recsys /data

WORKDIR /opt/recsys
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY recsys recsys
RUN pip install --no-cache-dir -c constraints.txt '.[spark,serve]'
COPY jobs jobs
COPY configs configs

ENV PYSPARK_PYTHON=python3.11 \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONUNBUFFERED=1
USER recsys
WORKDIR /data
