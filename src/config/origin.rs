//! Which web pages may open streams.

use url::{Origin, Url};

/// The allowed values of an `Origin` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Only pages of the same origin.
    Same,
    /// Every page; answers never carry credentials then.
    Any,
    /// Exactly these, in the form in which browsers send them (RFC 6454, section 6.2), and the same origin.
    These(Vec<String>),
}

impl Origins {
    /// Reads a comma-separated list, `*`, or nothing (the same origin only).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Same);
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        let allowed = || {
            "`*` alone, or a list like https://app.example.com,http://localhost:3000 (scheme, host and port, no path)"
                .to_owned()
        };
        let list: Option<Vec<_>> = text.split(',').map(|entry| canonical(entry.trim())).collect();
        list.map(Self::These).ok_or_else(allowed)
    }
}

/// The origin as a browser writes it: lower case, punycode, without the scheme's own port.
fn canonical(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let host = url.host_str()?;
    match url.origin() {
        origin @ Origin::Tuple(..) => Some(origin.ascii_serialization()),
        // Apps have schemes of their own (`capacitor://localhost`), for which the URL standard knows no origin.
        Origin::Opaque(_) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}://{host}{port}", url.scheme()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_brought_into_the_form_that_browsers_send() {
        let parsed =
            Origins::parse("HTTPS://App.Example.com:443/, http://localhost:3000,capacitor://localhost");
        let expected = ["https://app.example.com", "http://localhost:3000", "capacitor://localhost"];
        assert_eq!(parsed, Ok(Origins::These(expected.map(str::to_owned).to_vec())));
        assert_eq!(Origins::parse("*"), Ok(Origins::Any));
        assert_eq!(Origins::parse(""), Ok(Origins::Same));
    }

    #[test]
    fn what_can_never_equal_an_origin_header_is_refused() {
        for bad in
            ["*,https://a.example", "https://a.example/path", "a.example", "null", "https://*.example/x", ","]
        {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
    }
}
