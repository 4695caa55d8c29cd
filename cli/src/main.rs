//! `rallypoint`: the operator's and developer's tool.

use std::process::ExitCode;

use clap::Parser as _;
use ops::logging;

fn main() -> ExitCode {
    let cli = rallypoint_cli::args::Cli::parse();
    // Only a second call could fail, and there is none.
    let _ = logging::init(&cli.log());
    rallypoint_cli::run(&cli)
}
