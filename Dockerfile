# Built from the project's folder: docker build -t ivesk-webhook .
# Run: docker run -v ivesk:/var/lib/ivesk-webhook -p 8080:8080 -e IVESK_WEBHOOK_API_KEY ivesk-webhook
# The settings file is /var/lib/ivesk-webhook/ivesk-webhook.toml, the database stands beside it.

# The image's own toolchain builds: .dockerignore leaves out rust-toolchain.toml, which would fetch another.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin ivesk-webhook

# The same Debian release as above, so that the C library is the same.
FROM debian:trixie-slim
# The roots against which the certificates of Įvesk.lt and Amazon are checked.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/ivesk-webhook /usr/local/bin/ivesk-webhook
# A user that owns the data and nothing else. By number, so that `runAsNonRoot` can see that it is not root.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ivesk \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/ivesk-webhook
USER 10001:10001
WORKDIR /var/lib/ivesk-webhook
VOLUME /var/lib/ivesk-webhook
# The public listener. The admin one (8081) listens inside the container alone until `admin.listen` and a token say otherwise.
EXPOSE 8080
# In exec form, so that SIGTERM reaches the program and it drains. No HEALTHCHECK: the image has no HTTP client;
# let the orchestrator ask /healthz (alive) and /readyz (takes deliveries) on port 8080.
ENTRYPOINT ["/usr/local/bin/ivesk-webhook"]
CMD ["serve"]
