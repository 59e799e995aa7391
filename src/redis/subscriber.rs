//! One RESP3 connection that hears what is published and carries commands besides.
//!
//! It connects once and does not reconnect: redis-rs' own reconnecting connection gives up after its retries and
//! swallows failed resubscriptions, so whoever owns this one drops it and makes another. Pushes are handed to a
//! closure in the order in which Redis sent them and before the answer to any later command; the ready-made senders
//! are unbounded.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, ProtocolVersion, PushInfo, PushKind, RedisError,
    Value,
};

use super::commands::CommandError;
use super::config::Config;
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
    connection: MultiplexedConnection,
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
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings);
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout))
            .set_push_sender(move |info| {
                if let Some(known) = read(info) {
                    push(known);
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let client = Client::open(info).map_err(failed)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&connection);
        let connection = connecting.await.map_err(failed)?;
        Ok(Self { connection, config: config.clone() })
    }

    /// Subscribes to channels and waits until Redis has confirmed every one.
    ///
    /// # Errors
    /// When it has not done so in time; then it is not known which are subscribed.
    pub async fn subscribe(&self, channels: &[String]) -> Result<(), CommandError> {
        self.connection.clone().subscribe(channels).await.map_err(|e| self.classify(&e))
    }

    /// The reverse of [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// As there.
    pub async fn unsubscribe(&self, channels: &[String]) -> Result<(), CommandError> {
        self.connection.clone().unsubscribe(channels).await.map_err(|e| self.classify(&e))
    }

    /// Runs a command. Everything published before it ran has been pushed when it answers.
    ///
    /// # Errors
    /// When no answer comes in time or it is an error.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        command.query_async(&mut self.connection.clone()).await.map_err(|e| self.classify(&e))
    }

    fn classify(&self, error: &RedisError) -> CommandError {
        CommandError::new(&self.config, error)
    }
}

impl Invoke for Subscriber {
    async fn invoke<T: FromRedisValue + Send>(&self, call: &Call<'_>) -> Result<T, CommandError> {
        call.run(&mut self.connection.clone()).await.map_err(|e| self.classify(&e))
    }
}

fn read(info: PushInfo) -> Option<Push> {
    match info.kind {
        PushKind::Disconnection => Some(Push::Disconnected),
        PushKind::Message => {
            let mut data = info.data.into_iter();
            match (data.next(), data.next()) {
                (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) => {
                    Some(Push::Message { channel, payload })
                }
                _ => None,
            }
        }
        _ => None,
    }
}
