//! However a connection ends, it has ended once.

use std::io::Write;

use super::*;

#[tokio::test]
async fn a_membership_is_given_back_exactly_once_however_the_connection_ends() {
    let hub = Fixture::new(&config());
    let (gone, closed, reset) = (hub.bare(&[0]).await, hub.bare(&[0]).await, hub.bare(&[0]).await);
    let mut kept = hub.bare(&[0]).await;
    drop(gone);
    hub.hub.close(closed.key, CloseReason::Kicked).await;
    hub.hub.close(closed.key, CloseReason::Kicked).await;
    socket2::SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    let counters = hub.until("three ended", |c| c.connections == 1).await;
    assert_eq!((counters.closed_by_client, counters.closed_for(CloseReason::Kicked)), (2, 1));
    assert_eq!(hub.dropped.load(Ordering::SeqCst), 3);
    let dropped = Arc::clone(&hub.dropped);
    drop(hub);
    assert_eq!(dropped.load(Ordering::SeqCst), 4, "the hub's end is the end of the last");
    assert_eq!(kept.rest(), ":hello\n\n");
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_ended() {
    let hub = Fixture::new(&config());
    let mut client = hub.bare(&[0]).await;
    client.stream.set_write_timeout(Some(ROUND)).unwrap();
    // Ends with an error as soon as the hub has closed the socket.
    while client.stream.write_all(&[0; 65_536]).is_ok() {}
    hub.until("ended", |c| c.connections == 0).await;
}

#[tokio::test]
async fn a_stream_that_is_complete_ends_after_its_last_block() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Chunked, Some(":\n\n")).await;
    let last = Broadcast { topic: topic(0), block: block("end"), n: 0, last: true, born: None };
    hub.hub.broadcast(last).await;
    hub.say(0, 0, "too late").await;
    assert_eq!(client.rest(), "3\r\n:\n\n\r\nb\r\ndata: end\n\n\r\n0\r\n\r\n");
    assert_eq!(hub.until("ended", |c| c.connections == 0).await.completed, 1);
}
