//! A look at Redis when a node starts: what will hurt later is said now. It warns and refuses nothing.
//!
//! It needs `INFO` and, for one setting, `CONFIG GET`; a user without these rights gets a line that says what was not seen.
//! What the user may do is `rights`' to look at.

use std::collections::HashMap;

use redis::cmd;

use super::commands::{CommandError, Commands};
use super::rights;

/// Below these, in bytes, Redis cuts a node off that falls behind for a moment; Redis' defaults are 32 MB at once, and 8 MB
/// for a minute.
const LEAST_HARD_LIMIT: u64 = 32 << 20;
const LEAST_SOFT_LIMIT: u64 = 8 << 20;

/// Functions, and with them durable publishing by `FCALL`, came with this major version.
const FUNCTIONS_SINCE: u32 = 7;

/// Looks and warns, once. It ends with its commands, each of which has a limit.
pub async fn look(commands: Commands) {
    let info = match commands.run::<String>(&cmd("INFO")).await {
        Ok(info) => info,
        // Whoever keeps the connection says what is wrong with it.
        Err(CommandError::Unavailable(_)) => return,
        Err(CommandError::Refused(why)) => {
            tracing::warn!(%why, "Redis' settings cannot be looked at: docs/operations.md has what they must be");
            return rights::look(&commands).await;
        }
    };
    rights::look(&commands).await;
    judge_info(&info).into_iter().for_each(|warning| tracing::warn!("{warning}"));
    if !is_persistent(&info) {
        tracing::info!(
            "Redis keeps nothing over a restart (no append-only file): clients are told of the gap"
        );
    }
    let mut ask = cmd("CONFIG");
    ask.arg("GET").arg("client-output-buffer-limit");
    match commands.run::<HashMap<String, String>>(&ask).await {
        Ok(found) => {
            found.values().filter_map(|limits| judge_buffers(limits)).for_each(|w| tracing::warn!("{w}"))
        }
        Err(why) => tracing::debug!(%why, "client-output-buffer-limit cannot be looked at"),
    }
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim()
}

fn is_persistent(info: &str) -> bool {
    field(info, "aof_enabled") == "1"
}

/// What is wrong by `INFO`.
fn judge_info(info: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let policy = field(info, "maxmemory_policy");
    if field(info, "maxmemory") != "0" && !matches!(policy, "noeviction" | "") {
        warnings.push(format!(
            "Redis evicts keys (maxmemory-policy {policy}): limits and histories will break in silence; set noeviction"
        ));
    }
    let version = field(info, "redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < FUNCTIONS_SINCE) {
        warnings.push(format!("Redis {version} has no functions: publishing with FCALL needs 7 or later"));
    }
    warnings
}

/// What is wrong with `client-output-buffer-limit`: `class hard soft seconds …`, in bytes; zero is no limit.
fn judge_buffers(limits: &str) -> Option<String> {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let pubsub = words.iter().position(|word| *word == "pubsub")?;
    let bytes = |at: usize| words.get(pubsub + at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let tight = |bytes: u64, least: u64| bytes != 0 && bytes < least;
    (tight(bytes(1), LEAST_HARD_LIMIT) || tight(bytes(2), LEAST_SOFT_LIMIT)).then(|| {
        "Redis will cut off a node that falls behind for a moment (client-output-buffer-limit pubsub); set at least 32mb 8mb 60"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, maxmemory: &str, policy: &str) -> String {
        format!(
            "redis_version:{version}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\naof_enabled:0\r\n"
        )
    }

    #[test]
    fn only_what_hurts_is_warned_of() {
        assert!(judge_info(&info("7.0.15", "1000", "noeviction")).is_empty());
        // Without a limit nothing is ever evicted.
        assert!(judge_info(&info("8.2.0", "0", "allkeys-lru")).is_empty());
        assert!(judge_info(&info("7.0.15", "1000", "allkeys-lru"))[0].contains("allkeys-lru"));
        assert!(judge_info(&info("6.2.1", "0", "noeviction"))[0].contains("FCALL"));
        assert!(!is_persistent(&info("7.0.15", "0", "noeviction")));
    }

    #[test]
    fn the_default_buffers_are_enough_and_smaller_ones_are_not() {
        let with = |pubsub: &str| judge_buffers(&format!("normal 0 0 0 slave 1 1 60 pubsub {pubsub}"));
        assert_eq!(with("33554432 8388608 60"), None);
        assert_eq!(with("0 0 0"), None);
        assert!(with("1048576 0 0").is_some() && with("33554432 65536 60").is_some());
        assert_eq!(judge_buffers(""), None);
    }
}
