//! The Redis function for durable publishing, kept loaded.

use ::redis::Value;

use super::scripts::Scripts;
use crate::redis::{CommandError, Keys, Subscriber};

/// The version of the library; raise it with every change of `lua/core.lua` or `lua/function.lua`. Only a newer one
/// replaces one that is there, so that nodes of two versions do not fight for it.
const VERSION: u32 = 1;

/// What was found and done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// It was there, as new as ours or newer.
    Already,
    /// It is now.
    Now,
}

/// Loads the library where it is missing or older.
///
/// # Errors
/// When Redis has no functions (before version 7), refuses, or the name serves another prefix.
pub(super) async fn ensure(
    subscriber: &Subscriber,
    keys: &Keys,
    scripts: &Scripts,
) -> Result<Loaded, String> {
    let library = keys.function("library");
    let mut list = ::redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(&library);
    let found: Value = subscriber.run(&list).await.map_err(unavailable)?;
    let mut texts = Vec::new();
    collect(&found, &mut texts);
    let ours = format!(" prefix={}", keys.prefix());
    if let Some(description) = texts.iter().find(|text| text.starts_with("fanlight version=")) {
        if !description.ends_with(&ours) {
            return Err(format!("{library} belongs to another prefix"));
        }
        let version = description.split([' ', '=']).nth(2).and_then(|digits| digits.parse().ok());
        if version >= Some(VERSION) {
            return Ok(Loaded::Already);
        }
    }
    let source =
        scripts.library(&library, &keys.function("publish"), &format!("fanlight version={VERSION}{ours}"));
    let mut load = ::redis::cmd("FUNCTION");
    load.arg("LOAD").arg("REPLACE").arg(source);
    subscriber.run::<String>(&load).await.map(|_| Loaded::Now).map_err(unavailable)
}

fn unavailable(error: CommandError) -> String {
    error.to_string()
}

/// All texts in an answer, whose shape depends on the protocol.
fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(items) | Value::Set(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            collect(key, texts);
            collect(value, texts);
        }),
        Value::BulkString(bytes) => texts.push(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => texts.push(text.clone()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a: short, and the same in every version of Rust.
    fn hash(text: &str) -> u64 {
        text.bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }

    #[test]
    fn a_changed_library_has_a_new_version() {
        let source = concat!(include_str!("lua/core.lua"), include_str!("lua/function.lua"));
        let said = "the library has changed: raise VERSION when it was ever released, and set the hash";
        assert_eq!((VERSION, hash(source)), (1, 0xb5bc_4d65_b213_8c0e), "{said}");
    }
}
