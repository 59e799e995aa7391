//! `fanlight serve`: runs a node.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::Failure;
use crate::app;
use crate::config::{self, Environment, Loaded};

pub(super) fn command() -> Command {
    Command::new("serve").about("Runs a node").args(config::arguments())
}

pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Box<Loaded>, Failure> {
    Ok(Box::new(config::load(matches, environment)?))
}

pub(super) fn run(loaded: Loaded) -> Result<ExitCode, Failure> {
    Ok(app::run(loaded.config, &loaded.warnings)?)
}
