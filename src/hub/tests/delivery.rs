//! Who gets what, in which order and framing.

use super::*;

#[tokio::test]
async fn a_block_reaches_every_subscriber_of_its_topic_and_nobody_else() {
    let hub = Fixture::new(&config());
    let mut both = hub.bare(&[0, 1]).await;
    let mut one = hub.bare(&[1]).await;
    let mut chunked = hub.connect(&[0], Framing::Chunked, Some(":hello\n\n")).await;
    hub.say(0, 0, "zero").await;
    hub.say(1, 0, "one").await;
    both.expect(":hello\n\ndata: zero\n\ndata: one\n\n");
    one.expect(":hello\n\ndata: one\n\n");
    chunked.expect("8\r\n:hello\n\n\r\nc\r\ndata: zero\n\n\r\n");
    hub.until("all sent", |c| c.events_sent == 4 && c.waiting == 0).await;
}

#[tokio::test]
async fn a_burst_arrives_complete_and_in_order_in_both_framings() {
    let hub = Fixture::new(&Config { buffer_events: 4, ..config() });
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(hub.bare(&[0, 1]).await);
    }
    let mut expected = ":hello\n\n".to_owned();
    for i in 0..500 {
        let topic = u32::from(i % 7 == 0);
        hub.say(topic, 0, &i.to_string()).await;
        expected += &format!("data: {i}\n\n");
    }
    for client in &mut clients {
        client.expect(&expected);
    }
}

#[tokio::test]
async fn one_event_larger_than_the_buffer_is_still_delivered() {
    let hub = Fixture::new(&Config { buffer_bytes: 1024, ..config() });
    let mut client = hub.bare(&[0]).await;
    let data = "y".repeat(2_000_000);
    hub.say(0, 0, &data).await;
    client.expect(&format!(":hello\n\ndata: {data}\n\n"));
}
