//! The four programs, built once in the profile and target directory of the running test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::workspace;

/// The daemon that answers STUN.
pub const STUN: &str = "rallypoint-stun";
/// The relay.
pub const TURN: &str = "rallypoint-turn";
/// The signaling server.
pub const SIGNAL: &str = "rallypoint-signal";
/// The tool with `play`.
pub const TOOL: &str = "rallypoint";

/// Where one of the programs is, built if need be. `RALLYPOINT_BIN_DIR` names a directory with programs to test as they
/// are, for example those of a release.
///
/// # Errors
/// When they cannot be built.
pub fn program(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| match std::env::var_os("RALLYPOINT_BIN_DIR") {
        Some(directory) => Ok(workspace::root().join(directory)),
        None => build().map_err(|error| format!("{error:#}")),
    });
    let path = directory
        .as_ref()
        .map_err(|error| anyhow!("{error}"))?
        .join(name);
    ensure!(path.is_file(), "{} does not exist", path.display());
    Ok(path)
}

/// The test runs from `TARGET/PROFILE/deps`: the programs belong in `TARGET/PROFILE`.
fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let directory = test
        .ancestors()
        .nth(2)
        .context("a test outside a target directory")?;
    let target = directory
        .parent()
        .context("a profile without a target directory")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let output = cargo(target)
        // The workspace with the development dependencies (`--examples` asks for them): cargo then arrives at the
        // features of `cargo test --workspace` and finds every library built.
        .args([
            "build",
            "--offline",
            "--quiet",
            "--workspace",
            "--bins",
            "--examples",
        ])
        .args(["--profile", profile])
        .output()
        .context("cargo build")?;
    ensure!(
        output.status.success(),
        "cargo build of the programs: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(directory.to_owned())
}

/// A cargo that does not see what the outer cargo told the test: build scripts that ask for `CARGO_PKG_*` would take the
/// difference for a change and build their libraries again.
fn cargo(target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ours = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(workspace::root())
        .arg("--color=never")
        .env("CARGO_TARGET_DIR", target);
    command
}
