//! Lua scripts and calls of them.

use redis::{Cmd, FromRedisValue, ToRedisArgs};

use super::commands::CommandError;

/// What can call a script: the pool, or a subscriber's connection where the order of answers and pushes matters.
pub trait Invoke: Sync {
    /// Calls a script, loading it first when Redis has forgotten it.
    ///
    /// # Errors
    /// When Redis is not reached in time or refuses.
    fn invoke<T: FromRedisValue + Send>(
        &self,
        call: &Call<'_>,
    ) -> impl Future<Output = Result<T, CommandError>> + Send;
}

/// A Lua script, called by its hash. Redis forgets scripts when it restarts or is told to, so whoever calls one must be
/// ready to load it.
#[derive(Debug)]
pub struct Script(redis::Script);

impl Script {
    /// A script with this source.
    pub fn new(source: &str) -> Self {
        Self(redis::Script::new(source))
    }

    /// A call of this script with these keys; the arguments are added to it.
    pub fn call(&self, keys: &[&str]) -> Call<'_> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.0.get_hash()).arg(keys.len()).arg(keys);
        Call { script: &self.0, command }
    }
}

/// A call of a script.
#[derive(Debug)]
pub struct Call<'a> {
    script: &'a redis::Script,
    command: Cmd,
}

impl Call<'_> {
    /// Adds an argument; a slice adds each of its items.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Runs it on `connection`, loading the script when Redis does not have it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut impl redis::aio::ConnectionLike,
    ) -> Result<T, redis::RedisError> {
        let answer = self.command.query_async(connection).await;
        match answer {
            Err(error) if error.kind() == redis::ServerErrorKind::NoScript.into() => {
                self.script.load_async(connection).await?;
                self.command.query_async(connection).await
            }
            answer => answer,
        }
    }
}
