# Built from the project's folder: docker build -t ivesk-webhook . docs/container.md runs it.
# The settings file is /var/lib/ivesk-webhook/ivesk-webhook.toml; the database is beside it.

# The base images have tags here, which the registry may move. A digest changes with every rebuild of the image and has to be read from
# the registry, so a release names it: `docker buildx imagetools inspect rust:1.95-slim-trixie` prints it, and
# `docker build --build-arg RUST_IMAGE=rust@sha256:… --build-arg DEBIAN_IMAGE=debian@sha256:… .` builds with it.
ARG RUST_IMAGE=rust:1.95-slim-trixie
# The same Debian release as above, so that the C library is the same.
ARG DEBIAN_IMAGE=debian:trixie-slim

# Builds with the image's own toolchain: .dockerignore excludes rust-toolchain.toml, which would download another.
FROM ${RUST_IMAGE} AS build
# `--build-arg PROFILE=dev` builds in half the time, for tries.
ARG PROFILE=release
WORKDIR /src
COPY . .
RUN cargo install --locked --profile "$PROFILE" --path . --root /out

FROM ${DEBIAN_IMAGE}
# The root certificates that verify those of Įvesk.lt and Amazon. The newest are right, whatever their version.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/ivesk-webhook /usr/local/bin/ivesk-webhook
# A user that owns only the data. USER is a number, so that `runAsNonRoot` of Kubernetes can verify that it is not root.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ivesk \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/ivesk-webhook
USER 10001:10001
WORKDIR /var/lib/ivesk-webhook
VOLUME /var/lib/ivesk-webhook
# The public listener. The admin listener (8081) can be reached only inside the container, unless `admin.listen` is set.
EXPOSE 8080
# In exec form, so that SIGTERM reaches the program and starts an orderly shutdown. No HEALTHCHECK, since the image has
# no HTTP client: let the orchestrator request /healthz (alive) and /readyz (accepts messages) on port 8080.
ENTRYPOINT ["/usr/local/bin/ivesk-webhook"]
CMD ["serve"]
