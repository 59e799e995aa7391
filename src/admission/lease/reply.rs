//! What a node hears from Redis: the scripts' answers as values.

use std::str::FromStr;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Value};

use super::call::{Apply, Call, NodeTag};
use crate::admission::key::{Key, SessionKey};
use crate::admission::local::{Met, SessionPolicy, Stamp};

/// What a script answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The caller has no lease, or not the one that it believes to have. Nothing was done.
    Lost,
    /// The caller does not know all members. Nothing was done.
    Stale(Membership),
    /// The caller has an empty lease.
    Joined(Membership),
    /// Done.
    Applied(Applied),
    /// The lease is gone.
    Left,
}

/// The members' record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Changes with every member that comes or goes; never used twice.
    pub version: u64,
    /// All members, the caller among them.
    pub members: Vec<NodeTag>,
}

/// The answer to a [`Call::Apply`] that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Applied {
    /// When not zero: the counts were taken but nobody was admitted, because the members' record is too young; how
    /// long that lasts.
    pub wait: Duration,
    /// One for each request, in order; empty when nobody was admitted.
    pub verdicts: Vec<Verdict>,
    /// Connections of the caller that must go: of each session those with this stamp or a lower one.
    pub mandate: Vec<(SessionKey, Stamp)>,
    /// Nodes that have got a mandate by this call.
    pub nudge: Vec<NodeTag>,
}

/// The decision about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Come in, with a stamp where the session's newcomers replace.
    Admitted(Option<Stamp>),
    /// The limit is met.
    Refused(Met),
}

impl Reply {
    /// Reads the answer to `call`.
    ///
    /// # Errors
    /// When it is none of this call's answers.
    pub fn parse(call: &Call, value: Value) -> Result<Self, ParsingError> {
        let mut items: Vec<Value> = FromRedisValue::from_redis_value(value)?;
        let rest = items.split_off(items.len().min(1));
        let kind: String = FromRedisValue::from_redis_value(items.pop().unwrap_or(Value::Nil))?;
        match (kind.as_str(), call) {
            ("lost", _) => Ok(Self::Lost),
            ("left", Call::Leave { .. }) => Ok(Self::Left),
            ("joined", Call::Join { .. }) => membership(rest).map(Self::Joined),
            ("stale", Call::Apply(_)) => membership(rest).map(Self::Stale),
            ("applied", Call::Apply(apply)) => applied(apply, rest).map(Self::Applied),
            _ => Err(format!("unexpected answer {kind:?}").into()),
        }
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, ParsingError> {
    text.parse().map_err(|_| format!("{text:?} is not what was expected").into())
}

fn membership(rest: Vec<Value>) -> Result<Membership, ParsingError> {
    let texts: Vec<String> = FromRedisValue::from_redis_value(Value::Array(rest))?;
    let (version, tags) = texts.split_first().ok_or("no version")?;
    let members: Result<Vec<NodeTag>, _> = tags.iter().map(|tag| parse(tag)).collect();
    Ok(Membership { version: parse(version)?, members: members? })
}

fn applied(apply: &Apply, rest: Vec<Value>) -> Result<Applied, ParsingError> {
    let (wait, letters, stamps, mandate, nudge): (u64, String, Vec<String>, Vec<String>, Vec<String>) =
        FromRedisValue::from_redis_value(Value::Array(rest))?;
    let nudge: Result<Vec<NodeTag>, _> = nudge.iter().map(|tag| parse(tag)).collect();
    let verdicts = verdicts(apply, &letters, &stamps)?;
    let expected = if wait == 0 { apply.requests.len() } else { 0 };
    if letters.len() != expected {
        return Err(format!("{} verdicts instead of {expected}", letters.len()).into());
    }
    Ok(Applied { wait: Duration::from_millis(wait), verdicts, mandate: orders(&mandate)?, nudge: nudge? })
}

/// One letter for each request; the stamps are those of the admitted ones that need one, in order.
fn verdicts(apply: &Apply, letters: &str, stamps: &[String]) -> Result<Vec<Verdict>, ParsingError> {
    let mut stamps = stamps.iter();
    let verdict = |(letter, request)| match letter {
        'a' => {
            let replaces = apply.limits.policy == SessionPolicy::Replace;
            let stamped = replaces && apply.limits.session_of(request).is_some();
            let stamp = stamped.then(|| stamps.next().ok_or("too few stamps")).transpose()?;
            Ok(Verdict::Admitted(stamp.map(|text| parse(text)).transpose()?))
        }
        'i' => Ok(Verdict::Refused(Met::Ip)),
        's' => Ok(Verdict::Refused(Met::Session)),
        _ => Err("an unknown verdict".into()),
    };
    letters.chars().zip(&apply.requests).map(verdict).collect()
}

fn orders(texts: &[String]) -> Result<Vec<(SessionKey, Stamp)>, ParsingError> {
    let order = |pair: &[String]| match pair {
        [session, stamp] => Ok((Key::parse_session(session).ok_or("not a session")?, parse(stamp)?)),
        _ => Err("half an order".into()),
    };
    texts.chunks(2).map(order).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::key::IpKey;
    use crate::admission::local::{Limits, Request};

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn texts(list: &[&str]) -> Value {
        Value::Array(list.iter().map(|word| text(word)).collect())
    }

    fn apply(policy: SessionPolicy, sessions: &[Option<&str>]) -> Call {
        let ip = IpKey::V4([192, 0, 2, 1]);
        let request = |session: &Option<&str>| Request { ip, session: session.map(SessionKey::of) };
        Call::Apply(Apply {
            tag: NodeTag::fixed(1),
            version: 1,
            confirmed: 1,
            number: 2,
            beat: None,
            young: Duration::ZERO,
            limits: Limits { per_ip: 2, per_session: 1, policy },
            told: Vec::new(),
            requests: sessions.iter().map(request).collect(),
            others: Vec::new(),
        })
    }

    fn answer(wait: i64, verdicts: &str, stamps: &[&str], mandate: &[&str]) -> Value {
        let wait = Value::Int(wait);
        Value::Array(vec![text("applied"), wait, text(verdicts), texts(stamps), texts(mandate), texts(&[])])
    }

    #[test]
    fn stamps_go_to_the_admitted_that_have_a_session() {
        let call = apply(SessionPolicy::Replace, &[Some("a"), None, Some("b"), Some("c")]);
        let Ok(Reply::Applied(applied)) = Reply::parse(&call, answer(0, "aaia", &["7", "8"], &[])) else {
            panic!("not understood");
        };
        let admitted = |stamp| Verdict::Admitted(stamp);
        assert_eq!(
            applied.verdicts,
            [admitted(Some(7)), admitted(None), Verdict::Refused(Met::Ip), admitted(Some(8))]
        );
    }

    #[test]
    fn a_young_record_decides_about_nobody() {
        let call = apply(SessionPolicy::Reject, &[None, None]);
        let Ok(Reply::Applied(applied)) = Reply::parse(&call, answer(250, "", &[], &[])) else {
            panic!("not understood");
        };
        assert_eq!((applied.wait, applied.verdicts.len()), (Duration::from_millis(250), 0));
    }

    #[test]
    fn what_is_no_answer_to_the_call_is_an_error() {
        let call = apply(SessionPolicy::Replace, &[Some("a")]);
        for bad in [
            Value::Nil,
            Value::Array(Vec::new()),
            texts(&["joined", "1"]),
            texts(&["what"]),
            texts(&["stale", "x"]),
            texts(&["stale"]),
            texts(&["stale", "1", "no-tag"]),
            answer(0, "", &[], &[]),
            answer(0, "aa", &["1"], &[]),
            answer(0, "a", &[], &[]),
            answer(0, "x", &["1"], &[]),
            answer(0, "a", &["1"], &["s"]),
            answer(0, "a", &["1"], &["s1", "2"]),
        ] {
            let parsed = Reply::parse(&call, bad.clone());
            assert!(parsed.is_err(), "{bad:?}: {parsed:?}");
        }
        assert_eq!(Reply::parse(&call, texts(&["lost"])).ok(), Some(Reply::Lost));
    }
}
