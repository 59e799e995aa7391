//! `fanlight kick`: closes connections, on whatever node they are.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer::Answer;
use super::connections::Which;
use super::node_client::{self, NodeClient};
use super::words::plural;
use super::{Failure, output};
use crate::config::Environment;

/// Until the answer is there; the nodes have a second to answer each other.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Closes connections.
#[derive(Debug)]
pub struct Kick {
    node: NodeClient,
    path: String,
    json: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Kicked {
    kicked: u64,
    #[serde(default)]
    partial: bool,
}

pub(super) fn command() -> Command {
    Command::new("kick")
        .about("Closes connections anywhere in the cluster; exit code 1 when there is none to close")
        .after_help("The clients are told `bye` `kicked`, and that they should not come back.")
        .arg(Arg::new("id").value_name("CONNECTION").help("The connection with this id"))
        .args(Which::arguments())
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As one JSON object"))
        .args(node_client::arguments())
}

impl Kick {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let which = Which::parse(matches);
        let path = match (matches.get_one::<String>("id"), which.is_empty()) {
            (Some(id), true) => {
                let id = Uuid::parse_str(id).map_err(|_| {
                    Failure::Usage(format!(
                        "{id:?} is no id of a connection; `fanlight connections` lists them"
                    ))
                })?;
                format!("api/sse/connections/{id}")
            }
            (None, false) => format!("api/sse/connections?{}", which.query(&[])),
            _ => {
                let text = "say which: the id of a connection, or --ip, --session or --channel";
                return Err(Failure::Usage(text.to_owned()));
            }
        };
        Ok(Self { node: NodeClient::parse(matches, environment)?, path, json: matches.get_flag("json") })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let request = self.node.request(Method::DELETE, &self.path)?;
        let answer = self.node.ask(request, TIMEOUT).await?;
        let kicked = self.kicked(&answer)?;
        if kicked.partial {
            output::warning("not every node has answered in time; some connections may still be open");
        }
        let text = if self.json {
            format!("{}\n", serde_json::to_string(&kicked).map_err(anyhow::Error::from)?)
        } else {
            format!("{} closed\n", plural(kicked.kicked, "connection"))
        };
        std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
        Ok(if kicked.kicked > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn kicked(&self, answer: &Answer) -> Result<Kicked, Failure> {
        match answer.status {
            StatusCode::OK => Ok(answer.json().with_context(|| {
                format!("{} answers with something strange; is this a Fanlight node?", self.node.place())
            })?),
            // The answer to an id that no node knows.
            StatusCode::NOT_FOUND => Ok(Kicked { kicked: 0, partial: false }),
            _ => Err(anyhow!(answer.refusal()).into()),
        }
    }
}
