//! The `fanlight` program: arguments → settings → log → run → exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use fanlight::cli::{self, Action, Failure};
use fanlight::config::{self, Log, LogFormat};
use fanlight::telemetry;

/// Small allocations from many threads, and memory that goes back to the system after a storm.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run().unwrap_or_else(Failure::report)
}

fn run() -> Result<ExitCode, Failure> {
    let action = cli::parse(std::env::args_os(), &config::process_environment())?;
    if let Action::Serve(loaded) = &action {
        install_log(&loaded.config.log);
    }
    action.run()
}

fn install_log(log: &Log) {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    telemetry::install_log(&log.filter, json);
}
