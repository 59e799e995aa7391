//! The members of a request's query.

use axum::http::Uri;
use url::form_urlencoded;

use super::error::ApiError;

/// The value of the member `name`, decoded; `None` when there is no such member.
///
/// # Errors
/// `bad_request` when it stands there more than once: which one was meant, nobody can know.
pub(super) fn member(uri: &Uri, name: &str) -> Result<Option<String>, ApiError> {
    let members = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut values = members.filter(|(member, _)| member == name).map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ApiError::bad_request(format!("The query has more than one `{name}`"))),
        (value, None) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_decoded_and_must_not_be_there_twice() {
        let uri = Uri::from_static("/x?session=a%2Fb+c&token=&session2=d");
        assert_eq!(member(&uri, "session"), Ok(Some("a/b c".to_owned())));
        assert_eq!(member(&uri, "token"), Ok(Some(String::new())));
        assert_eq!(member(&uri, "none"), Ok(None));
        assert!(member(&Uri::from_static("/?a=1&a=1"), "a").is_err());
    }
}
