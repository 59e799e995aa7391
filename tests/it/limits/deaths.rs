//! Nodes die and stand still while they hold slots.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::crowd::{SOMEBODY, SOMEBODYS_FIELD, TTL, builder, nodes, of, storm};
use crate::support::{Node, RedisServer, SseClient, check, eventually, full, leases, secs};

const SLOTS: usize = 20;

/// A heartbeat of the lease.
const HEARTBEAT: Duration = Duration::from_millis(500);

async fn hold(node: &Node, count: usize) -> Vec<SseClient> {
    join_all((0..count).map(async |_| of(SOMEBODY).open(node.addr()).await)).await
}

/// When all slots of the dead node are taken again at the other.
async fn all_free(survivor: &Node, died: Instant, slots: usize) -> Duration {
    let mut inside = Vec::new();
    eventually("all slots are free", TTL + secs(2), async || {
        let (more, _) = storm(&[survivor.addr()], slots - inside.len()).await;
        inside.extend(more);
        check(inside.len() == slots, inside.len())
    })
    .await;
    died.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_slots_are_free_within_its_lease_and_two_seconds_and_nothing_of_it_stays() {
    let redis = RedisServer::start().await;
    let mut survivor = nodes(&redis, 1, SLOTS).await.remove(0);
    let deaths = if full() { 20 } else { 2 };
    let mut slowest = Duration::ZERO;
    for death in 0..deaths {
        let before = leases::keys(&redis).await;
        let mut victim = builder(&redis, SLOTS).start().await;
        let held = hold(&victim, SLOTS).await;
        let (inside, refused) = storm(&[survivor.addr()], 5).await;
        assert_eq!((inside.len(), refused.len()), (0, 5), "death {death}");
        victim.kill();
        let died = Instant::now();
        slowest = slowest.max(all_free(&survivor, died, SLOTS).await);
        drop(held);
        eventually("no key of it is left", (TTL * 2).saturating_sub(died.elapsed()), async || {
            let now = leases::keys(&redis).await;
            check(now.len() == before.len(), format!("{now:?}"))
        })
        .await;
        leases::come_to(&redis, &BTreeMap::new()).await;
    }
    println!("{deaths} deaths with a lease of {TTL:?}: all slots free after at most {slowest:?}");
    survivor.kill();
    eventually("no key of the limits is left", TTL * 2, async || {
        let left = leases::keys(&redis).await;
        check(left.is_empty(), format!("{left:?}"))
    })
    .await;
    // What is left of the dead are counts of the totals, and nothing but the clock stays for ever.
    for key in redis.cli(&["KEYS", "*"]).await.lines() {
        let expires: i64 = redis.cli(&["PTTL", key]).await.parse().unwrap();
        assert!(expires != -1 || key.ends_with("@clock"), "{key} stays for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_for_three_leases_is_right_within_a_heartbeat_of_waking() {
    let redis = RedisServer::start().await;
    let mut nodes = nodes(&redis, 2, 3).await;
    let counted = |count| BTreeMap::from([(SOMEBODYS_FIELD.to_owned(), count)]);
    let held = hold(&nodes[0], 2).await;
    leases::come_to(&redis, &counted(2)).await;
    nodes[0].pause();
    let paused = Instant::now();
    leases::come_to(&redis, &BTreeMap::new()).await;
    // Its two connections are real and uncounted: that is the bound.
    let (others, refused) = storm(&[nodes[1].addr()], 10).await;
    assert_eq!((others.len(), refused.len()), (3, 7));
    while paused.elapsed() < TTL * 3 {
        // `counted` asserts that no count is below 1.
        leases::come_to(&redis, &counted(3)).await;
    }
    nodes[0].resume();
    let woke = Instant::now();
    eventually("it tells what it holds", HEARTBEAT * 4, async || {
        let now = leases::counted(&redis).await;
        check(now == counted(5), format!("{now:?}"))
    })
    .await;
    println!("right {:?} after waking", woke.elapsed());
    let (inside, _) = storm(&[nodes[0].addr(), nodes[1].addr()], 10).await;
    assert_eq!(inside.len(), 0, "the sum is above the limit");
    drop((held, others));
    leases::come_to(&redis, &BTreeMap::new()).await;
    let (inside, _) = storm(&[nodes[0].addr(), nodes[1].addr()], 10).await;
    assert_eq!(inside.len(), 3);
}
