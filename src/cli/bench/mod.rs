//! `fanlight bench`: a load generator for any SSE server.
//!
//! One thread, one poller, non-blocking sockets: tens of thousands of streams from one process. Events carry a number
//! ([`marker`]), and each arrival is checked against what was published ([`checker`]). It knows nothing of Fanlight beyond
//! its default URLs, so that other servers are measured in the same way.

pub mod checker;
mod marker;
mod options;
mod pace;
mod process;
mod publisher;
mod report;
mod response;
mod run;
mod swarm;
mod target;
mod tracker;
mod window;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use super::{Failure, output};
use crate::config::Environment;
use options::Options;
use run::Run;

/// A run that was asked for.
#[derive(Debug)]
pub struct Bench(Box<Options>);

pub(super) fn command() -> Command {
    options::command()
}

impl Bench {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        Options::parse(matches, environment).map(|options| Self(Box::new(options)))
    }

    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let options = *self.0;
        let (json, connections) = (options.json, options.connections);
        run::raise_file_limit(connections)?;
        let report = Run::new(options)?.run()?;
        let text = if json {
            format!("{}\n", serde_json::to_string(&report).context("the report")?)
        } else {
            report.table()
        };
        std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
        if report.client_cpu_percent > 90.0 {
            output::warning("the load generator itself was busy: the figures are bounds, not measurements");
        }
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
