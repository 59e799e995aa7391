//! What the limits have written in Redis.

use std::collections::BTreeMap;

use super::redis::RedisServer;
use super::wait::{eventually, secs};

/// Every key of the limits: the record and the leases.
pub(crate) async fn keys(redis: &RedisServer) -> Vec<String> {
    let keys = redis.cli(&["KEYS", &redis.key("@lease*")]).await;
    keys.lines().filter(|key| !key.is_empty()).map(ToOwned::to_owned).collect()
}

/// What all leases say together, by field: `i<address>` and `s<session>`.
///
/// # Panics
/// When a count is not a whole number of at least 1.
pub(crate) async fn counted(redis: &RedisServer) -> BTreeMap<String, u64> {
    let mut total = BTreeMap::new();
    for key in keys(redis).await.iter().filter(|key| key.contains("@lease:")) {
        let fields = redis.cli(&["HGETALL", key]).await;
        let lines: Vec<&str> = fields.lines().collect();
        for pair in lines.chunks(2).filter(|pair| pair.len() == 2 && !pair[0].starts_with('@')) {
            let count = match pair[1].strip_prefix('@') {
                Some(stamps) => stamps.split(',').count() as u64,
                None => pair[1].parse().unwrap_or_else(|e| panic!("{pair:?}: {e}")),
            };
            assert!(count > 0, "{pair:?}");
            *total.entry(pair[0].to_owned()).or_default() += count;
        }
    }
    total
}

/// Waits until the leases say `expected`.
pub(crate) async fn come_to(redis: &RedisServer, expected: &BTreeMap<String, u64>) {
    eventually(&format!("Redis counts {expected:?}"), secs(10), async || {
        let counted = counted(redis).await;
        if counted == *expected { Ok(()) } else { Err(format!("{counted:?}")) }
    })
    .await;
}
