//! The heartbeat's protocol, driven directly against a real Redis: members count, beat, lose their answers, die, and come back after a
//! pause; Redis loses everything. At every step the totals must hold nothing twice, and in the end everything that they can.

use std::collections::BTreeMap;
use std::time::Duration;

use fanlight::clock::Clock;
use fanlight::cluster::counts::{self, Counts};
use fanlight::cluster::{Cluster, Report};
use fanlight::redis::{Commands, Config};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{Fault, RedisServer, TcpProxy};

/// A node of the protocol: what it has counted, and what the model knows about that.
struct Member {
    name: usize,
    cluster: Cluster,
    counted: u64,
    /// What it had counted when it was answered last.
    answered: u64,
    /// What it said first after that.
    unanswered: Option<u64>,
    /// Redis has forgotten what comes from it.
    forgotten: bool,
    /// What it may have lost for good: Redis had forgotten it while an answer was out.
    slack: u64,
    /// The copy of the totals that it took with its last answered heartbeat: at least so much of each member.
    copy: Option<BTreeMap<usize, u64>>,
}

/// The totals as the model knows them.
#[derive(Default)]
struct Model {
    /// What the totals hold of each member at least, and at most.
    least: BTreeMap<usize, u64>,
    most: BTreeMap<usize, u64>,
    /// Redis has lost everything and nobody has brought it back.
    lost: bool,
    flushed: bool,
    forgot: bool,
}

struct Cast {
    redis: RedisServer,
    proxy: TcpProxy,
    raw: redis::Connection,
    members: Vec<Member>,
    model: Model,
    names: usize,
    shown: u64,
}

fn report(counted: u64) -> Report {
    Report { counts: Counts::from_iter([(counts::OPENED, counted)]), ..Report::default() }
}

impl Cast {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let proxy = TcpProxy::start(redis.addr()).await;
        let raw = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        Self { redis, proxy, raw, members: vec![], model: Model::default(), names: 0, shown: 0 }
    }

    fn join(&mut self) {
        let url = format!("redis://{}", self.proxy.addr());
        let mut config = Config::new(&url, self.redis.prefix()).unwrap();
        config.response_timeout = Duration::from_millis(100);
        let cluster = Cluster::shared(Commands::new(config).unwrap(), [], Clock::system());
        self.members.push(Member {
            name: self.names,
            cluster,
            counted: 0,
            answered: 0,
            unanswered: None,
            forgotten: false,
            slack: 0,
            copy: None,
        });
        self.names += 1;
    }

    /// A heartbeat whose answer arrives.
    async fn beat(&mut self, member: usize) {
        let member = &mut self.members[member];
        let model = &mut self.model;
        let (name, counted) = (member.name, member.counted);
        model.most.insert(name, counted);
        let mut answer = Ok(());
        for _ in 0..20 {
            // The first try after lost answers may meet a connection that is out of step.
            answer = member.cluster.beat(&report(counted)).await;
            if answer.is_ok() {
                if model.lost && member.copy.is_some() {
                    // It brought its copy back. Of the others the totals hold what that says.
                    model.lost = false;
                    let copy = member.copy.clone().unwrap_or_default();
                    model
                        .least
                        .iter_mut()
                        .for_each(|(name, least)| *least = copy.get(name).copied().unwrap_or(0).max(*least));
                }
                if std::mem::take(&mut member.forgotten) {
                    member.slack += member.unanswered.map_or(0, |said| said - member.answered);
                }
                model.least.insert(name, counted - member.slack);
                (member.answered, member.unanswered) = (counted, None);
                member.copy = Some(model.least.clone());
                return;
            }
        }
        panic!("no heartbeat is answered: {answer:?}");
    }

    /// A heartbeat that may arrive or not, and whose answer does not.
    async fn beat_unanswered(&mut self, member: usize, fault: Fault) {
        self.proxy.set(fault);
        if fault == Fault::Refuse {
            self.proxy.cut().await;
        }
        let member = &mut self.members[member];
        self.model.most.insert(member.name, member.counted);
        member.unanswered.get_or_insert(member.counted);
        let answer = member.cluster.beat(&report(member.counted)).await;
        assert!(answer.is_err(), "the answer came through");
        self.proxy.set(Fault::None);
        // What a black hole swallowed comes out now, after whatever was sent since.
        if fault != Fault::BlackHole {
            self.proxy.cut().await;
        }
    }

    /// A member that goes in order: its last counts are in the totals for good.
    async fn leave(&mut self, member: usize) {
        let Member { name, cluster, counted, copy, forgotten, slack, .. } = self.members.remove(member);
        self.model.most.insert(name, counted);
        // One that would bring the totals back while it goes is not part of this model.
        if forgotten || self.model.lost && copy.is_some() {
            return;
        }
        if cluster.leave(&report(counted).counts).await.is_ok() {
            self.model.least.insert(name, counted - slack);
        }
    }

    /// Redis forgets what each member has counted, as after a day of silence, but not the totals.
    async fn forget_members(&mut self) {
        // A day passes: at least a tick of the clock that tells what was before a copy and what after.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let pattern = self.redis.key("@counted:*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut self.raw).unwrap();
        for key in keys {
            let (): () = redis::cmd("DEL").arg(key).query(&mut self.raw).unwrap();
        }
        self.model.forgot = true;
        for member in &mut self.members {
            member.forgotten = true;
        }
    }

    fn flush(&mut self) {
        let (): () = redis::cmd("FLUSHALL").query(&mut self.raw).unwrap();
        let (): () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut self.raw).unwrap();
        (self.model.lost, self.model.flushed) = (true, true);
        self.model.least.values_mut().for_each(|least| *least = 0);
        self.shown = 0;
    }

    /// Looks at the totals: nothing twice, and they do not fall while Redis keeps its data.
    fn check(&mut self, seed: u64) -> u64 {
        let key = self.redis.key("@totals");
        let total: Option<u64> =
            redis::cmd("HGET").arg(key).arg(counts::OPENED).query(&mut self.raw).unwrap();
        let total = total.unwrap_or(0);
        let most: u64 = self.model.most.values().sum();
        assert!(total <= most, "seed {seed}: {total} counted of {most}");
        assert!(total >= self.shown, "seed {seed}: fell from {} to {total}", self.shown);
        self.shown = total;
        total
    }

    async fn step(&mut self, rng: &mut SmallRng) {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let Some(&member) = all.choose(rng) else { return self.join() };
        match rng.random_range(0..100) {
            0..45 => {
                self.members[member].counted += rng.random_range(1..100);
                self.beat(member).await;
            }
            45..65 => self.members[member].counted += rng.random_range(1..100),
            65..75 => self.beat(member).await,
            75..82 => {
                let fault = *[Fault::SwallowAnswers, Fault::Refuse, Fault::BlackHole].choose(rng).unwrap();
                self.beat_unanswered(member, fault).await;
            }
            82..90 if self.members.len() < 5 => self.join(),
            90..93 if self.members.len() > 1 => drop(self.members.remove(member)),
            93..96 if self.members.len() > 1 => self.leave(member).await,
            96..99 => self.flush(),
            99..100 => self.forget_members().await,
            _ => {}
        }
    }
}

async fn play(seed: u64, steps: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut cast = Cast::new().await;
    cast.join();
    for _ in 0..steps {
        cast.step(&mut rng).await;
        cast.check(seed);
    }
    // Everybody who lives says everything, those with a copy first, as it is when all beat once a second.
    let mut order: Vec<usize> = (0..cast.members.len()).collect();
    order.sort_by_key(|member| cast.members[*member].copy.is_none());
    for member in order {
        cast.beat(member).await;
    }
    let total = cast.check(seed);
    // Of a node that was silent for a day a copy holds only the sum: when that comes back, it is not known how much was the node's.
    let knows_all = !(cast.model.flushed && cast.model.forgot);
    let least: u64 = cast.model.least.values().sum();
    assert!(total >= least || !knows_all, "seed {seed}: {total} of at least {least}");
}

/// Plays on two threads, a Redis for each play.
async fn play_all(seeds: std::ops::Range<u64>, steps: usize) {
    let seeds: Vec<u64> = seeds.collect();
    for pair in seeds.chunks(2) {
        futures_util::future::join_all(pair.iter().map(|seed| play(*seed, steps))).await;
    }
}

#[tokio::test]
async fn whatever_happens_nothing_is_counted_twice_and_nothing_that_can_be_known_is_lost() {
    let seeds = std::env::var("FANLIGHT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    play_all(0..seeds, 80).await;
}
