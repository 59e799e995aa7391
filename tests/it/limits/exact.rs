//! A limit of L admits exactly L, however many try at once and wherever.

use std::collections::BTreeMap;

use super::crowd::{SOMEBODYS_FIELD, addresses, nodes, storm};
use crate::support::{RedisServer, full, leases};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_who_try_at_once_at_three_nodes_exactly_a_hundred_get_in() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis, 3, 100).await;
    let trials = if full() { 100 } else { 5 };
    for trial in 0..trials {
        let (inside, refused) = storm(&addresses(&nodes), 1000).await;
        assert_eq!((inside.len(), refused.len()), (100, 900), "trial {trial}");
        assert!(refused.iter().all(|status| *status == 429), "trial {trial}: {refused:?}");
        leases::come_to(&redis, &BTreeMap::from([(SOMEBODYS_FIELD.to_owned(), 100)])).await;
        drop(inside);
        leases::come_to(&redis, &BTreeMap::new()).await;
    }
    println!("{trials} trials of 1,000 at a limit of 100: 100 came in every time");
}
