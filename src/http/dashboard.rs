//! The dashboard: the three files of `dashboard/dist/`, compiled into the program.
//!
//! They say nothing about the cluster, so that they need no key; everything that they show comes through the admin routes.
//! What is in them is built from `dashboard/src/`; nothing is read at run time.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Only what this node serves itself, nothing inline, in nobody's frame (CSP Level 3, Trusted Types). Forms are read by the
/// script and sent nowhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// One file.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        content: include_str!("../../dashboard/dist/index.html"),
    },
    Asset {
        path: "/dashboard/app.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../dashboard/dist/app.js"),
    },
    Asset {
        path: "/dashboard/style.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("../../dashboard/dist/style.css"),
    },
    Asset {
        path: "/dashboard/icon.svg",
        content_type: "image/svg+xml",
        content: include_str!("../../dashboard/dist/icon.svg"),
    },
];

/// The routes of the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = asset.tag();
        router
            .route(asset.path, get(move |headers: HeaderMap| std::future::ready(asset.answer(&headers, tag))))
    })
}

impl Asset {
    /// A strong validator (RFC 9110, section 8.8.3): another content has another one, within one version and across.
    fn tag(&self) -> HeaderValue {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        // Sixteen hexadecimal digits always are a header's value.
        HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
            .unwrap_or(HeaderValue::from_static("\"0\""))
    }

    fn answer(&self, headers: &HeaderMap, tag: HeaderValue) -> Response {
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| names(known, &tag));
        let mut response =
            if known { StatusCode::NOT_MODIFIED.into_response() } else { self.content.into_response() };
        let all = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            // Asked for again each time, so that an updated node is never shown by an old script.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::ETAG, tag),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        for (name, value) in all {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Whether `If-None-Match` names the tag; compared weakly, because a proxy that compresses makes tags weak (RFC 9110,
/// section 13.1.2).
fn names(given: &HeaderValue, tag: &HeaderValue) -> bool {
    let is_it = |one: &str| one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == tag.as_bytes();
    given.to_str().is_ok_and(|list| list.split(',').map(str::trim).any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(tags: &str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tags.parse().unwrap());
        ASSETS[0].answer(&headers, HeaderValue::from_static("\"a\""))
    }

    #[test]
    fn who_has_the_file_is_not_sent_it_again() {
        for known in ["\"a\"", "W/\"a\"", "\"x\", \"a\"", "*"] {
            assert_eq!(asking(known).status(), StatusCode::NOT_MODIFIED, "{known}");
        }
        for other in ["\"b\"", "a", ""] {
            assert_eq!(asking(other).status(), StatusCode::OK, "{other}");
        }
    }

    #[test]
    fn nothing_inline_is_needed_and_nothing_foreign_is_named() {
        let page = ASSETS[0].content;
        for forbidden in ["style=", "onclick", "onload", "http://", "https://", "<style", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let outside = |text: &str| text.contains("src=") && !text.contains("src=\"dashboard/");
        assert!(!page.split('<').any(outside));
        assert!(!ASSETS[2].content.contains("url("), "a style sheet that loads something");
    }

    #[test]
    fn every_file_has_a_tag_of_its_own() {
        let tags: std::collections::HashSet<_> = ASSETS.iter().map(Asset::tag).collect();
        assert_eq!(tags.len(), ASSETS.len());
    }
}
