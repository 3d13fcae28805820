# The images of MLC-LLM: base -> development -> builder -> production.
#
# Only features of the frontend that is built into BuildKit are used, so no "syntax" line
# fetches another one. Layers go from what changes least to what changes most: changing
# Python sources rebuilds no system layer.
#
# Build arguments
#   BASE_IMAGE      another base (a mirror, a stand-in) instead of the pinned one below
#   CMAKE_VERSION   minimum version of CMake in the development image
# Build secrets (optional): mounted for the steps that need them, without a trace in a layer
#   ca-certificates a certificate bundle that pip and git trust during the build
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS
#                   where what the wheel requires comes from, if not from PyPI
# Named context (optional)
#   wheels          a folder with the wheel that the production image installs, and its
#                   requirements.txt; without it the stand-in under package/ is built

ARG BASE_IMAGE=pinned-base

# Here, and nowhere else, a bot updates the base: by tag and by digest.
FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS pinned-base

# --- base: what every image has: Python, and an init that forwards signals -------------
FROM ${BASE_IMAGE} AS base
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1
# Debian keeps one version of a package at a time: a pin would break with each update.
# hadolint ignore=DL3008
RUN --mount=type=cache,id=mlc-base-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=mlc-base-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -f /var/log/dpkg.log /var/log/apt/*.log /var/log/alternatives.log
ENTRYPOINT ["/usr/bin/tini", "-g", "--", "python3", "/usr/local/lib/mlc/entrypoint.py"]
CMD ["help"]

# --- development: all that building MLC-LLM from source takes --------------------------
FROM base AS development
# hadolint ignore=DL3008
RUN --mount=type=cache,id=mlc-dev-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=mlc-dev-lists,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential \
        ca-certificates \
        cargo-web \
        ccache \
        git \
        git-lfs \
        libssl-dev \
        ninja-build \
        pkg-config \
        python3-dev \
        rustc-web \
    && git lfs install --system --skip-repo \
    && rm -f /var/log/dpkg.log /var/log/apt/*.log /var/log/alternatives.log
ARG CMAKE_VERSION=3.24
COPY docker/requirements-development.txt /usr/local/lib/mlc/
# CMake below 4: it is the last to accept the minimum versions that some of MLC-LLM's
# submodules declare. It comes from PyPI, so that any minimum can be asked for.
RUN --mount=type=cache,id=mlc-pip,target=/var/cache/pip,sharing=locked \
    --mount=type=secret,id=ca-certificates \
    --mount=type=bind,source=docker/with-certificates.sh,target=/usr/local/bin/with-certificates \
    python3 -m venv /opt/dev \
    && with-certificates /opt/dev/bin/python -m pip install --cache-dir /var/cache/pip \
        "cmake>=${CMAKE_VERSION},<4" \
        --requirement /usr/local/lib/mlc/requirements-development.txt \
    # The layout of manylinux images, as cibuildwheel expects it: an interpreter by its tag,
    # and the one (cp39) of its own helpers.
    && tag=$(python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])') \
    && mkdir /opt/python \
    && ln -s /opt/dev "/opt/python/$tag-$tag" \
    && ln -s /opt/dev /opt/python/cp39-cp39 \
    # Sources are mounted, and belong to another user.
    && git config --system --add safe.directory '*'
ENV PATH=/opt/dev/bin:/usr/lib/ccache:$PATH \
    CCACHE_DIR=/var/cache/ccache \
    MLC_IMAGE=development
WORKDIR /workspace
COPY docker/entrypoint.py /usr/local/lib/mlc/

# --- wheels: replaced by the named context "wheels" when there are built wheels --------
FROM scratch AS wheels

# --- builder: the runtime environment with the wheel installed -------------------------
FROM development AS builder
# Without pip: production runs the wheel, it installs nothing.
RUN python3 -m venv --without-pip /opt/venv
COPY package /src/package
RUN --mount=type=cache,id=mlc-pip,target=/var/cache/pip,sharing=locked \
    --mount=type=secret,id=ca-certificates \
    --mount=type=secret,id=PIP_INDEX_URL \
    --mount=type=secret,id=PIP_EXTRA_INDEX_URL \
    --mount=type=secret,id=PIP_FIND_LINKS \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/with-certificates.sh,target=/usr/local/bin/with-certificates \
    --mount=type=bind,source=docker/install_wheel.py,target=/usr/local/bin/install-wheel \
    with-certificates install-wheel /wheels /src/package /opt/venv

# --- production: only what serves models with the installed wheel ----------------------
FROM base AS production
RUN useradd --uid 10001 --user-group --no-log-init --create-home --shell /usr/sbin/nologin mlc
COPY docker/entrypoint.py /usr/local/lib/mlc/
COPY --from=builder /opt/venv /opt/venv
# mlc_llm writes when it is imported; /dev/shm is a tmpfs in every container, also in one
# whose root is read-only.
ENV PATH=/opt/venv/bin:$PATH \
    MLC_LLM_HOME=/dev/shm/mlc_llm \
    MLC_IMAGE=production
WORKDIR /home/mlc
USER 10001:10001
EXPOSE 8000
# A large model takes minutes to load; until then no answer is no fault.
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python3", "/usr/local/lib/mlc/entrypoint.py", "healthcheck"]
