//! One network namespace: a machine of its own as far as the network is concerned.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fd::AsFd as _;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace that is removed, with every process left in it, when this value is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// Where something runs: in a namespace, or simply here.
#[derive(Debug, Clone)]
pub struct Machine {
    namespace: Option<String>,
}

impl Namespace {
    /// A fresh namespace with its loopback up. `role` is for the reader of a process list; the name is unique anyway.
    ///
    /// # Errors
    /// When the kernel or `ip` refuses.
    pub fn create(role: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rp-{}-{count}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        // Addresses work at once: no second of duplicate address detection, in which IPv6 is silent.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace as a place to run things, without owning it.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine {
            namespace: Some(self.name.clone()),
        }
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.machine().command(program)
    }

    /// Runs lines of `ip` commands inside (without the word `ip`).
    ///
    /// # Errors
    /// When one of them fails; the rest is then not run.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        )
        .map(drop)
    }

    /// Loads a set of `nft` rules inside, all or nothing.
    ///
    /// # Errors
    /// When `nft` refuses them.
    pub fn nft(&self, rules: &str) -> Result<String> {
        run(self.command("nft").args(["-f", "-"]), rules)
    }

    /// Sets one kernel parameter of this namespace, named by its path under `/proc/sys`.
    ///
    /// # Errors
    /// When the parameter does not exist or refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = PathBuf::from("/proc/sys").join(path);
        self.enter(|| std::fs::write(&file, value))?
            .with_context(|| format!("{path} = {value} in {}", self.name))
    }

    /// Does `work` inside, as [`Machine::enter`].
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.machine().enter(work)
    }
}

impl Machine {
    /// The machine that the test itself runs on, as it is.
    #[must_use]
    pub fn here() -> Self {
        Self { namespace: None }
    }

    /// A command that will run on this machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(name) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program);
        command
    }

    /// Does `work` on a thread that has moved to this machine. A socket made there stays there, wherever it is used.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(name) = &self.namespace else {
            return Ok(work());
        };
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| path.clone())?;
        let inside = || -> Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter {path}"))?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what test processes that no longer live have left behind. Names carry the process id for this.
///
/// # Errors
/// When the namespaces cannot be listed.
pub fn sweep() -> Result<()> {
    let listed = run(Command::new("ip").args(["netns", "list"]), "")?;
    for name in listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let Some(owner) = name
            .strip_prefix("rp-")
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        let alive = PathBuf::from("/proc").join(owner).exists();
        if owner.parse::<u32>().is_ok() && !alive {
            remove(name);
        }
    }
    Ok(())
}

/// Runs a command to its end with `input` on its standard input.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the error holds what it wrote.
pub fn run(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input answers with its exit status.
        let _broken_pipe = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}\n{input}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Nobody but the test that made a namespace starts anything in it, so whatever runs there is its leftover.
fn remove(name: &str) {
    let left = run(Command::new("ip").args(["netns", "pids", name]), "").unwrap_or_default();
    for pid in left
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter_map(Pid::from_raw)
    {
        let _already_gone = kill_process(pid, Signal::KILL);
    }
    let _already_gone = run(Command::new("ip").args(["netns", "del", name]), "");
}
