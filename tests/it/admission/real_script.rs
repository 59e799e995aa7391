//! Random histories on a real Redis with the real scripts, step by step beside the model that is searched exhaustively.

use std::collections::BTreeMap;

use fanlight::admission::NodeTag;
use fanlight::admission::key::Key;
use fanlight::admission::lease::call::Call;
use fanlight::admission::lease::reply::Reply;
use fanlight::admission::lease::store::{APPLY, JOIN, LEAVE, call_keys};
use fanlight::admission::local::{Limits, SessionPolicy};
use fanlight::redis::Keys;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Commands as _, Connection, Script, Value};

use super::redis_model::RedisModel;
use super::world::{Action, Backend, Leases, World, request};
use crate::support::RedisServer;

type Contents = BTreeMap<String, BTreeMap<String, String>>;

/// A real Redis. Nothing in it ends by itself: actions end it.
struct RealRedis {
    connection: Connection,
    keys: Keys,
    scripts: [Script; 3],
    snapshot: Option<Contents>,
}

impl RealRedis {
    fn new(redis: &RedisServer) -> Self {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
        let scripts = [JOIN, APPLY, LEAVE].map(Script::new);
        Self { connection, keys: Keys::new(redis.prefix()), scripts, snapshot: None }
    }

    fn contents(&mut self) -> Contents {
        let names: Vec<String> = self.connection.keys("*").unwrap();
        names.into_iter().map(|name| (name.clone(), self.connection.hgetall(&name).unwrap())).collect()
    }
}

impl Backend for RealRedis {
    fn execute(&mut self, call: &Call) -> Reply {
        let script = match call {
            Call::Join { .. } => &self.scripts[0],
            Call::Apply(_) => &self.scripts[1],
            Call::Leave { .. } => &self.scripts[2],
        };
        let mut invocation = script.prepare_invoke();
        for key in call_keys(&self.keys, call) {
            invocation.key(key);
        }
        invocation.arg(call.arguments());
        let answer: Value = invocation.invoke(&mut self.connection).unwrap();
        Reply::parse(call, answer).unwrap()
    }

    fn expire(&mut self, tag: NodeTag) {
        let _: () = self.connection.del(self.keys.lease(&tag.to_string())).unwrap();
    }

    fn lose_everything(&mut self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection).unwrap();
    }

    fn age(&mut self) {
        let _: () = self.connection.hdel(self.keys.leases(), "@born").unwrap();
    }

    fn snapshot(&mut self) {
        self.snapshot = Some(self.contents());
    }

    fn rewind(&mut self) -> bool {
        let Some(snapshot) = self.snapshot.take() else { return false };
        self.lose_everything();
        for (name, fields) in snapshot {
            let fields: Vec<(String, String)> = fields.into_iter().collect();
            let _: () = self.connection.hset_multiple(name, &fields).unwrap();
        }
        true
    }

    fn leases(&mut self) -> Leases {
        let prefix = self.keys.lease("");
        let counts = |fields: BTreeMap<String, String>| {
            let counts = fields.into_iter().filter(|(field, _)| !field.starts_with('@'));
            counts.map(|(field, value)| (key_of(&field), size(&value))).collect()
        };
        let contents = self.contents().into_iter();
        contents
            .filter_map(|(name, fields)| Some((name.strip_prefix(&prefix)?.parse().unwrap(), counts(fields))))
            .collect()
    }

    fn has_lease(&mut self, tag: NodeTag) -> bool {
        self.connection.exists(self.keys.lease(&tag.to_string())).unwrap()
    }

    fn is_young(&mut self) -> bool {
        self.connection.hexists(self.keys.leases(), "@born").unwrap()
    }
}

fn key_of(field: &str) -> Key {
    let all = (0..4).map(request).flat_map(|r| [Some(Key::Ip(r.ip)), r.session.map(Key::Session)]);
    all.flatten().find(|key| key.to_string() == field).unwrap_or_else(|| panic!("a strange field: {field}"))
}

fn size(value: &str) -> u32 {
    value.strip_prefix('@').map_or_else(|| value.parse().unwrap(), |stamps| stamps.split(',').count() as u32)
}

fn action() -> impl Strategy<Value = Action> {
    let n = 0..3usize;
    prop_oneof![
        8 => (n.clone(), 0..4usize).prop_map(|(n, r)| Action::Arrive { n, r }),
        1 => n.clone().prop_map(|n| Action::Cancel { n }),
        12 => n.clone().prop_map(|n| Action::Send { n }),
        12 => n.clone().prop_map(|n| Action::Execute { n }),
        12 => n.clone().prop_map(|n| Action::Receive { n }),
        3 => n.clone().prop_map(|n| Action::LoseAnswer { n }),
        3 => (0..3usize).prop_map(|at| Action::ExecuteLate { at }),
        2 => n.clone().prop_map(|n| Action::AdmitAlone { n }),
        4 => n.clone().prop_map(|n| Action::Release { n }),
        1 => n.clone().prop_map(|n| Action::Pause { n }),
        2 => n.clone().prop_map(|n| Action::Resume { n }),
        2 => n.clone().prop_map(|n| Action::Expire { n }),
        1 => n.clone().prop_map(|n| Action::Die { n }),
        2 => n.prop_map(|n| Action::Restart { n }),
        1 => Just(Action::Bury),
        1 => Just(Action::Flush),
        1 => Just(Action::Snapshot),
        1 => Just(Action::Rewind),
        8 => Just(Action::Age),
    ]
}

/// What both worlds must have in common after every step.
fn view<B: Backend>(world: &mut World<B>) -> String {
    let leases = world.redis.leases();
    let node = |node: &super::world::Node| {
        let mut stamps: Vec<_> = node.connections.iter().filter_map(|(_, stamp)| *stamp).collect();
        stamps.sort_unstable();
        let rank = |stamp: Option<u64>| stamp.map(|stamp| stamps.binary_search(&stamp));
        let connections: Vec<_> =
            node.connections.iter().map(|(request, stamp)| (*request, rank(*stamp))).collect();
        let counts: Vec<_> = node.ledger.counts().collect();
        let heard = node.flight.as_ref().and_then(|flight| flight.reply.as_ref()).map(kind);
        format!("{connections:?} {counts:?} {} {heard:?}", node.lease.is_joined())
    };
    format!("{leases:?} {:?}", world.nodes.iter().map(node).collect::<Vec<_>>())
}

fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Lost => "lost",
        Reply::Stale(_) => "stale",
        Reply::Joined(_) => "joined",
        Reply::Applied(_) => "applied",
        Reply::Left => "left",
    }
}

fn run(redis: &RedisServer, limits: Limits, actions: &[Action]) -> Result<(), TestCaseError> {
    let mut real = World::new(RealRedis::new(redis), 3, limits);
    let mut model = World::new(RedisModel::default(), 3, limits);
    for (at, action) in actions.iter().enumerate() {
        prop_assert_eq!(real.act(*action), model.act(*action), "{} {:?}", at, action);
        prop_assert_eq!(view(&mut real), view(&mut model), "{} {:?}", at, action);
        prop_assert_eq!(real.violation(), None, "{} {:?}", at, action);
    }
    real.heal(actions.len().is_multiple_of(2));
    prop_assert_eq!(real.disagreement(), None);
    real.heartbeat_everywhere();
    real.heartbeat_everywhere();
    prop_assert_eq!(real.unreplaced(), None);
    prop_assert_eq!(real.disagreement(), None);
    Ok(())
}

fn histories(redis: &RedisServer, limits: Limits) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let config = Config { cases, max_shrink_iters: 2000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let histories = prop::collection::vec(action(), 20..150);
    runner
        .run(&histories, |actions| run(redis, limits, &actions))
        .unwrap_or_else(|e| panic!("{limits:?}: {e}"));
}

#[tokio::test]
async fn the_scripts_do_what_the_model_does_and_the_limits_hold_in_random_histories() {
    let redis = RedisServer::start().await;
    for policy in [SessionPolicy::Reject, SessionPolicy::Replace] {
        for (per_ip, per_session) in [(2, 0), (2, 1), (0, 2)] {
            histories(&redis, Limits { per_ip, per_session, policy });
        }
    }
}

/// Found by the test above: versions that only counted up were used again after a replica had taken over, and node 0 would
/// not have seen node 2.
#[tokio::test]
async fn a_version_from_before_a_takeover_is_not_taken_for_a_new_one() {
    let redis = RedisServer::start().await;
    let call = |n| [Action::Send { n }, Action::Execute { n }, Action::Receive { n }];
    let mut actions = call(0).to_vec();
    actions.extend([Action::Snapshot]);
    actions.extend([1, 0].into_iter().flat_map(call));
    actions.extend([Action::Rewind]);
    actions.extend([2, 0].into_iter().flat_map(call));
    let limits = Limits { per_ip: 2, per_session: 0, policy: SessionPolicy::Reject };
    run(&redis, limits, &actions).unwrap();
}
