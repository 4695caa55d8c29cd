//! The command line that the daemons share, and what ends a process.
//!
//! ```text
//! rallypoint-stun [--config FILE] [run]
//! rallypoint-stun config check FILE
//! rallypoint-stun config default
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::config::{self, FromRaw, Problems};

/// What a daemon is called and what it can print about itself.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Name of the binary.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The commented default configuration, as `config default` prints it.
    pub default_config: &'static str,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Start<C> {
    /// Serve with this configuration.
    Run(C),
    /// Nothing is left to do.
    Exit(ExitCode),
}

/// Reads the command line of this process and the configuration that it names.
///
/// A configuration at fault is printed fault by fault and ends in exit code 78. Without `--config` the
/// defaults hold.
#[must_use]
pub fn start<C: FromRaw>(program: Program) -> Start<C> {
    let matches = match command(program).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            // Help and version are errors to the parser; only a wrong command line is one to us (2).
            return Start::Exit(if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            });
        }
    };
    match matches.subcommand() {
        Some(("config", config)) => Start::Exit(config_command::<C>(program, config)),
        _ => match read::<C>(matches.get_one::<PathBuf>("config")) {
            Ok(config) => Start::Run(config),
            Err(problems) => Start::Exit(refuse(&problems)),
        },
    }
}

fn command(program: Program) -> Command {
    let file = Arg::new("file").value_name("FILE").required(true);
    let check = Command::new("check")
        .about("Check a file and name every fault in it (exit code 78)")
        .arg(
            file.value_parser(value_parser!(PathBuf))
                .help("The file to check"),
        );
    let default =
        Command::new("default").about("Print the default configuration with its comments");
    let config = Command::new("config")
        .about("Check or print configurations")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([check, default]);
    Command::new(program.name)
        .about(program.about)
        .version(program.version)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .global(false)
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file; without it the defaults hold"),
        )
        .subcommand(Command::new("run").about("Serve (what happens without a command too)"))
        .subcommand(config)
}

fn read<C: FromRaw>(path: Option<&PathBuf>) -> Result<C, Problems> {
    match path {
        Some(path) => config::load(path),
        None => config::parse(""),
    }
}

fn config_command<C: FromRaw>(program: Program, matches: &ArgMatches) -> ExitCode {
    let Some(("check", check)) = matches.subcommand() else {
        return print(program.default_config);
    };
    let path = check
        .get_one::<PathBuf>("file")
        .expect("the parser requires it");
    match config::load::<C>(path) {
        Ok(_) => print(&format!("{}: no faults\n", path.display())),
        Err(problems) => refuse(&problems),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints every fault of a configuration and returns its exit code, 78.
#[must_use]
pub fn refuse(problems: &Problems) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{problems}");
    ExitCode::from(config::EXIT_CODE)
}

/// Makes a panic in any thread end the process: a restart is better than half a service.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        // The log may be what panicked, so stderr is told first and directly.
        let _ = writeln!(std::io::stderr(), "thread {thread}: {panic}");
        tracing::error!(thread, %panic, "ended by a fault of its own");
        std::process::abort();
    }));
}
