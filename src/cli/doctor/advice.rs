//! Whose setting to change. The settings of nginx, HAProxy and Caddy are those of docs/load-balancers.md, where they are
//! tested; the others are from their makers' documentation.

use super::finding::Kind;

/// Somebody who may stand between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    Nginx,
    HaProxy,
    Caddy,
    Envoy,
    Alb,
    Cloudflare,
    /// Says nothing of itself, as HAProxy does.
    Unknown,
}

impl Between {
    const ALL: [Self; 6] =
        [Self::Nginx, Self::HaProxy, Self::Caddy, Self::Envoy, Self::Alb, Self::Cloudflare];

    /// From the headers `Server` and `Via`; a node sends neither.
    pub(super) fn guess(headers: &str) -> Self {
        let headers = headers.to_ascii_lowercase();
        let marks = [
            ("cloudflare", Self::Cloudflare),
            ("awselb", Self::Alb),
            ("envoy", Self::Envoy),
            ("caddy", Self::Caddy),
            ("nginx", Self::Nginx),
            ("haproxy", Self::HaProxy),
        ];
        marks.into_iter().find(|(mark, _)| headers.contains(mark)).map_or(Self::Unknown, |(_, proxy)| proxy)
    }

    /// What to change against `kind`: for this proxy, or for each when it is not known.
    pub(super) fn settings(self, kind: Kind) -> Vec<String> {
        if self != Self::Unknown {
            return vec![format!("{}: {}", self.name(), self.setting(kind))];
        }
        Self::ALL.iter().map(|proxy| format!("{}: {}", proxy.name(), proxy.setting(kind))).collect()
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Envoy => "Envoy",
            Self::Alb => "AWS ALB",
            Self::Cloudflare => "Cloudflare",
            Self::Unknown => "nothing that says its name",
        }
    }

    fn setting(self, kind: Kind) -> &'static str {
        match kind {
            Kind::Buffering => self.against_buffering(),
            Kind::Compression => self.against_compression(),
            Kind::IdleCutOff => self.against_idle_cut_off(),
            Kind::AgeLimit => self.against_age_limit(),
            Kind::Headers => "do not rewrite Cache-Control of text/event-stream",
        }
    }

    fn against_buffering(self) -> &'static str {
        match self {
            Self::Nginx => "proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering",
            Self::HaProxy => "no `http-response wait-for-body`, no `filter compression` on text/event-stream",
            Self::Caddy => "flush_interval -1; and no buffer_responses or response_buffers in reverse_proxy",
            Self::Envoy => "no buffer filter on this route",
            Self::Alb => "targets of type instance or ip (a Lambda target answers only when it is done)",
            Self::Cloudflare | Self::Unknown => "no response buffering (Enterprise setting) for this path",
        }
    }

    fn against_compression(self) -> &'static str {
        match self {
            Self::Nginx => "gzip_types without text/event-stream, or gzip off; for this location",
            Self::HaProxy => "`compression type` without text/event-stream",
            Self::Caddy => "encode with a `match` that leaves text/event-stream out",
            Self::Envoy => "compressor filter: content_type without text/event-stream",
            Self::Alb => "an ALB does not compress: look behind it",
            Self::Cloudflare | Self::Unknown => "a compression rule that leaves this path out",
        }
    }

    fn against_idle_cut_off(self) -> &'static str {
        match self {
            Self::Nginx => "proxy_read_timeout (default 60s)",
            Self::HaProxy => {
                "both `timeout client` and `timeout server` (`timeout tunnel` is not for streams)"
            }
            Self::Caddy => "reverse_proxy: transport http { read_timeout … } (default none)",
            Self::Envoy => {
                "route: timeout 0s, idle_timeout; connection manager: stream_idle_timeout (default 5m)"
            }
            Self::Alb => "idle_timeout.timeout_seconds (default 60)",
            Self::Cloudflare | Self::Unknown => {
                "proxy read time-out (default 120 s): shorten FANLIGHT_HEARTBEAT instead"
            }
        }
    }

    fn against_age_limit(self) -> &'static str {
        match self {
            Self::Nginx => "proxy_read_timeout, send_timeout; a reload also cuts (worker_shutdown_timeout)",
            Self::HaProxy => "`hard-stop-after` cuts at a reload; `timeout http-request` is not the cause",
            Self::Caddy => "servers { timeouts { write … } } must be 0",
            Self::Envoy => {
                "route: timeout 0s (default 15s); HTTPRoute: timeouts.request 0s; max_stream_duration"
            }
            Self::Alb => "an ALB has no such limit: look behind it",
            Self::Cloudflare | Self::Unknown => "no such limit is documented: look behind it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_itself_is_recognised_and_for_others_every_setting_is_told() {
        assert_eq!(Between::guess("nginx/1.22.1"), Between::Nginx);
        assert_eq!(Between::guess("Caddy"), Between::Caddy);
        assert_eq!(Between::guess(""), Between::Unknown);
        assert_eq!(Between::Unknown.settings(Kind::IdleCutOff).len(), Between::ALL.len());
    }
}
