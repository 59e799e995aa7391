//! Where a request says who it comes from. Nothing here is judged.

use axum::http::{HeaderMap, Uri, header};

use super::error::ApiError;
use super::origin::AllowedOrigins;
use super::query;
use crate::protocol::secret::MASK;

const API_KEY: &str = "x-api-key";

/// The member of the query. It stands in the URL because an `EventSource` can send no headers; so no URL is ever logged
/// with its query.
const QUERY_TOKEN: &str = "token";

const COOKIE: &str = "fanlight_token";

/// What a request brought along.
#[derive(Default)]
pub(super) struct Credentials {
    api_key: Option<Box<[u8]>>,
    token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

impl Credentials {
    /// Reads them. The token is that of the header, else of the query, else of the cookie: what was said on purpose wins
    /// over what a browser sends by itself.
    ///
    /// # Errors
    /// `bad_request` when one stands there twice.
    pub(super) fn of(headers: &HeaderMap, uri: &Uri, origins: &AllowedOrigins) -> Result<Self, ApiError> {
        let api_key = headers.get(API_KEY).map(|key| key.as_bytes().into());
        let token = match bearer_token(headers)? {
            Some(token) => Some(token),
            None => match query::member(uri, QUERY_TOKEN)?.filter(|token| !token.is_empty()) {
                Some(token) => Some(token),
                None if origins.allow_cookies(headers) => cookie(headers),
                None => None,
            },
        };
        Ok(Self { api_key, token })
    }

    /// The value of `X-API-Key`.
    pub(super) fn api_key(&self) -> Option<&[u8]> {
        self.api_key.as_deref()
    }

    /// A token, or an API key sent like one.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

/// The credentials of the Bearer scheme (RFC 6750, section 2.1); others, such as those for a proxy that asks for a
/// password, are none of ours.
fn bearer_token(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut bearers =
        headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    match (bearers.next(), bearers.next()) {
        (_, Some(_)) => Err(ApiError::bad_request("There is more than one bearer token")),
        (token, None) => Ok(token.map(|token| String::from_utf8_lossy(token).into_owned())),
    }
}

/// The name of the scheme is not case-sensitive (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| credentials.trim_ascii())
}

/// The value of our cookie (RFC 6265, section 4.2.1).
fn cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    lines.into_iter().find_map(|line| {
        let mut pairs = line.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(lines: &[(&'static str, &str)], uri: &'static str) -> Result<Option<String>, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let given = Credentials::of(&headers, &Uri::from_static(uri), &AllowedOrigins::Same)?;
        Ok(given.token().map(str::to_owned))
    }

    #[test]
    fn what_is_said_on_purpose_wins_over_what_a_browser_adds() {
        let cookie = ("cookie", "a=b; fanlight_token=c;x=y");
        let bearer = ("authorization", "bearer  h ");
        assert_eq!(token_of(&[cookie, bearer], "/?token=q"), Ok(Some("h".to_owned())));
        assert_eq!(token_of(&[cookie], "/?token=q"), Ok(Some("q".to_owned())));
        assert_eq!(token_of(&[cookie], "/?token="), Ok(Some("c".to_owned())));
        assert_eq!(token_of(&[("authorization", "Basic eA=="), cookie], "/"), Ok(Some("c".to_owned())));
        assert_eq!(token_of(&[("cookie", "a=fanlight_token=x; fanlight_tokens=y")], "/"), Ok(None));
    }

    #[test]
    fn two_of_a_kind_are_refused() {
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert!(token_of(&twice, "/").is_err());
        assert!(token_of(&[], "/?token=a&token=b").is_err());
    }

    #[test]
    fn a_cookie_that_a_foreign_page_made_the_browser_send_is_none() {
        let cookie = ("cookie", "fanlight_token=c");
        let host = ("host", "app.example.com");
        for foreign in
            [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")]
        {
            assert_eq!(token_of(&[host, cookie, foreign], "/"), Ok(None), "{foreign:?}");
        }
        for own in [
            ("origin", "https://app.example.com"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(token_of(&[host, cookie, own], "/"), Ok(Some("c".to_owned())), "{own:?}");
        }
    }

    #[test]
    fn credentials_print_as_a_mask() {
        let given = Credentials { api_key: Some(b"canary"[..].into()), token: Some("canary".to_owned()) };
        assert_eq!(format!("{given:?}"), "****");
    }
}
