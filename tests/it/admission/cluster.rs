//! Several doors on one Redis, as real as they come: the program's own, on its own connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanlight::admission::{
    Admission, Config, IpKey, Limits, NodeTag, Permit, RedisLeases, Refusal, Request, SessionKey,
    SessionPolicy, WithoutRedis,
};
use fanlight::clock::Clock;

use crate::support::{RedisServer, eventually, leases, secs};

/// The lease's time to live in these tests.
pub(super) const TTL: Duration = secs(2);

/// A Redis and what its doors have in common.
pub(super) struct Cluster {
    pub(super) redis: RedisServer,
    pub(super) config: Config,
}

impl Cluster {
    pub(super) async fn new(limits: Limits) -> Self {
        let config = Config {
            max_connections: 100_000,
            limits,
            connect_rate: None,
            lease_ttl: TTL,
            without_redis: WithoutRedis::Closed,
        };
        Self { redis: RedisServer::start().await, config }
    }

    /// A door that reaches Redis directly.
    pub(super) fn door(&self) -> Arc<Admission> {
        self.door_at(&self.redis.url(), &self.config)
    }

    /// A door that reaches Redis at `url`.
    pub(super) fn door_at(&self, url: &str, config: &Config) -> Arc<Admission> {
        let redis = fanlight::redis::Config::new(url, self.redis.prefix()).unwrap();
        let store = Arc::new(RedisLeases::new(redis));
        Arc::new(Admission::clustered(config.clone(), store, Clock::system(), |_| {}))
    }

    pub(super) fn doors(&self, count: usize) -> Vec<Arc<Admission>> {
        (0..count).map(|_| self.door()).collect()
    }

    /// Doors that are ready: a new record has made its first newcomers wait already.
    pub(super) async fn ready_doors(&self, count: usize) -> Vec<Arc<Admission>> {
        let doors = self.doors(count);
        self.ready(&doors).await;
        doors
    }

    async fn ready(&self, doors: &[Arc<Admission>]) {
        for door in doors {
            eventually("the door opens", secs(20), async || door.admit(of(250)).await.map(drop)).await;
        }
        self.comes_to(&BTreeMap::new()).await;
    }

    /// What all leases say together, by field.
    pub(super) async fn counted(&self) -> BTreeMap<String, u64> {
        leases::counted(&self.redis).await
    }

    /// Every key of the limits.
    pub(super) async fn keys(&self) -> Vec<String> {
        leases::keys(&self.redis).await
    }

    /// Waits until the leases say `expected`.
    pub(super) async fn comes_to(&self, expected: &BTreeMap<String, u64>) {
        leases::come_to(&self.redis, expected).await;
    }
}

/// The usual limits.
pub(super) const fn limits(per_ip: u32, per_session: u32, policy: SessionPolicy) -> Limits {
    Limits { per_ip, per_session, policy }
}

/// Somebody at 192.0.2.`last`.
pub(super) fn of(last: u8) -> Request {
    Request { ip: IpKey::V4([192, 0, 2, last]), session: None }
}

/// Somebody at 192.0.2.`last` with a session.
pub(super) fn with(last: u8, session: &str) -> Request {
    Request { session: Some(SessionKey::of(session)), ..of(last) }
}

/// How many connections there are, and the most there ever were.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of them.
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    permit: Option<Permit>,
}

impl Crowd {
    pub(super) async fn enter(
        self: &Arc<Self>,
        door: &Admission,
        request: Request,
    ) -> Result<Guest, Refusal> {
        let permit = door.admit(request).await?;
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Ok(Guest { crowd: Arc::clone(self), permit: Some(permit) })
    }

    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.crowd.now.fetch_sub(1, Ordering::SeqCst);
        drop(self.permit.take());
    }
}

/// Ready doors that nudge each other, as the program's nodes do.
pub(super) async fn nudging_doors(cluster: &Cluster, count: usize) -> Vec<Arc<Admission>> {
    let doors: Arc<std::sync::OnceLock<Vec<Arc<Admission>>>> = Arc::default();
    let made = (0..count).map(|_| {
        let all = Arc::clone(&doors);
        let redis = fanlight::redis::Config::new(&cluster.redis.url(), cluster.redis.prefix()).unwrap();
        let nudge = move |tag: NodeTag| {
            let nudged = all.get().into_iter().flatten().filter(|door| door.tag() == Some(tag));
            nudged.for_each(|door| door.nudged());
        };
        let store = Arc::new(RedisLeases::new(redis));
        Arc::new(Admission::clustered(cluster.config.clone(), store, Clock::system(), nudge))
    });
    let made: Vec<_> = made.collect();
    let _ = doors.set(made.clone());
    cluster.ready(&made).await;
    made
}
