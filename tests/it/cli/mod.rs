//! The command line, as a user or a script sees it: the built binary, its output and its exit codes.

mod bench;
mod client;
mod connections;
mod hostile;
mod settings;
mod stats;
mod token;

use std::process::{Command, Output, Stdio};

use crate::support::node::fanlight;

/// What a command printed and how it ended.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("ended by itself");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Both streams, for what must be in neither.
    fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `fanlight` with these arguments and variables.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    Ran::of(command(arguments, variables).output().unwrap())
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = fanlight();
    command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
