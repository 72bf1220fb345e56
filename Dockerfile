# This clone with all that it needs; it runs `dvc repro`:
#
#     docker build --tag surefoot --build-arg TORCH_INDEX=URL .
#     docker run --rm --volume surefoot:/project surefoot
#
# The volume keeps what came of it, as docs/container.md says.
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home surefoot \
    && install --directory --owner surefoot --group surefoot /project
USER surefoot
WORKDIR /project
ENV PATH=/project/.venv/bin:$PATH PIP_NO_CACHE_DIR=1 DVC_NO_ANALYTICS=true

# The build of torch that comes by default brings several GB for GPUs along; PyTorch has an index of those for the CPU.
ARG TORCH_INDEX
COPY --chown=surefoot:surefoot requirements.txt ./
RUN python3 -m venv .venv \
    && pip install --no-compile ${TORCH_INDEX:+-i "$TORCH_INDEX"} "$(grep ^torch== requirements.txt)"
COPY --chown=surefoot:surefoot . .
RUN make setup

# `dvc repro`; SIGTERM, as by `docker stop`, ends it at the last state.
CMD ["surefoot", "run"]
