//! `fanlight config`: looks at a node's settings without running it.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, output};
use crate::config::{self, Environment, Loaded};

/// `config check` or `config show`.
#[derive(Debug)]
pub struct Settings {
    loaded: Box<Loaded>,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Check,
    Toml,
    Json,
}

pub(super) fn command() -> Command {
    let check = Command::new("check")
        .about("Checks every source of settings; exit code 2 and all mistakes when something is wrong")
        .args(config::arguments());
    let show = Command::new("show")
        .about("Prints the effective settings and the source of each, secrets masked, as TOML that --config takes")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As one JSON object"))
        .args(config::arguments());
    Command::new("config")
        .about("Checks or prints the settings of a node")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([check, show])
}

impl Settings {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let (form, matches) = match matches.subcommand() {
            Some(("show", show)) if show.get_flag("json") => (Form::Json, show),
            Some(("show", show)) => (Form::Toml, show),
            Some((_, check)) => (Form::Check, check),
            None => (Form::Check, matches),
        };
        let loaded = Box::new(config::load(matches, environment)?);
        Ok(Self { loaded, form })
    }

    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.loaded.warnings.iter().for_each(|warning| output::warning(warning));
        let text = match self.form {
            Form::Check => checked(&self.loaded),
            Form::Toml => config::to_toml(&self.loaded),
            Form::Json => format!("{:#}\n", config::to_json(&self.loaded)),
        };
        std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn checked(loaded: &Loaded) -> String {
    let file = loaded.file.as_ref().map(|path| format!(", {}", path.display())).unwrap_or_default();
    format!("settings are good (checked: flags, environment{file})\n")
}
