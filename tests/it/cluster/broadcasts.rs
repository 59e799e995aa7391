//! An event that several nodes hear is counted once, whoever of them dies.

use std::time::Duration;

use fanlight::clock::Clock;
use fanlight::cluster::{Cluster, Report};
use fanlight::protocol::channel::ChannelName;
use fanlight::redis::{Commands, Config};

use crate::support::{Fault, RedisServer, TcpProxy};

struct Cast {
    redis: RedisServer,
    proxy: TcpProxy,
    members: Vec<Cluster>,
    channel: ChannelName,
}

impl Cast {
    async fn new(members: usize) -> Self {
        let redis = RedisServer::start().await;
        let proxy = TcpProxy::start(redis.addr()).await;
        let channel = ChannelName::parse("jobs").unwrap();
        let mut cast = Self { redis, proxy, members: vec![], channel };
        (0..members).for_each(|_| cast.join());
        cast
    }

    fn join(&mut self) {
        let url = format!("redis://{}", self.proxy.addr());
        let mut config = Config::new(&url, self.redis.prefix()).unwrap();
        config.response_timeout = Duration::from_millis(300);
        let commands = Commands::new(config).unwrap();
        self.members.push(Cluster::shared(commands, [self.channel.clone()], Clock::system()));
    }

    /// Everybody hears `count` events, clearly after the last heartbeat: within a tenth of a second it is not told who heard first.
    async fn hear(&self, count: usize) {
        tokio::time::sleep(Duration::from_millis(120)).await;
        for member in &self.members {
            (0..count).for_each(|_| assert!(member.heard().note(&self.channel)));
        }
    }

    async fn beat(&self, order: &[usize]) -> u64 {
        for member in order {
            let mut answer = self.members[*member].beat(&Report::default()).await;
            if answer.is_err() {
                // A connection that was cut before.
                answer = self.members[*member].beat(&Report::default()).await;
            }
            answer.unwrap();
        }
        let key = self.redis.key("@totals");
        self.redis.cli(&["HGET", &key, "broadcasts"]).await.parse().unwrap_or(0)
    }
}

#[tokio::test]
async fn whoever_counted_last_goes_on_and_nobody_counts_besides() {
    let cast = Cast::new(3).await;
    cast.hear(10).await;
    assert_eq!(cast.beat(&[0, 1, 2]).await, 10);
    for round in 1..=3 {
        cast.hear(5).await;
        assert_eq!(cast.beat(&[2, 0, 1]).await, 10 + 5 * round, "whoever speaks first");
    }
}

#[tokio::test]
async fn another_one_counts_on_when_the_one_who_counted_is_gone() {
    let mut cast = Cast::new(3).await;
    cast.hear(10).await;
    assert_eq!(cast.beat(&[0, 1, 2]).await, 10);
    cast.hear(5).await;
    drop(cast.members.remove(0));
    assert_eq!(cast.beat(&[0, 1]).await, 15, "what it heard last, the others have heard, too");
    cast.join();
    cast.hear(5).await;
    assert_eq!(cast.beat(&[2, 1, 0]).await, 20, "a newcomer counts nothing besides");
}

#[tokio::test]
async fn a_lost_answer_or_a_loss_of_data_counts_nothing_twice() {
    let cast = Cast::new(2).await;
    cast.hear(10).await;
    assert_eq!(cast.beat(&[0, 1]).await, 10);
    for fault in [Fault::SwallowAnswers, Fault::Refuse] {
        cast.hear(5).await;
        cast.proxy.set(fault);
        if fault == Fault::Refuse {
            cast.proxy.cut().await;
        }
        assert!(cast.members[0].beat(&Report::default()).await.is_err());
        cast.proxy.set(Fault::None);
        cast.proxy.cut().await;
    }
    cast.hear(5).await;
    assert_eq!(cast.beat(&[1, 0, 1]).await, 25);
    cast.redis.cli(&["FLUSHALL"]).await;
    cast.hear(5).await;
    assert_eq!(cast.beat(&[0, 1, 0]).await, 30);
}

#[tokio::test]
async fn a_node_that_heard_nothing_for_a_while_takes_part_again() {
    let cast = Cast::new(2).await;
    for (hears, total) in [(0, 3), (1, 6), (0, 9), (1, 12)] {
        tokio::time::sleep(Duration::from_millis(120)).await;
        (0..3).for_each(|_| assert!(cast.members[hears].heard().note(&cast.channel)));
        assert_eq!(cast.beat(&[1, 0]).await, total, "only {hears} hears it");
    }
}
