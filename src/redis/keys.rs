//! Every name in Redis, in one place.
//!
//! | name | is |
//! | --- | --- |
//! | `<prefix><channel>` | the pub/sub channel of a user's channel |
//! | `<prefix>@probe:<id>` | the pub/sub channel on which a node hears itself |
//! | `<prefix>@nodes` | the pub/sub channel on which nodes talk to all others |
//! | `<prefix>@node:<id>` | the pub/sub channel on which one node is answered |
//! | `<prefix>@clock` | hash: epoch, last position, settings of the publishing function |
//! | `<prefix>@index` | sorted set: channel → number of its last durable event |
//! | `<prefix>@h:<channel>` | stream: a channel's history |
//! | `<prefix>@once:<channel>:<hex>` | string: the position that an idempotency key was answered with |
//! | `<prefix>@leases` | hash: the members of the limits by tag, `@version`, and `@born` while it is young |
//! | `<prefix>@lease:<tag>` | hash: a node's connections by address and session, `@call`, `@orders` |
//! | `<prefix>@job:<hex>` | hash: the last known state of the job with this id |
//! | `<prefix>@jobs:by:<status>` | sorted set: id of a job of this status → when it expires |
//! | `<prefix>@jobs:recorder` | string: who records jobs for the cluster |
//! | `<prefix>@jobs:upto` | string: epoch and number of the last durable event that the recorder has recorded |
//! | `<prefix>@alive` | sorted set: incarnation of a node → when its last heartbeat came |
//! | `<prefix>@rows` | hash: incarnation → what the node says of itself |
//! | `<prefix>@ips`, `<prefix>@sessions` | hash: incarnation → sketch of whose connections it has |
//! | `<prefix>@totals` | hash: what all nodes together have counted, by name; epoch and age of the counts |
//! | `<prefix>@counted:<incarnation>` | hash: what of the totals comes from there |
//! | `<prefix>@heard` | hash: channel → when and by whom its events were counted last |
//!
//! A user's channel and the prefix have only `A-Z a-z 0-9 . _ : / -`, so nothing of theirs meets what stands behind
//! an `@`, which means nothing in a glob and needs no quoting in a shell: an ACL for all of it is `~fanlight:*
//! &fanlight:*`.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::protocol::channel::ChannelName;
use crate::protocol::event::Key;

/// The names under one prefix. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Arc<str>);

impl Keys {
    /// The names under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self(prefix.into())
    }

    /// What stands before every name, and is the whole name of a user's channel but for the channel.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// A name of ours that no user's name can be; `name` must not come from a user.
    pub fn internal(&self, name: &str) -> String {
        format!("{}@{name}", self.0)
    }

    /// The pub/sub channel of `channel`.
    pub fn channel(&self, channel: &ChannelName) -> String {
        format!("{}{channel}", self.0)
    }

    /// The user's channel behind a pub/sub channel; `None` for our own and for strangers.
    pub fn channel_of(&self, name: &[u8]) -> Option<ChannelName> {
        let name = name.strip_prefix(self.0.as_bytes())?;
        ChannelName::parse(std::str::from_utf8(name).ok()?).ok()
    }

    /// The clock: epoch and last position.
    pub fn clock(&self) -> String {
        self.internal("clock")
    }

    /// The index of channels by their last event.
    pub fn index(&self) -> String {
        self.internal("index")
    }

    /// What stands before a channel in the name of its history.
    pub fn history(&self) -> String {
        self.internal("h:")
    }

    /// What stands before `<channel>:<hex of the key>` in the name of an idempotency record.
    pub fn once(&self) -> String {
        self.internal("once:")
    }

    /// The probe channel of the node with this id, which must be one of ours.
    pub fn probe(&self, id: &str) -> String {
        self.internal(&format!("probe:{id}"))
    }

    /// The channel that every node hears.
    pub fn nodes(&self) -> String {
        self.internal("nodes")
    }

    /// The channel that only the node with this id hears; the id must be one of ours.
    pub fn node(&self, id: &str) -> String {
        self.internal(&format!("node:{id}"))
    }

    /// The record of all nodes that hold a lease.
    pub fn leases(&self) -> String {
        self.internal("leases")
    }

    /// The lease of the node with this tag, which must be one of ours.
    pub fn lease(&self, tag: &str) -> String {
        self.internal(&format!("lease:{tag}"))
    }

    /// The state of the job `id`.
    pub fn job(&self, id: &Key) -> String {
        let mut name = self.internal("job:");
        for byte in id.as_str().bytes() {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// The jobs of one status; `status` must be one of ours.
    pub fn jobs_by(&self, status: &str) -> String {
        self.internal(&format!("jobs:by:{status}"))
    }

    /// Who records jobs for the cluster.
    pub fn jobs_recorder(&self) -> String {
        self.internal("jobs:recorder")
    }

    /// Up to where jobs are recorded.
    pub fn jobs_up_to(&self) -> String {
        self.internal("jobs:upto")
    }

    /// The nodes by their last heartbeat.
    pub fn alive(&self) -> String {
        self.internal("alive")
    }

    /// What the nodes say of themselves.
    pub fn rows(&self) -> String {
        self.internal("rows")
    }

    /// Whose connections the nodes have, by address and by session.
    pub fn sketches(&self) -> [String; 2] {
        [self.internal("ips"), self.internal("sessions")]
    }

    /// What all nodes together have counted.
    pub fn totals(&self) -> String {
        self.internal("totals")
    }

    /// Who has counted the events of a channel last.
    pub fn heard(&self) -> String {
        self.internal("heard")
    }

    /// What stands before an incarnation in the name of its part of the totals.
    pub fn counted(&self) -> String {
        self.internal("counted:")
    }

    /// The name of the publishing function and, with another ending, of its library: letters, digits and `_` only,
    /// which is what Redis takes.
    pub fn function(&self, ending: &str) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = self.0.trim_end_matches([':', '/', '.', '-', '_']).chars().map(word).collect();
        if name.is_empty() { format!("fanlight_{ending}") } else { format!("{name}_{ending}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_channel_is_told_from_ours_and_from_strangers() {
        let keys = Keys::new("fanlight:");
        let jobs = ChannelName::parse("jobs").unwrap();
        assert_eq!(keys.channel(&jobs), "fanlight:jobs");
        assert_eq!(keys.channel_of(b"fanlight:jobs"), Some(jobs));
        assert_eq!(keys.channel_of(keys.probe("x").as_bytes()), None);
        assert_eq!(keys.channel_of(b"other:jobs"), None);
        assert_eq!(keys.channel_of(b"fanlight:\xff"), None);
    }

    #[test]
    fn a_job_id_cannot_leave_its_name() {
        let job = |id: &str| Keys::new("p:").job(&Key::parse(id).unwrap());
        assert_eq!(job("42"), "p:@job:3432");
        assert_eq!(job("x} *\u{e9}"), "p:@job:787d202ac3a9");
    }

    #[test]
    fn the_function_is_named_after_the_prefix() {
        for (prefix, name) in [
            ("fanlight:", "fanlight_publish"),
            ("shop:", "shop_publish"),
            ("a-b.c/d:", "a_b_c_d_publish"),
            (":", "fanlight_publish"),
        ] {
            assert_eq!(Keys::new(prefix).function("publish"), name);
        }
    }
}
