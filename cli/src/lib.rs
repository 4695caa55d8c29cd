//! The tool around the products: `up` runs all three services, `play` is a player, `demo` shows what it is all for.
//!
//! - [`args`]: the command line.
//! - [`services`]: STUN, TURN and signaling in one process, as `up` and `demo` need them.
//! - [`play`]: one player as a process: a session over the SDK, files included.
//! - [`demo`]: four pairs of players behind emulated NATs, a live view, a picture and the figures.
//! - [`admin`]: what an operator sees and does on a relay that runs.
//! - [`load`]: packets, requests and allocations in bulk, for measuring a server.
#![forbid(unsafe_code)]

pub mod admin;
pub mod args;
pub mod demo;
pub mod load;
pub mod output;
pub mod play;
pub mod services;
pub mod up;

use std::process::ExitCode;

use args::{Cli, Command};

/// Runs a command; what went wrong is said in words on stderr, with exit code 1.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    let outcome = match &cli.command {
        Command::Up(args) => up::run(args).map_err(|error| error.to_string()),
        Command::Play(args) => play::run(args).map_err(|error| error.to_string()),
        Command::Demo(args) => demo::run(args).map_err(|error| error.to_string()),
        Command::Load(args) => load::run(args).map_err(|error| error.to_string()),
        Command::Admin(args) => admin::run(args).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            output::error_line(&format!("rallypoint: {reason}"));
            ExitCode::FAILURE
        }
    }
}
