//! The pool that commands go through.

use std::future::poll_fn;
use std::sync::Arc;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, RecycleResult};
use futures_util::future::FutureExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field};

use super::config::{Config, ConfigError};
use super::script::{Call, Invoke};
use crate::trace;

/// Why a command was not carried out; without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Redis could not be reached in time, or cannot serve now (loading, replica). Whether the command ran is not
    /// known.
    #[error("{0}")]
    Unavailable(String),
    /// Redis understood and said no.
    #[error("{0}")]
    Refused(String),
}

/// A call that failed.
#[derive(Debug)]
struct Failed {
    error: CommandError,
    /// The first word of Redis' answer, if it was Redis that said no.
    code: Option<Box<str>>,
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Self { error, code: None }
    }
}

type Pool = managed::Pool<Connections>;
type PoolError = managed::PoolError<RedisError>;

/// Makes the pool's connections, in the runtime that made the pool: each has a task of its own, and of a connection that a
/// handshake happened to ask for the probe would have to wait behind the handshakes.
#[derive(Debug)]
struct Connections {
    source: Source,
    home: Option<Handle>,
}

/// Where connections come from: deadpool-redis' own manager for a Redis with an address. Behind a Sentinel the address is
/// asked for anew each time; with deadpool-redis' Sentinel variant all connections would queue for that, and none of its
/// times could be set.
#[derive(Debug)]
enum Source {
    Address(Box<deadpool_redis::Manager>),
    Sentinel(Arc<Config>),
}

impl Connections {
    fn new(config: &Arc<Config>) -> Result<Self, ConfigError> {
        // None outside of a runtime, where nothing can connect anyway.
        let home = Handle::try_current().ok();
        let Some(address) = config.address() else {
            return Ok(Self { source: Source::Sentinel(Arc::clone(config)), home });
        };
        let times = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout));
        let manager = deadpool_redis::Manager::new_with_config(address.clone(), times)?;
        Ok(Self { source: Source::Address(Box::new(manager)), home })
    }
}

impl Source {
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        match self {
            Self::Address(manager) => managed::Manager::create(&**manager).await,
            Self::Sentinel(config) => config.connect().await,
        }
    }
}

impl managed::Manager for Connections {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        // Boxed, or what connecting needs, TLS and all, would be a part of the future of every command.
        let mut connecting = self.source.connect().boxed();
        let mut connection = poll_fn(|cx| {
            let _home = self.home.as_ref().map(Handle::enter);
            connecting.poll_unpin(cx)
        })
        .await?;
        greet(&mut connection).await?;
        Ok(connection)
    }

    async fn recycle(
        &self,
        connection: &mut MultiplexedConnection,
        metrics: &Metrics,
    ) -> RecycleResult<RedisError> {
        match &self.source {
            Source::Address(manager) => manager.recycle(connection, metrics).await,
            Source::Sentinel(_) => redis::cmd("PING").exec_async(connection).await.map_err(Into::into),
        }
    }
}

/// Without a password, connecting sends nothing, and a Redis that wants one would blame the first long command for its
/// length instead. Who may not ask has logged in.
async fn greet(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let answer = redis::cmd("PING").exec_async(connection).await;
    answer.or_else(|error| if error.kind() == ServerErrorKind::NoPerm.into() { Ok(()) } else { Err(error) })
}

/// Sends commands over a bounded pool of connections. Cheap to clone.
///
/// Every command ends within the response timeout, waiting for a connection included: one after the other, a pool of
/// dead connections would otherwise cost a timeout each. The pool itself bounds how many commands are under way.
#[derive(Clone, Debug)]
pub struct Commands {
    config: Arc<Config>,
    pool: Pool,
}

impl Commands {
    /// A pool that connects when it is needed.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let config = Arc::new(config);
        let pool = Pool::builder(Connections::new(&config)?)
            .max_size(config.pool_size)
            .wait_timeout(Some(config.response_timeout))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.response_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| ConfigError(e.to_string()))?;
        Ok(Self { config, pool })
    }

    /// What it is connected with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs one command.
    ///
    /// # Errors
    /// When Redis is not reached in time or refuses.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CommandError> {
        let name = command.args_iter().next();
        let name = match &name {
            Some(redis::Arg::Simple(name)) => std::str::from_utf8(name).unwrap_or_default(),
            _ => "",
        };
        self.in_span(name, async |connection| command.query_async(connection).await).await
    }

    /// Runs a pipeline in one round trip.
    ///
    /// # Errors
    /// When Redis is not reached in time or refuses one of its commands.
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, CommandError> {
        self.in_span("PIPELINE", async |connection| pipeline.query_async(connection).await).await
    }

    /// Runs a call in a span that says whether it failed.
    async fn in_span<T>(
        &self,
        operation: &str,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, CommandError> {
        let span = self.span(operation);
        let result = self.with(run).instrument(span.clone()).await;
        result.map_err(|Failed { error, code }| {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", code.as_deref().unwrap_or(error.kind()));
            span.record("db.response.status_code", code.as_deref());
            error
        })
    }

    /// A call of Redis by OpenTelemetry's conventions (semantic conventions 1.44, Redis client); none outside of a trace.
    fn span(&self, operation: &str) -> Span {
        if !trace::is_traced() {
            return Span::none();
        }
        tracing::info_span!(
            target: trace::TARGET,
            "redis",
            otel.name = operation,
            otel.kind = "client",
            db.system.name = "redis",
            db.namespace = self.config.database().to_string(),
            db.operation.name = operation,
            db.response.status_code = field::Empty,
            otel.status_code = field::Empty,
            error.type = field::Empty,
        )
    }

    async fn with<T>(
        &self,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Failed> {
        let limited = timeout(self.config.response_timeout, async {
            let mut connection = self.pool.get().await.map_err(|e| self.no_connection(&e))?;
            run(&mut connection).await.map_err(|e| self.failed(connection, &e))
        });
        let answered = async {
            limited.await.unwrap_or_else(|_| {
                // Nobody knows which of them are alive; new ones are cheap.
                self.forget_idle();
                Err(CommandError::Unavailable("no answer in time".into()).into())
            })
        };
        self.config.timings().note(answered).await
    }

    fn no_connection(&self, error: &PoolError) -> Failed {
        match error {
            PoolError::Backend(error) => self.classify(error),
            error => CommandError::Unavailable(self.config.explain(error)).into(),
        }
    }

    /// A connection that failed is not used again. One that answers `READONLY` is healthy by every test but leads to a
    /// master of yesterday, and so may all others.
    fn failed(&self, connection: Object<Connections>, error: &RedisError) -> Failed {
        let known = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        let demoted = error.kind() == ServerErrorKind::ReadOnly.into();
        if !known || demoted {
            drop(Object::take(connection));
        }
        if demoted {
            self.forget_idle();
        }
        self.classify(error)
    }

    fn forget_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    fn classify(&self, error: &RedisError) -> Failed {
        Failed { error: CommandError::new(&self.config, error), code: error.code().map(Into::into) }
    }
}

impl Invoke for Commands {
    async fn invoke<T: FromRedisValue + Send>(&self, call: &Call<'_>) -> Result<T, CommandError> {
        self.in_span("EVALSHA", async |connection| call.run(connection).await).await
    }
}

impl CommandError {
    /// What went wrong, in one of few words.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }

    pub(super) fn new(config: &Config, error: &RedisError) -> Self {
        use ServerErrorKind as Server;
        let text = config.explain(error);
        match error.kind() {
            ErrorKind::Server(
                Server::ReadOnly
                | Server::BusyLoading
                | Server::MasterDown
                | Server::TryAgain
                | Server::ClusterDown,
            ) => Self::Unavailable(text),
            // A script that blocks Redis for long.
            ErrorKind::Extension if error.code() == Some("BUSY") => Self::Unavailable(text),
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
                Self::Refused(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn what_redis_cannot_do_now_is_told_from_what_it_refuses() {
        let commands = Commands::new(Config::new("redis://:canary@127.0.0.1:1", "p:").unwrap()).unwrap();
        for (line, unavailable) in [
            ("READONLY You can't write against a read only replica.", true),
            ("LOADING Redis is loading the dataset in memory", true),
            ("BUSY Redis is busy running a script.", true),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
            ("NOPERM this user has no permissions", false),
            ("ERR no such command canary", false),
        ] {
            let told = commands.classify(&error(line)).error;
            assert_eq!(matches!(told, CommandError::Unavailable(_)), unavailable, "{line}");
            assert!(!told.to_string().contains("canary"));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_not_a_wait() {
        let commands = Commands::new(Config::new("redis://127.0.0.1:1", "p:").unwrap()).unwrap();
        let answer = commands.run::<String>(&redis::cmd("PING")).await;
        assert!(matches!(answer, Err(CommandError::Unavailable(_))), "{answer:?}");
    }
}
