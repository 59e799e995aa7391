//! `fanlight health`: asks a node whether it is ready, for a container's health check: an image without a shell has no
//! `curl`.
//!
//! It looks at one node on this machine and says nothing about the cluster; `fanlight stats` does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Arg, ArgMatches, Command};
use reqwest::Method;

use super::node_client::NodeClient;
use super::{Failure, flag_or_variable};
use crate::config::Environment;

/// A node that is asked on its own machine and takes longer is not well. Docker's own limit is set above it.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks one node whether it is ready.
#[derive(Debug)]
pub struct Health {
    node: NodeClient,
}

pub(super) fn command() -> Command {
    Command::new("health")
        .about("Asks a node whether it is ready: exit code 0 when it is, 1 when not. For health checks of containers")
        .arg(Arg::new("url").long("url").value_name("URL").help(
            "The node [env: FANLIGHT_URL] [default: where this environment's node listens: \
             FANLIGHT_ADMIN_LISTEN, FANLIGHT_LISTEN, PORT, http://127.0.0.1:8080]",
        ))
}

impl Health {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let given = flag_or_variable(matches, "url", environment, "FANLIGHT_URL");
        let url = given.unwrap_or_else(|| url_of_this_environment(environment));
        Ok(Self { node: NodeClient::new(&url, None)? })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let request = self.node.request(Method::GET, "readyz")?;
        let answer = self.node.ask(request, LIMIT).await?;
        let (status, words) = (answer.status, answer.text());
        if status.is_success() {
            println!("{words}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(anyhow!("{} is not ready: {status} {words}", self.node.place()).into())
    }
}

/// Where a node that is started with these variables serves its probes.
fn url_of_this_environment(environment: &Environment) -> String {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let listen = set("FANLIGHT_ADMIN_LISTEN").or_else(|| set("FANLIGHT_LISTEN"));
    let address = listen.and_then(|text| text.parse::<SocketAddr>().ok()).map(reachable);
    let port = || set("PORT").and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
    format!("http://{}", address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, port()).into()))
}

/// "Every interface" cannot be connected to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_looked_for_where_the_environment_puts_it() {
        for (variables, url) in [
            (&[][..], "http://127.0.0.1:8080"),
            (&[("PORT", "81")], "http://127.0.0.1:81"),
            (&[("FANLIGHT_LISTEN", "0.0.0.0:82"), ("PORT", "81")], "http://127.0.0.1:82"),
            (&[("FANLIGHT_LISTEN", "0.0.0.0:82"), ("FANLIGHT_ADMIN_LISTEN", "[::]:83")], "http://[::1]:83"),
            (&[("FANLIGHT_LISTEN", "nonsense")], "http://127.0.0.1:8080"),
        ] {
            let environment: Environment =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(url_of_this_environment(&environment), url);
        }
    }
}
