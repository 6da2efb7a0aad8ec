# smolvlm in an image: GPU and CPU alike, the versions of constraints.txt.
#
#     docker build --tag smolvlm .
#     docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" \
#         --volume "$PWD:/work" --volume smolvlm-cache:/cache smolvlm train my/run.yaml
#
# Without --gpus it trains on the CPU. Loader workers hand packs over through shared memory (--shm-size).
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY smolvlm smolvlm
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
# Attention over packs is compiled for the device when a run starts (torch.compile), which takes a compiler. Debian
# keeps one version a release: none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ARG EXTRAS=train,serve
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /wheels /tmp/wheels
# The container runs as whoever owns the mounted folder, a user without a name or a home here: anyone may write into
# the cache, and compiled code goes there too (torch names its folder after the user otherwise).
RUN mkdir --mode=1777 /cache \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /tmp/wheels/*.whl)[${EXTRAS}]"
ENV HOME=/cache HF_HOME=/cache/huggingface SMOLVLM_HOME=/cache/smolvlm TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor
USER 1000
WORKDIR /work
ENTRYPOINT ["smolvlm"]
CMD ["--help"]
