//! The command line: one module per command.
//!
//! Commands talk to a node over HTTP, or straight to Redis, like any other client; only `serve` runs a node. Nothing in
//! here is needed by a node.

mod answer;
pub mod bench;
mod connections;
mod doctor;
mod health;
mod kick;
mod node_client;
mod output;
mod publish;
mod reconnect;
mod serve;
mod settings;
mod stats;
mod subscribe;
mod table;
mod token;
mod words;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::config::{self, Environment, Loaded, Mistakes};

/// What the command line asks for, checked.
#[derive(Debug)]
pub enum Action {
    /// Run a node.
    Serve(Box<Loaded>),
    /// Publish events.
    Publish(publish::Publish),
    /// Print events as they come.
    Subscribe(subscribe::Subscribe),
    /// Print the statistics.
    Stats(stats::Stats),
    /// List connections.
    Connections(connections::Connections),
    /// Close connections.
    Kick(kick::Kick),
    /// Put load on a server.
    Bench(bench::Bench),
    /// Examine what stands before a node.
    Doctor(doctor::Doctor),
    /// Ask a node whether it is ready.
    Health(health::Health),
    /// Look at the settings.
    Settings(settings::Settings),
    /// Sign a token.
    Token(token::Token),
}

/// Why the program ends without having done what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Unknown or missing arguments; also how `--help` and `--version` end.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// Wrong settings of a node.
    #[error(transparent)]
    Settings(#[from] Mistakes),
    /// An argument whose value cannot be used.
    #[error("{0}")]
    Usage(String),
    /// It was tried and did not work.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// The whole command line, for parsing and for documentation.
pub fn command() -> Command {
    Command::new("fanlight")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Redis-backed, horizontally scaled Server-Sent-Events fanout cluster")
        .after_help("Without a command, a node is run (`fanlight` is `fanlight serve`).")
        .args_conflicts_with_subcommands(true)
        .args(config::arguments())
        .subcommands([
            serve::command(),
            publish::command(),
            subscribe::command(),
            stats::command(),
            connections::command(),
            kick::command(),
            settings::command(),
            token::command(),
            bench::command(),
            doctor::command(),
            health::command(),
        ])
}

/// Reads the command line and, for `serve`, the settings.
///
/// # Errors
/// When an argument or a setting is wrong; also for `--help` and `--version`.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Action, Failure> {
    let matches = command().try_get_matches_from(arguments)?;
    let Some((name, matches)) = matches.subcommand() else {
        return serve::parse(&matches, environment).map(Action::Serve);
    };
    match name {
        "publish" => publish::Publish::parse(matches, environment).map(Action::Publish),
        "subscribe" => subscribe::Subscribe::parse(matches, environment).map(Action::Subscribe),
        "stats" => stats::Stats::parse(matches, environment).map(Action::Stats),
        "connections" => connections::Connections::parse(matches, environment).map(Action::Connections),
        "kick" => kick::Kick::parse(matches, environment).map(Action::Kick),
        "bench" => bench::Bench::parse(matches, environment).map(Action::Bench),
        "doctor" => doctor::Doctor::parse(matches, environment).map(Action::Doctor),
        "health" => health::Health::parse(matches, environment).map(Action::Health),
        "token" => token::Token::parse(matches, environment).map(Action::Token),
        "config" => settings::Settings::parse(matches, environment).map(Action::Settings),
        _ => serve::parse(matches, environment).map(Action::Serve),
    }
}

impl Action {
    /// Does it, and says how it went.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Serve(loaded) => serve::run(*loaded),
            Self::Publish(publish) => block_on(publish.run()),
            Self::Subscribe(subscribe) => block_on(subscribe.run()),
            Self::Stats(stats) => block_on(stats.run()),
            Self::Connections(connections) => block_on(connections.run()),
            Self::Kick(kick) => block_on(kick.run()),
            Self::Bench(bench) => bench.run(),
            Self::Doctor(doctor) => block_on(doctor.run()),
            Self::Health(health) => block_on(health.run()),
            Self::Settings(settings) => settings.run(),
            Self::Token(token) => token.run(),
        }
    }
}

/// Runs a client command: one thread is enough for it.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(error.into()))?.block_on(future)
}

impl Failure {
    /// Prints it for people and gives the exit code: 0 help and a reader that has gone, 1 failed, 2 wrong arguments.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Arguments(error) => {
                // Nobody is left to tell when standard output or error has gone.
                let _ = error.print();
                ExitCode::from(if error.use_stderr() { 2 } else { 0 })
            }
            Self::Failed(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            failure => {
                output::error(&failure.to_string());
                ExitCode::from(if matches!(failure, Self::Failed(_)) { 1 } else { 2 })
            }
        }
    }
}

/// `fanlight subscribe … | head -1`: the reader had enough, and that is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
}

/// A flag of a client command, or its variable; an empty variable counts as unset.
fn flag_or_variable(
    matches: &ArgMatches,
    flag: &str,
    environment: &Environment,
    variable: &str,
) -> Option<String> {
    let flag = matches.get_one::<String>(flag).cloned();
    flag.or_else(|| environment.get(variable).filter(|value| !value.is_empty()).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Action, Failure> {
        let arguments = std::iter::once("fanlight").chain(words.iter().copied()).map(OsString::from);
        parse(arguments, &Environment::new())
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn no_command_is_serve() {
        assert!(matches!(parse_words(&[]), Ok(Action::Serve(_))));
        assert!(
            matches!(parse_words(&["--drain=1s"]), Ok(Action::Serve(loaded)) if loaded.config.drain.as_secs() == 1)
        );
        assert!(matches!(parse_words(&["serve", "--drain=1s"]), Ok(Action::Serve(_))));
    }

    #[test]
    fn settings_before_a_command_are_not_silently_dropped() {
        assert!(matches!(parse_words(&["--drain=1s", "serve"]), Err(Failure::Arguments(_))));
    }
}
