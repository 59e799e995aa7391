//! One connection for one caller who makes one call at a time and gives up on a call by dropping it.
//!
//! For what must not wait behind other people's commands, and without the pool's `PING` before every use. It does not
//! watch over its connection: one that died is noticed by the call that fails.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError};
use tokio::sync::Mutex;

use super::commands::CommandError;
use super::config::Config;
use super::script::{Call, Invoke};

/// See the module.
#[derive(Debug)]
pub struct Exclusive {
    config: Config,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Exclusive {
    /// Connects when it is needed.
    pub fn new(config: Config) -> Self {
        Self { config, connection: Mutex::new(None) }
    }
}

impl Invoke for Exclusive {
    /// The connection is out of its place while the call is on its way: when the call fails or its caller gives up, the
    /// connection goes with it, because it may be dead, or lead to a master of yesterday.
    async fn invoke<T: FromRedisValue + Send>(&self, call: &Call<'_>) -> Result<T, CommandError> {
        let failed = |error: RedisError| CommandError::new(&self.config, &error);
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => self.config.connect().await.map_err(failed)?,
        };
        let running = call.run(&mut connection);
        let answer = self.config.timings().note(running).await.map_err(failed)?;
        *place = Some(connection);
        Ok(answer)
    }
}
