# An image per process. Each target installs what its process imports and no more:
# only the training host's has torch, only the IB host's has Interactive Brokers' client.

FROM python:3.11-slim AS source
# An environment of its own, so that the images take it over as one folder.
RUN python -m venv /opt/ktrdr
ENV PATH=/opt/ktrdr/bin:$PATH
WORKDIR /src
# .dockerignore lets through what the package is built from.
COPY . .

FROM source AS backend_environment
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt '.[postgres]'

FROM source AS training_host_environment
# Names a package index that has torch for the CPU: +cpu is the same version to the
# constraint and comes before the build with CUDA, which is several times as large.
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt '.[training,postgres]'

FROM source AS ib_host_environment
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt '.[ib,postgres]'

FROM python:3.11-slim AS process
# A new volume takes over the folder's owner; root's could not be written to.
RUN useradd --uid 10001 --create-home ktrdr \
    && install --directory --owner=ktrdr --group=ktrdr /var/lib/ktrdr
ENV PATH=/opt/ktrdr/bin:$PATH KTRDR_HOME=/var/lib/ktrdr
VOLUME /var/lib/ktrdr
WORKDIR /home/ktrdr
# By number, so that whoever runs the image can tell that it is not root.
USER 10001:10001

FROM process AS backend
COPY --from=backend_environment /opt/ktrdr /opt/ktrdr
EXPOSE 50051
# The address is named: the one in the environment says where to listen.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50051"]
# No shell in between, which would keep SIGTERM to itself.
CMD ["python", "-m", "backend"]

FROM process AS training_host
COPY --from=training_host_environment /opt/ktrdr /opt/ktrdr
EXPOSE 50052
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50052"]
CMD ["python", "-m", "training_host"]

FROM process AS ib_host
COPY --from=ib_host_environment /opt/ktrdr /opt/ktrdr
EXPOSE 50053
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50053"]
CMD ["python", "-m", "ib_host"]
