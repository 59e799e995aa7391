//! `fanlight doctor`: opens a stream through whatever stands between and says what that does to it.
//!
//! It publishes nothing: the first block of a stream comes at once and heartbeats follow, which is enough to see both
//! buffering and a cut. [`exam`] looks, [`finding`] judges, [`advice`] knows whose setting to change, [`report`] prints.

mod advice;
mod exam;
mod finding;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::Failure;
use super::node_client::{self, NodeClient};
use super::output::Look;
use crate::config::Environment;

/// Three heartbeats of a node as it comes, and longer than the idle time-outs of 60 s that most proxies come with.
const DEFAULT_WAIT: &str = "80s";

/// Something stands in the way of streams; 1 is for an exam that could not be made.
const FOUND_SOMETHING: u8 = 3;

/// Examines what stands between here and a node.
#[derive(Debug)]
pub struct Doctor {
    node: NodeClient,
    wait: Duration,
    json: bool,
}

pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Opens a stream through whatever stands between, and reports buffering and the idle cut-off")
        .long_about(
            "Opens a stream through whatever stands between (load balancer, proxy) and reports the time to the first \
             byte, buffering and the idle cut-off that it found, with the setting to change. It publishes nothing.\n\n\
             Exit code 0: nothing is in the way. 1: the node could not be examined. 2: wrong arguments. 3: something \
             was found.",
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("DURATION")
                .default_value(DEFAULT_WAIT)
                .value_parser(value_parser!(humantime::Duration))
                .help("How long the stream is watched for a cut, unless it comes sooner; 0s: only the first block"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("The result as one JSON object"))
        .args(node_client::arguments())
}

impl Doctor {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let wait = matches.get_one::<humantime::Duration>("wait").copied();
        Ok(Self {
            node: NodeClient::parse(matches, environment)?,
            wait: wait.map(Into::into).unwrap_or_default(),
            json: matches.get_flag("json"),
        })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let seen = exam::examine(&self.node, self.wait).await?;
        let findings = finding::judge(&seen);
        if self.json {
            println!("{}", report::json(&self.node.place(), &seen, &findings));
        } else {
            print!("{}", report::text(&self.node.place(), &seen, &findings, Look::stdout()));
        }
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_SOMETHING) })
    }
}
