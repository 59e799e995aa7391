//! What a node says to Redis: the scripts' arguments as values.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::admission::key::Key;
use crate::admission::local::{Held, Limits, Request, SessionPolicy};

/// One life of one node: random, so that no two are alike. 16 hexadecimal digits in keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTag(u64);

impl NodeTag {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// One that tests can tell apart.
    pub const fn fixed(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not a [`NodeTag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a node's tag")]
pub struct BadTag;

impl FromStr for NodeTag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, BadTag> {
        u64::from_str_radix(text, 16).map(Self).map_err(|_| BadTag)
    }
}

/// A call of one of the scripts. Calls of a node are numbered, and Redis carries them out in the order of the numbers or
/// not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Take an empty lease.
    Join {
        /// Who.
        tag: NodeTag,
        /// The call's number.
        number: u64,
        /// How long the lease lives without a heartbeat.
        ttl: Duration,
    },
    /// Say what is held and ask for more.
    Apply(Apply),
    /// Give the lease back.
    Leave {
        /// Who.
        tag: NodeTag,
    },
}

/// The arguments of [`Call::Apply`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Apply {
    /// Who.
    pub tag: NodeTag,
    /// The version of the members' record that the caller knows.
    pub version: u64,
    /// The caller's last call that is known to have been carried out.
    pub confirmed: u64,
    /// This call's number.
    pub number: u64,
    /// With a heartbeat: how long the lease lives from now on.
    pub beat: Option<Duration>,
    /// For how long after the members' record came into being nobody is admitted.
    pub young: Duration,
    /// The caller's limits.
    pub limits: Limits,
    /// What the caller holds, where Redis may hold something else.
    pub told: Vec<(Key, Held)>,
    /// Who wants to come in.
    pub requests: Vec<Request>,
    /// The other members that the caller knows.
    pub others: Vec<NodeTag>,
}

/// A value as a lease holds it: a count, or `@` and the stamps.
fn held_text(held: &Held) -> String {
    match held {
        Held::Count(count) => count.to_string(),
        Held::Stamps(stamps) => {
            let stamps: Vec<String> = stamps.iter().map(ToString::to_string).collect();
            format!("@{}", stamps.join(","))
        }
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

impl Call {
    /// The script's arguments after its keys.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Join { tag, number, ttl } => vec![tag.to_string(), number.to_string(), millis(*ttl)],
            Self::Apply(apply) => apply.arguments(),
            Self::Leave { tag } => vec![tag.to_string()],
        }
    }

    /// Whose leases the script needs, the caller's own first.
    pub fn leases(&self) -> impl Iterator<Item = NodeTag> + '_ {
        let (tag, others) = match self {
            Self::Join { tag, .. } | Self::Leave { tag } => (tag, &[][..]),
            Self::Apply(apply) => (&apply.tag, apply.others.as_slice()),
        };
        std::iter::once(*tag).chain(others.iter().copied())
    }
}

impl Apply {
    fn arguments(&self) -> Vec<String> {
        let replace = if self.limits.policy == SessionPolicy::Replace { "1" } else { "0" };
        let mut arguments = Vec::with_capacity(10 + 2 * (self.told.len() + self.requests.len()));
        arguments.extend([
            self.tag.to_string(),
            self.version.to_string(),
            self.confirmed.to_string(),
            self.number.to_string(),
            millis(self.beat.unwrap_or_default()),
            millis(self.young),
            self.limits.per_ip.to_string(),
            self.limits.per_session.to_string(),
            replace.to_owned(),
            self.told.len().to_string(),
        ]);
        arguments.extend(self.told.iter().flat_map(|(key, held)| [key.to_string(), held_text(held)]));
        arguments.extend(self.requests.iter().flat_map(|request| {
            let ip = self.limits.ip_of(request);
            let session = self.limits.session_of(request).map(Key::Session);
            [ip, session].map(|key| key.map_or_else(String::new, |key| key.to_string()))
        }));
        arguments
    }
}
