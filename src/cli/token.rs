//! `fanlight token`: signs a token with the configured secret, for trying things out.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, output};
use crate::auth::{self, Grants};
use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::protocol::channel::ChannelPattern;
use crate::protocol::secret::Secret;

/// The longest life of a token: ten years.
const MAX_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// A token to be signed.
#[derive(Debug)]
pub struct Token {
    secret: Secret,
    subject: Option<String>,
    read: Vec<ChannelPattern>,
    publish: Vec<ChannelPattern>,
    admin: bool,
    ttl: Duration,
}

pub(super) fn command() -> Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("LIST").value_delimiter(',').action(ArgAction::Append).help(help)
    };
    Command::new("token")
        .about("Signs a token for a subscriber, publisher or administrator with the configured secret, and prints it")
        .arg(list("read", "Channels that it may read beyond those that anyone may; a trailing * allows a family"))
        .arg(list("publish", "Channels that it may publish on; a trailing * allows a family"))
        .arg(Arg::new("admin").long("admin").action(ArgAction::SetTrue).help("It may administer"))
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("DURATION")
                .default_value("1h")
                .help("How long it is good, from 1s to 3650days"),
        )
        .arg(Arg::new("sub").long("sub").value_name("SUBJECT").help("Whom it is for; not looked at by a node"))
        .args(config::arguments_of(&["jwt-secret"]))
}

impl Token {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let loaded = config::load(matches, environment)?;
        let missing = || {
            let text = "there is no secret to sign with; set FANLIGHT_JWT_SECRET (or --jwt-secret, or jwt-secret in \
                        --config FILE) to the secret that the nodes have";
            Failure::Usage(text.to_owned())
        };
        Ok(Self {
            secret: loaded.config.tokens.secret.ok_or_else(missing)?,
            subject: matches.get_one::<String>("sub").cloned(),
            read: patterns(matches, "read")?,
            publish: patterns(matches, "publish")?,
            admin: matches.get_flag("admin"),
            ttl: ttl(matches)?,
        })
    }

    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Self { secret, subject, read, publish, admin, ttl } = self;
        let expires_at = Clock::system().unix_millis().saturating_add(millis(ttl));
        let token = auth::sign(&secret, subject, Grants { read, publish, admin, expires_at })
            .map_err(anyhow::Error::from)?;
        writeln!(std::io::stdout(), "{token}").context("standard output")?;
        output::note(&format!("good for {}", humantime::format_duration(ttl)));
        Ok(ExitCode::SUCCESS)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn patterns(matches: &ArgMatches, name: &str) -> Result<Vec<ChannelPattern>, Failure> {
    let given = matches.get_many::<String>(name).into_iter().flatten();
    let parse = |text: &String| {
        ChannelPattern::parse(text.trim()).map_err(|error| {
            Failure::Usage(format!("--{name} {text:?}: {error}; a trailing * means a family"))
        })
    };
    given.map(parse).collect()
}

fn ttl(matches: &ArgMatches) -> Result<Duration, Failure> {
    let text = matches.get_one::<String>("ttl").map_or("1h", String::as_str);
    let ttl =
        humantime::parse_duration(text).ok().filter(|ttl| (Duration::from_secs(1)..=MAX_TTL).contains(ttl));
    ttl.ok_or_else(|| {
        Failure::Usage(format!("--ttl {text:?} must be a duration like 90s, 1h or 30days, up to 3650days"))
    })
}
