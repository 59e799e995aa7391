//! `fanlight token`, and commands that take what it prints.

use super::run;
use crate::support::{Node, secs};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn token(arguments: &[&str]) -> String {
    let ran = run(&[&["token"], arguments].concat(), &[("FANLIGHT_JWT_SECRET", SECRET)]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains(ran.stdout.trim()), "only standard output has it: {}", ran.stderr);
    ran.stdout.trim().to_owned()
}

#[tokio::test]
async fn a_signed_token_publishes_and_opens_what_it_names() {
    let node = Node::builder().set("FANLIGHT_JWT_SECRET", SECRET).start().await;
    let publisher = token(&["--publish", "private:*", "--ttl", "1m"]);
    let (url, path) =
        (node.url(), format!("/stream?channels=private:a&token={}", token(&["--read=private:a,x"])));
    let mut client = node.subscribe(&path).await;
    let publish = |channel: &'static str, token: String| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || {
            run(&["publish", "--url", &url, channel, "7"], &[("FANLIGHT_TOKEN", &token)])
        })
    };
    let published = publish("private:a", publisher.clone()).await.unwrap();
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(client.next_event(secs(10)).await.unwrap().text(), "7");
    for (channel, token, words) in [
        ("jobs", publisher, "may not publish"),
        ("private:a", token(&["--admin", "--read=*"]), "may not publish"),
        ("private:a", "canary".to_owned(), "FANLIGHT_TOKEN"),
        ("private:a", String::new(), "FANLIGHT_TOKEN"),
    ] {
        let refused = publish(channel, token).await.unwrap();
        assert!(refused.code == 1 && refused.stderr.contains(words), "{channel}: {}", refused.stderr);
        assert!(!refused.all().contains("canary"), "{}", refused.all());
    }
}

#[test]
fn without_a_secret_or_with_a_wrong_argument_nothing_is_signed() {
    let secret = [("FANLIGHT_JWT_SECRET", SECRET)];
    for (arguments, variables, words) in [
        (&["token"][..], &[][..], "FANLIGHT_JWT_SECRET"),
        (&["token", "--read", "a b"], &secret, "--read \"a b\""),
        (&["token", "--publish=all"], &secret, "--publish \"all\""),
        (&["token", "--ttl=0s"], &secret, "--ttl \"0s\""),
        (&["token", "--ttl=3651days"], &secret, "--ttl"),
    ] {
        let ran = run(arguments, variables);
        assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains(words), "{}", ran.all());
    }
}
