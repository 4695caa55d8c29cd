//! What a test needs from the machine, and what happens when it is not there.
//!
//! A missing part is said aloud on the real standard error (libtest's capture does not reach it) and the test passes as
//! skipped; with `RALLYPOINT_TEST_ALL=1` it is a failure, so that CI cannot skip in silence.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Result, bail};

/// Something a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root, network namespaces, `ip` and `nft`: the laboratory.
    Lab,
    /// A program, by name.
    Tool(&'static str),
    /// Root alone.
    Root,
    /// A Python with the libraries of `tests/e2e/clients/requirements.txt`: see [`python`].
    Python,
}

/// Whether a test with these needs can run here.
///
/// # Errors
/// When something is missing and `RALLYPOINT_TEST_ALL=1` forbids skipping.
pub fn met(needs: &[Need]) -> Result<bool> {
    let Some(reason) = needs.iter().find_map(|need| need.missing()) else {
        return Ok(true);
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    if std::env::var_os("RALLYPOINT_TEST_ALL").is_some_and(|value| value == "1") {
        bail!("{test} needs what this machine lacks: {reason}");
    }
    // Not `eprintln!`: libtest would keep it to itself.
    let _unreadable_stderr_is_no_failure = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    Ok(false)
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Lab => lab_missing().map(str::to_owned),
            Self::Root => {
                (!rustix::process::geteuid().is_root()).then(|| "root is needed".to_owned())
            }
            Self::Tool(name) => find(name)
                .is_none()
                .then(|| format!("`{name}` is not installed")),
            Self::Python => {
                let there = python().is_some_and(|python| python.is_file());
                (!there).then(|| {
                    "no Python environment beside the build (docs/interop.md makes it)".to_owned()
                })
            }
        }
    }
}

/// The Python of the environment that `.ci/run` makes in the target directory; a test runs from `TARGET/PROFILE/deps`.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    Some(test.ancestors().nth(3)?.join("python/bin/python"))
}

/// Where a program is: the search path first, then the administrator's directories, which users' paths leave out.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Asked once: making and removing a namespace is not free.
fn lab_missing() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<&'static str>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return Some("network namespaces exist on Linux only");
        }
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root");
        }
        if find("ip").is_none() || find("nft").is_none() {
            return Some("`ip` (iproute2) and `nft` (nftables) are needed");
        }
        namespaces_refused()
    })
}

/// Root inside a container may still be refused both namespaces and NAT tables.
fn namespaces_refused() -> Option<&'static str> {
    let name = format!("rp-{}-probe", std::process::id());
    let quiet = |program: &str, arguments: &[&str]| {
        Command::new(find(program).unwrap_or_else(|| Path::new(program).to_owned()))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !quiet("ip", &["netns", "add", &name]) {
        return Some("the kernel refuses new network namespaces");
    }
    let nat = quiet(
        "ip",
        &[
            "netns",
            "exec",
            &name,
            "nft",
            "add table ip t; add chain ip t c { type nat hook postrouting priority srcnat; }",
        ],
    );
    quiet("ip", &["netns", "del", &name]);
    (!nat).then_some("the kernel refuses nftables NAT in a namespace")
}
