//! The node's half of the protocol as a state machine without time, tasks or sockets: it makes calls and learns from
//! their answers. One call is on its way at a time.

use std::time::Duration;

use super::call::{Apply, Call, NodeTag};
use super::reply::{Applied, Membership, Reply, Verdict};
use crate::admission::key::SessionKey;
use crate::admission::local::{Ledger, Met, Request, Stamp};

/// The most counts that one call tells, and with them the longest that one call holds Redis up (about 2 ms). The script
/// unpacks them all at once, and Lua's stack has room for 8,000 values.
pub const MAX_TOLD: usize = 1000;

/// The most requests in one call; for the same reasons.
pub const MAX_REQUESTS: usize = 500;

/// What a node knows of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    tag: NodeTag,
    ttl: Duration,
    young: Duration,
    /// Whether, as far as known, Redis holds a lease of this node.
    joined: bool,
    /// The number of the last call made.
    number: u64,
    /// The number of the last call known to have been carried out.
    confirmed: u64,
    version: u64,
    others: Vec<NodeTag>,
}

/// What an answer means for whoever waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody was decided about; the next call can be made at once.
    Again,
    /// The lease was lost: the next call takes a new one.
    Lost,
    /// Done. `wait` when nobody was decided about, and for how long that will be so.
    Applied {
        /// How long to wait before anybody can be admitted.
        wait: Duration,
        /// For each request of the call: entered into the ledger with this stamp, or refused.
        entered: Vec<Result<Option<Stamp>, Met>>,
        /// Connections of this node that must go: of each session those with this stamp or a lower one.
        mandate: Vec<(SessionKey, Stamp)>,
        /// Nodes that should make a call soon, because they have got a mandate.
        nudge: Vec<NodeTag>,
    },
}

impl Lease {
    /// No lease yet; `young` is how long nobody is admitted after the members' record came into being.
    pub fn new(tag: NodeTag, ttl: Duration, young: Duration) -> Self {
        Self { tag, ttl, young, joined: false, number: 0, confirmed: 0, version: 0, others: Vec::new() }
    }

    /// Whose lease it is.
    pub fn tag(&self) -> NodeTag {
        self.tag
    }

    /// The version of the members' record that is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The numbers of the last call that is known to have been carried out and of the last one made.
    pub fn numbers(&self) -> (u64, u64) {
        (self.confirmed, self.number)
    }

    /// Whether a lease is held, as far as known.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// The next call. It asks for the first of `requests` only when everything that is held is told by then: nobody is
    /// admitted on counts that Redis does not know.
    pub fn next_call(&mut self, ledger: &mut Ledger, requests: &[Request], beat: bool) -> Call {
        self.number += 1;
        if !self.joined {
            return Call::Join { tag: self.tag, number: self.number, ttl: self.ttl };
        }
        let told = ledger.take_untold(MAX_TOLD);
        let asked = if ledger.has_untold() { 0 } else { requests.len().min(MAX_REQUESTS) };
        Call::Apply(Apply {
            tag: self.tag,
            version: self.version,
            confirmed: self.confirmed,
            number: self.number,
            beat: beat.then_some(self.ttl),
            young: self.young,
            limits: *ledger.limits(),
            told,
            requests: requests.iter().take(asked).copied().collect(),
            others: self.others.clone(),
        })
    }

    /// The call that gives the lease back.
    pub fn leave(&mut self) -> Call {
        self.joined = false;
        Call::Leave { tag: self.tag }
    }

    /// The answer to the last call came.
    pub fn settle(&mut self, ledger: &mut Ledger, call: &Call, reply: Reply) -> Outcome {
        match reply {
            Reply::Applied(applied) => self.applied(ledger, call, applied),
            Reply::Joined(membership) => {
                self.joined = true;
                self.confirmed = self.number;
                ledger.doubt_everything();
                self.know(membership);
                Outcome::Again
            }
            Reply::Stale(membership) => {
                Self::not_told(ledger, call);
                // Whoever is not on the record holds a lease that nobody sums over.
                self.joined = membership.members.contains(&self.tag);
                self.know(membership);
                Outcome::Again
            }
            Reply::Lost | Reply::Left => {
                Self::not_told(ledger, call);
                self.joined = false;
                Outcome::Lost
            }
        }
    }

    /// No answer came, or too late: it is not known whether the last call was or will be carried out.
    pub fn doubt(&mut self, ledger: &mut Ledger, call: &Call) {
        Self::not_told(ledger, call);
        if let Call::Apply(apply) = call {
            apply.requests.iter().for_each(|request| ledger.doubt_request(request));
        }
    }

    fn not_told(ledger: &mut Ledger, call: &Call) {
        if let Call::Apply(apply) = call {
            ledger.doubt(apply.told.iter().map(|(key, _)| *key));
        }
    }

    fn know(&mut self, membership: Membership) {
        self.version = membership.version;
        self.others = membership.members.into_iter().filter(|tag| *tag != self.tag).collect();
        self.others.sort_unstable();
    }

    fn applied(&mut self, ledger: &mut Ledger, call: &Call, applied: Applied) -> Outcome {
        self.confirmed = self.number;
        let requests = if let Call::Apply(apply) = call { apply.requests.as_slice() } else { &[] };
        let enter = |(request, verdict): (&Request, Verdict)| match verdict {
            Verdict::Admitted(stamp) => ledger.enter_admitted(request, stamp),
            Verdict::Refused(met) => Err(met),
        };
        let entered = requests.iter().zip(applied.verdicts).map(enter).collect();
        Outcome::Applied { wait: applied.wait, entered, mandate: applied.mandate, nudge: applied.nudge }
    }
}
