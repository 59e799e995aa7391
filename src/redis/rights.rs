//! Whether the user that a node logs in as may do what the node does: said when it starts, not when a client first needs it.
//!
//! It asks with `ACL DRYRUN` (Redis 7), which carries nothing out; a user who may not ask is not looked at. It warns and refuses
//! nothing.

use redis::{cmd, pipe};

use super::commands::{CommandError, Commands};

/// What a node does, one command of each kind: docs/operations.md grants these and no more. `@` is the prefix.
const USED: [&str; 43] = [
    "PING",
    // By the pool, before it uses a connection again.
    "UNWATCH",
    "INFO",
    "HELLO",
    "TIME",
    "PUBLISH @c m",
    "SUBSCRIBE @c",
    "UNSUBSCRIBE @c",
    "EVALSHA s 1 @k",
    "SCRIPT|LOAD s",
    "FUNCTION|LIST",
    "FUNCTION|LOAD s",
    "EXISTS @k",
    "GET @k",
    "SET @k v",
    "DEL @k",
    "UNLINK @k",
    "PEXPIRE @k 1",
    "PEXPIREAT @k 1",
    "PTTL @k",
    "HGET @k f",
    "HSET @k f v",
    "HSETNX @k f v",
    "HMGET @k f",
    "HGETALL @k",
    "HDEL @k f",
    "HEXISTS @k f",
    "HINCRBY @k f 1",
    "HKEYS @k",
    "HLEN @k",
    "XADD @k * f v",
    "XTRIM @k MAXLEN 1",
    "XRANGE @k - +",
    "XREVRANGE @k + -",
    "ZADD @k 1 m",
    "ZCOUNT @k 0 1",
    "ZRANGE @k 0 1",
    "ZRANGEBYSCORE @k 0 1",
    "ZREM @k m",
    "ZREMRANGEBYSCORE @k 0 1",
    "ZREVRANGE @k 0 1",
    "ZSCORE @k m",
    "ACL|WHOAMI",
];

/// Looks and warns, once.
pub(super) async fn look(commands: &Commands) {
    match denied(commands).await {
        Ok(denied) if denied.is_empty() => {}
        Ok(denied) => {
            let names: Vec<&str> = denied.iter().map(|(name, _)| *name).collect();
            tracing::warn!(
                commands = names.join(" "),
                why = %denied[0].1,
                "Redis' user may not do all that a node does: docs/operations.md has the least rights"
            );
        }
        Err(why) => tracing::debug!(%why, "the rights of Redis' user cannot be looked at"),
    }
}

/// What the user of these commands may not do, each with Redis' answer.
async fn denied(commands: &Commands) -> Result<Vec<(&'static str, String)>, CommandError> {
    let user: String = commands.run(cmd("ACL").arg("WHOAMI")).await?;
    let prefix = commands.config().keys().prefix();
    let mut asked = pipe();
    for used in USED {
        asked.cmd("ACL").arg("DRYRUN").arg(&user);
        for word in used.split([' ', '|']) {
            asked.arg(word.replace('@', prefix));
        }
    }
    let answers: Vec<String> = commands.run_all(&asked).await?;
    let named = USED.into_iter().map(|used| used.split(' ').next().unwrap_or(used));
    Ok(named.zip(answers).filter(|(_, answer)| answer != "OK").collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The names after `marker` in every source below `dir`.
    #[expect(clippy::disallowed_methods, reason = "a test outside of any runtime")]
    fn called(dir: &Path, marker: &str, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                called(&path, marker, names);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let after = text.split(marker).skip(1);
            names.extend(after.map(|rest| rest.chars().take_while(char::is_ascii_uppercase).collect()));
        }
    }

    #[test]
    fn what_the_code_calls_is_looked_at() {
        let mut names = BTreeSet::new();
        for marker in ["redis.call('", "redis.pcall('", "cmd(\""] {
            called(Path::new("src"), marker, &mut names);
        }
        assert!(names.len() > 20, "{names:?}");
        // With another database, with a right of its own, and what is found by accident.
        for name in ["SELECT", "CONFIG", ""] {
            names.remove(name);
        }
        let used = USED.map(|used| used.split([' ', '|']).next().unwrap());
        names.retain(|name| !used.contains(&name.as_str()));
        assert_eq!(names, BTreeSet::new());
    }

    #[test]
    fn the_documented_rights_are_what_is_looked_at() {
        let text = include_str!("../../docs/operations.md");
        let at = text.find("ACL SETUSER fanlight ").unwrap();
        let granted = text[at..].split("```").next().unwrap().split_whitespace();
        let granted: BTreeSet<_> =
            granted.filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
        let used = USED.map(|used| used.split(' ').next().unwrap().to_lowercase());
        let mut used = BTreeSet::from(used);
        used.insert("acl|dryrun".to_owned());
        assert_eq!(granted, used);
    }
}
