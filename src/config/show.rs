//! Prints the effective settings with the source of each, secrets masked.

use std::fmt::Write;

use super::load::{Effective, Loaded, Source};
use super::table::{LIST, Preset, SWITCH, Secrecy};
use super::{RedisUrl, keys};
use crate::protocol::secret::MASK;

/// A TOML file that `--config` takes, with the source of each setting as a comment. What is masked or unset stands in a
/// comment, so that reading the file back never sets a mask as a password.
pub fn to_toml(loaded: &Loaded) -> String {
    let lines: Vec<_> = loaded.effective.iter().map(|found| (assignment(found), origin(found))).collect();
    let width = lines.iter().map(|(assignment, _)| assignment.chars().count()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (assignment, origin)| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{assignment:width$}  # {origin}");
        text
    })
}

/// One JSON object: per setting its value (a string, or null when unset), its source and the name under which it was given.
pub fn to_json(loaded: &Loaded) -> serde_json::Value {
    let entries = loaded.effective.iter().map(|found| {
        let value = found.text.as_deref().map(|text| shown(found, text).0);
        let entry =
            serde_json::json!({ "value": value, "source": source(found), "name": found.given_name() });
        (found.setting.name.to_owned(), entry)
    });
    serde_json::Value::Object(entries.collect())
}

/// The text that may be printed, and whether something in it is masked.
fn shown(found: &Effective, text: &str) -> (String, bool) {
    match found.setting.secrecy {
        Secrecy::Open => (text.to_owned(), false),
        Secrecy::Secret => (MASK.to_owned(), true),
        Secrecy::Pem if keys::is_pem(text) => (MASK.to_owned(), true),
        Secrecy::Pem => (text.to_owned(), false),
        Secrecy::Url => RedisUrl::parse(text)
            .map_or_else(|_| (MASK.to_owned(), true), |url| (url.to_string(), url.has_password())),
    }
}

fn assignment(found: &Effective) -> String {
    let name = found.setting.name;
    let Some(text) = &found.text else {
        return format!("# {name} =");
    };
    let (text, masked) = shown(found, text);
    let mark = if masked { "# " } else { "" };
    format!("{mark}{name} = {}", toml_value(found.setting.placeholder, &text))
}

fn toml_value(placeholder: &str, text: &str) -> toml::Value {
    match placeholder {
        SWITCH => text.parse().map_or_else(|_| text.into(), toml::Value::Boolean),
        LIST => text.split(',').filter(|entry| !entry.is_empty()).map(str::trim).collect::<Vec<_>>().into(),
        // `007` is a fine node id, and not the number 7.
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
    }
}

fn origin(found: &Effective) -> String {
    match (&found.source, &found.setting.default) {
        (Source::Default, Preset::Unset(words)) => format!("default: {words}"),
        (Source::Default, Preset::Text(_)) => "default".to_owned(),
        (Source::File(path), _) => path.display().to_string().escape_debug().to_string(),
        (Source::Flag | Source::Variable(_), _) => found.given_name(),
    }
}

fn source(found: &Effective) -> &'static str {
    match found.source {
        Source::Flag => "flag",
        Source::Variable(_) => "environment",
        Source::File(_) => "file",
        Source::Default => "default",
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::{environment, flags};
    use super::super::{Loaded, load};
    use super::*;

    fn loaded() -> Loaded {
        let environment = environment(&[
            ("REDIS_URL", "redis://shop:canary@redis/1"),
            ("FANLIGHT_API_KEYS", "canary-one,canary-two"),
            ("FANLIGHT_NODE_ID", "007"),
        ]);
        load(&flags(&["--channels=jobs,public:*", "--insecure", "--history-size=5"]), &environment).unwrap()
    }

    #[test]
    fn no_form_shows_a_secret() {
        let loaded = loaded();
        for text in [to_toml(&loaded), to_json(&loaded).to_string(), format!("{loaded:?}")] {
            // The debug form keeps the texts as they were given: it is the one that must not be derived blindly.
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_a_file_that_sets_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let shown = to_toml(&loaded());
        std::fs::write(file.path(), &shown).unwrap();
        let path = format!("--config={}", file.path().display());
        let again = load(&flags(&[&path]), &environment(&[])).unwrap();
        assert_eq!(again.config.channels, loaded().config.channels);
        assert_eq!(again.config.node_id, "007");
        assert_eq!(again.config.history.size, 5);
        assert!(again.config.insecure);
        assert!(
            again.config.redis.url.is_none() && again.config.api_keys.is_empty(),
            "a mask was read back:\n{shown}"
        );
    }

    #[test]
    fn every_setting_is_shown_with_its_source() {
        let json = to_json(&loaded());
        assert_eq!(json["channels"]["source"], "flag");
        assert_eq!(json["redis-url"]["name"], "REDIS_URL");
        assert_eq!(json["redis-url"]["value"], "redis://shop:****@redis/1");
        assert_eq!(json["heartbeat"]["source"], "default");
        assert!(json["max-connections"]["value"].is_null());
        assert!(to_toml(&loaded()).contains("# FANLIGHT_NODE_ID"));
    }
}
