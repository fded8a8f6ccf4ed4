# An image per process. Each target installs what its process imports and no more:
# only the training host's has torch, only the IB host's has Interactive Brokers' client.
# ktrdr itself comes last, in a layer of its own: a new version of it builds in seconds
# and adds a few megabytes.

FROM python:3.11-slim AS source
WORKDIR /src
# An environment of its own, so that the images take it over as one folder.
RUN python -m venv /opt/ktrdr && touch README.md
ENV PATH=/opt/ktrdr/bin:$PATH
# What names the dependencies, without the code that needs them: a change of that does not
# install them anew. Of ktrdr itself this makes a package without modules.
COPY constraints.txt pyproject.toml ./

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

FROM source AS package
# .dockerignore lets through what the package is built from.
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /wheel .

FROM python:3.11-slim AS process
# A new volume takes over its folder's owner; root's could not be written to.
RUN useradd --uid 10001 --create-home ktrdr \
    && install --directory --owner=ktrdr --group=ktrdr /var/lib/ktrdr /var/lib/ktrdr/data
ENV PATH=/opt/ktrdr/bin:$PATH KTRDR_HOME=/var/lib/ktrdr
VOLUME /var/lib/ktrdr
WORKDIR /home/ktrdr

FROM process AS backend
COPY --from=backend_environment /opt/ktrdr /opt/ktrdr
RUN --mount=from=package,source=/wheel,target=/wheel \
    python -m pip install --no-cache-dir --no-deps --force-reinstall /wheel/*.whl
# By number, so that whoever runs the image can tell that it is not root.
USER 10001:10001
EXPOSE 50051
# The address is named: the one in the environment says where to listen.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50051"]
# No shell in between, which would keep SIGTERM to itself.
CMD ["python", "-m", "backend"]

FROM process AS training_host
COPY --from=training_host_environment /opt/ktrdr /opt/ktrdr
RUN --mount=from=package,source=/wheel,target=/wheel \
    python -m pip install --no-cache-dir --no-deps --force-reinstall /wheel/*.whl
USER 10001:10001
EXPOSE 50052
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50052"]
CMD ["python", "-m", "training_host"]

FROM process AS ib_host
COPY --from=ib_host_environment /opt/ktrdr /opt/ktrdr
RUN --mount=from=package,source=/wheel,target=/wheel \
    python -m pip install --no-cache-dir --no-deps --force-reinstall /wheel/*.whl
USER 10001:10001
EXPOSE 50053
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["ktrdr", "health", "--backend", "127.0.0.1:50053"]
CMD ["python", "-m", "ib_host"]
