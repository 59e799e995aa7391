//! Listing connections, and closing those that match.

use super::*;

#[tokio::test]
async fn pages_of_a_listing_hold_every_matching_connection_once() {
    let hub = Fixture::new(&config());
    let mut clients = Vec::new();
    for i in 0..30 {
        clients.push(hub.bare(&[i % 3, 9]).await);
    }
    let session = |name: &str| Matching { session: Some(name.into()), ..Matching::default() };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut page = hub.hub.list(Selection { matching: session("s1"), after, limit: 3 }).await;
        page.sort_by_key(|listed| listed.id);
        page.truncate(3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page);
    }
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|listed| *listed.topics == [topic(1), topic(9)]));
    assert!(found.windows(2).all(|pair| pair[0].id < pair[1].id));
    let one = Matching { topic: Some(topic(2)), ..Matching::default() };
    assert_eq!(hub.hub.close_matching(one, CloseReason::Kicked).await, 10);
    assert_eq!(hub.hub.close_matching(session("nobody"), CloseReason::Kicked).await, 0);
    hub.until("kicked", |c| c.connections == 20 && c.closed_for(CloseReason::Kicked) == 10).await;
}
