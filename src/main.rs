//! The `fanlight` program: arguments → settings → log → run → exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use fanlight::cli::{self, Action, Failure};
use fanlight::config::{self, Log, LogFormat};
use fanlight::telemetry::{self, LogStyle, WrongVariable};

/// Small allocations from many threads, and memory that goes back to the system after a storm.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run().unwrap_or_else(Failure::report)
}

fn run() -> Result<ExitCode, Failure> {
    let environment = config::process_environment();
    let action = cli::parse(std::env::args_os(), &environment)?;
    let (log, node) = match &action {
        Action::Serve(loaded) => (Some(&loaded.config.log), Some(loaded.config.node_id.as_str())),
        Action::Publish(_) => (None, None),
        _ => return action.run(),
    };
    let style = log.map(|log| LogStyle { filter: &log.filter, json: is_json(log) });
    let variable = |name: &str| environment.get(name).cloned();
    let _telemetry = telemetry::install(style, node, &variable).map_err(refused)?;
    action.run()
}

fn refused(wrong: Vec<WrongVariable>) -> Failure {
    let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    Failure::Usage(told.join("\n  "))
}

fn is_json(log: &Log) -> bool {
    match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    }
}
