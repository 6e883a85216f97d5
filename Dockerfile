# One image for every part: `nodebus` and `certgen`.

FROM node:20-bookworm-slim AS page
WORKDIR /page
COPY dashboard-gw/web/package.json dashboard-gw/web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY dashboard-gw/web ./
RUN npm run build

FROM rust:1.95-bookworm AS binary
WORKDIR /build
# Dependencies first, from the manifests alone: this layer lasts until one of them changes.
COPY Cargo.toml Cargo.lock ./
COPY bus/Cargo.toml bus/
COPY bus/broker/Cargo.toml bus/broker/
COPY certs/Cargo.toml certs/
COPY coap-bridge/Cargo.toml coap-bridge/
COPY dashboard-gw/Cargo.toml dashboard-gw/
COPY ws-bridge/Cargo.toml ws-bridge/
RUN packages=". bus bus/broker certs coap-bridge dashboard-gw ws-bridge" \
 && for package in $packages; do \
      mkdir "$package/src" && touch "$package/src/lib.rs" && echo 'fn main() {}' >"$package/src/main.rs"; \
    done \
 && cargo build --release --locked --package nodebus --package certs \
 && cargo clean --release --package nodebus --package bus --package bus-broker --package certs \
      --package coap-bridge --package dashboard-gw --package ws-bridge \
 && for package in $packages; do rm -r "$package/src"; done
COPY . .
COPY --from=page /page/dist dashboard-gw/web/dist
RUN cargo build --release --locked --package nodebus --package certs

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="nodebus" \
      org.opencontainers.image.description="Brings constrained IoT nodes to MQTT, to a browser and to people" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# A volume that is first mounted on one of these folders belongs to the user too.
RUN groupadd --gid 10001 nodebus \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin nodebus \
 && install --directory --owner=10001 --group=10001 --mode=0700 /data /pki /pki/ca \
      /pki/broker /pki/broker/bus /pki/bridge /pki/bridge/coap /pki/bridge/ws \
      /pki/dashboard /pki/dashboard/dashboard /pki/operator /pki/operator/operator \
      /pki/viewer /pki/viewer/viewer
COPY --from=binary /build/target/release/nodebus /build/target/release/certgen /usr/local/bin/
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/nodebus/
USER 10001:10001
WORKDIR /data
ENV CERTGEN_DIR=/pki
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["nodebus", "health"]
CMD ["nodebus", "up", "--data", "/data"]
