//! What a person sees who has just started a node: where it is, and two lines to try.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;

use crate::config::{Log, LogFormat};

/// Prints to standard error, and only where the log is text: machines get the log line.
pub(super) fn print(log: &Log, address: SocketAddr, admin: Option<SocketAddr>, broker: &str) {
    let text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    if text {
        // Nobody reads it then.
        let _ = std::io::stderr().write_all(message(address, admin, broker, &program()).as_bytes());
    }
}

fn message(address: SocketAddr, admin: Option<SocketAddr>, broker: &str, program: &str) -> String {
    let (admin_url, url) = (url(admin.unwrap_or(address)), url(address));
    let admin = admin.map(|_| format!(", admin on {admin_url}")).unwrap_or_default();
    let there =
        if admin_url == "http://127.0.0.1:8080" { String::new() } else { format!(" --url {admin_url}") };
    format!(
        "\n  Fanlight is listening on {url}{admin} (broker: {broker})\n\n  \
         Dashboard:         {admin_url}/\n  \
         Open a stream:     curl -N {url}/api/jobs/stream\n  \
         Publish an event:  {program} publish{there} jobs --event job_progress '{{\"id\":\"42\",\"progress\":50}}'\n\n"
    )
}

/// An address that a person can use: "every interface" is not one.
fn url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("http://127.0.0.1:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// The program as it was called, so that the line works where it is pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "fanlight".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_can_be_pasted() {
        let text = message(([0, 0, 0, 0], 8080).into(), None, "embedded", "fanlight");
        assert!(text.contains("curl -N http://127.0.0.1:8080/api/jobs/stream"));
        assert!(text.contains("fanlight publish jobs "), "{text}");
        let text = message(([127, 0, 0, 1], 9000).into(), None, "embedded", "./fanlight");
        assert!(text.contains("./fanlight publish --url http://127.0.0.1:9000 jobs"), "{text}");
        let admin = Some(([127, 0, 0, 1], 9090).into());
        let text = message(([0, 0, 0, 0], 8080).into(), admin, "embedded", "fanlight");
        assert!(text.contains("curl -N http://127.0.0.1:8080/"), "{text}");
        assert!(text.contains("publish --url http://127.0.0.1:9090 jobs"), "{text}");
        assert!(text.contains("Dashboard:         http://127.0.0.1:9090/\n"), "{text}");
    }
}
