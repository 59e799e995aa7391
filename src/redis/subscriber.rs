//! One RESP3 connection that hears what is published and carries commands besides.
//!
//! It connects once and does not reconnect: redis-rs' own reconnecting connection gives up after its retries and
//! swallows failed resubscriptions, so whoever owns this one drops it and makes another. Pushes are handed to a
//! closure in the order in which Redis sent them and before the answer to any later command; the ready-made senders
//! are unbounded.

use redis::{Cmd, FromRedisValue, RedisError};

use super::commands::CommandError;
use super::config::Config;
use super::link::Link;
use super::script::{Call, Invoke};

/// What Redis pushed.
#[derive(Debug, PartialEq, Eq)]
pub enum Push {
    /// A message on a subscribed channel.
    Message {
        /// The pub/sub channel.
        channel: Vec<u8>,
        /// What was published.
        payload: Vec<u8>,
    },
    /// The connection is gone; nothing comes after this.
    Disconnected,
}

/// The connection. It ends when this is dropped.
#[derive(Debug)]
pub struct Subscriber {
    link: Link,
    config: Config,
}

impl Subscriber {
    /// Connects. `push` must not block: it runs where the socket is read.
    ///
    /// # Errors
    /// When Redis is not reached within the connect timeout, or does not speak RESP3 (it does since version 6).
    pub async fn connect(
        config: &Config,
        push: impl Fn(Push) + Send + Sync + 'static,
    ) -> Result<Self, CommandError> {
        let failed = |e: RedisError| CommandError::new(config, &e);
        let info = config.locate().await.map_err(failed)?;
        let timeouts = [config.connect_timeout, config.response_timeout];
        let link = Link::connect(&info, timeouts, push).await.map_err(failed)?;
        Ok(Self { link, config: config.clone() })
    }

    /// Subscribes to channels and waits until Redis has confirmed every one.
    ///
    /// # Errors
    /// When it has not done so in time; then it is not known which are subscribed.
    pub async fn subscribe(&self, channels: &[String]) -> Result<(), CommandError> {
        self.link.change("SUBSCRIBE", channels).await.map_err(|e| self.classify(&e))
    }

    /// The reverse of [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// As there.
    pub async fn unsubscribe(&self, channels: &[String]) -> Result<(), CommandError> {
        self.link.change("UNSUBSCRIBE", channels).await.map_err(|e| self.classify(&e))
    }

    /// Runs a command. Everything published before it ran has been pushed when it answers.
    ///
    /// # Errors
    /// When no answer comes in time or it is an error.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        command.query_async(&mut &self.link).await.map_err(|e| self.classify(&e))
    }

    fn classify(&self, error: &RedisError) -> CommandError {
        CommandError::new(&self.config, error)
    }
}

impl Invoke for Subscriber {
    async fn invoke<T: FromRedisValue + Send>(&self, call: &Call<'_>) -> Result<T, CommandError> {
        call.run(&mut &self.link).await.map_err(|e| self.classify(&e))
    }
}
