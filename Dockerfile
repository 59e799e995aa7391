# The image: one static binary, the certificates of authorities for rediss:// and OTLP over TLS, and nothing else.
#
#   docker build -t fanlight .
#   docker run --rm --read-only -p 127.0.0.1:8080:8080 -e FANLIGHT_API_KEYS=… fanlight
FROM rust:1.95-slim-bookworm AS build
# aws-lc-rs compiles C; the certificates are copied into the image.
RUN command -v cc >/dev/null && [ -e /etc/ssl/certs/ca-certificates.crt ] || \
    { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make ca-certificates; }
WORKDIR /src
COPY . .
# Static, so that the image needs no libc: glibc since 2.34 resolves names without loading anything. The target is named so
# that build scripts and macros are not linked in this way, which the compiler does not support. Symbols are of no use
# in an image without a debugger.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=symbols
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && cargo build --release --locked --bin fanlight --target "$target" \
 && install -D "target/$target/release/fanlight" /image/usr/bin/fanlight \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /image /
# Nobody in particular, by number: Kubernetes' runAsNonRoot cannot look a name up.
USER 65532:65532
# A container's loopback is its own. A node that listens beyond it needs FANLIGHT_API_KEYS or a key for tokens, and says so.
ENV FANLIGHT_LISTEN=0.0.0.0:8080
EXPOSE 8080
# The binary asks its own node: there is no shell and no curl. Kubernetes ignores this and has probes.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["/usr/bin/fanlight", "health"]
# The drain begins with it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/fanlight"]
CMD ["serve"]
