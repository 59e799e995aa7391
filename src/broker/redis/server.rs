//! Who answers at the address: a master, and the same one as before?

use crate::redis::{CommandError, Subscriber};

/// What a Redis says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Changes with every start of the process; empty when this user may not ask.
    pub(super) run_id: String,
    /// The replication id of the master that it took its data over from; empty when from nobody.
    pub(super) source: String,
    /// It writes an append-only file, and its data is its own: a restart loses nothing that was acknowledged.
    pub(super) safe: bool,
    /// Its version.
    pub(super) version: String,
}

impl Server {
    /// Looks who is there.
    ///
    /// # Errors
    /// When it is not a master, is still reading its data, or does not answer.
    pub(super) async fn look(subscriber: &Subscriber) -> Result<Self, String> {
        match subscriber.run::<String>(&::redis::cmd("INFO")).await {
            Ok(text) => Self::read(&text),
            // A user without this right can still be served: a replica refuses the script that comes next. Only a
            // failover that loses events unseen by this node goes unnoticed then.
            Err(CommandError::Refused(why)) => {
                tracing::warn!(%why, "Redis refuses INFO: a failover cannot be told from a reconnect");
                Ok(Self::default())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn read(info: &str) -> Result<Self, String> {
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        if field("role") != "master" {
            return Err(format!("it is a {}, not a master", field("role")));
        }
        // Until then it answers INFO, and says of its append-only file that there is none: it is off while it is read.
        if field("loading") == "1" {
            return Err("it is loading its data".into());
        }
        let source = field("master_replid2");
        let source = if source.bytes().all(|b| b == b'0') { String::new() } else { source };
        let safe = field("aof_enabled") == "1" && source.is_empty();
        Ok(Self { run_id: field("run_id"), source, safe, version: field("redis_version") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\
        # Persistence\r\naof_enabled:1\r\n\
        # Replication\r\nrole:master\r\nmaster_replid:def\r\nmaster_replid2:0000000000000000000000000000000000000000\r\n";

    #[test]
    fn a_master_with_an_append_only_file_of_its_own_loses_nothing_by_a_restart() {
        let server = Server::read(INFO).unwrap();
        assert_eq!((&*server.run_id, &*server.source, server.safe), ("abc", "", true));
        assert_eq!(server.version, "7.0.15");
        assert!(!Server::read(&INFO.replace("aof_enabled:1", "aof_enabled:0")).unwrap().safe);
    }

    #[test]
    fn a_promoted_replica_may_have_lost_something() {
        let promoted = INFO.replace("master_replid2:0000", "master_replid2:fed0");
        let server = Server::read(&promoted).unwrap();
        assert!(!server.safe && server.source.starts_with("fed0"));
    }

    #[test]
    fn what_it_says_before_it_has_read_its_data_counts_for_nothing() {
        let loading = INFO.replace("aof_enabled:1", "loading:1\r\naof_enabled:0");
        assert_eq!(Server::read(&loading), Err("it is loading its data".into()));
        assert!(Server::read(&INFO.replace("aof_enabled", "loading:0\r\naof_enabled")).unwrap().safe);
    }

    #[test]
    fn a_replica_is_refused() {
        assert!(Server::read(&INFO.replace("role:master", "role:slave")).is_err());
    }
}
