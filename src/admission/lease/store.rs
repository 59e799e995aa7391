//! Where the scripts run.

use futures_util::future::BoxFuture;
use redis::Value;

use super::call::Call;
use super::reply::Reply;
use crate::redis::{CommandError, Config, Exclusive, Invoke as _, Keys, Script};

/// Carries out calls. Whoever implements it need not repeat, order or time anything: the caller makes one call at a time,
/// gives up on it by dropping the future, and takes whatever was not answered as neither done nor not done.
pub trait LeaseStore: Send + Sync + 'static {
    /// Carries out `call`.
    fn call<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Reply, StoreError>>;
}

/// Why there is no answer. The call may have been carried out, or be carried out later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(String);

impl From<CommandError> for StoreError {
    fn from(error: CommandError) -> Self {
        Self(error.to_string())
    }
}

/// The leases in a Redis. Every key has a time to live, so that nothing stays when nobody is left.
#[derive(Debug)]
pub struct RedisLeases {
    connection: Exclusive,
    keys: Keys,
    join: Script,
    apply: Script,
    leave: Script,
}

impl RedisLeases {
    /// Connects when it is first called.
    pub fn new(config: Config) -> Self {
        let keys = config.keys().clone();
        let [join, apply, leave] = [JOIN, APPLY, LEAVE].map(Script::new);
        Self { connection: Exclusive::new(config), keys, join, apply, leave }
    }

    async fn run(&self, call: &Call) -> Result<Reply, StoreError> {
        let script = match call {
            Call::Join { .. } => &self.join,
            Call::Apply(_) => &self.apply,
            Call::Leave { .. } => &self.leave,
        };
        let keys = call_keys(&self.keys, call);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut script_call = script.call(&keys);
        script_call.arg(call.arguments());
        let answer: Value = self.connection.invoke(&script_call).await?;
        Reply::parse(call, answer).map_err(|error| StoreError(error.to_string()))
    }
}

impl LeaseStore for RedisLeases {
    fn call<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Reply, StoreError>> {
        Box::pin(self.run(call))
    }
}

/// The source of [`Call::Join`].
pub const JOIN: &str = include_str!("join.lua");
/// The source of [`Call::Apply`].
pub const APPLY: &str = include_str!("apply.lua");
/// The source of [`Call::Leave`].
pub const LEAVE: &str = include_str!("leave.lua");

/// The keys of the call's script.
pub fn call_keys(keys: &Keys, call: &Call) -> Vec<String> {
    let leases = call.leases().map(|tag| keys.lease(&tag.to_string()));
    std::iter::once(keys.leases()).chain(leases).collect()
}
