//! `rallypoint play` as a process: one player, telling what happens as lines of JSON.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::binaries::{self, program};
use crate::netns::Machine;
use crate::processes::Process;

/// How long a player may take for anything. Connecting takes well under a second on a quiet machine.
pub const PLAYER_PATIENCE: Duration = Duration::from_secs(120);

/// A running player.
#[derive(Debug)]
pub struct Player {
    process: Process,
}

/// What a player says when it is connected. The tests believe the core, and compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// "direct" or "relay".
    pub path: String,
    /// The local address of the path.
    pub local: SocketAddr,
    /// The remote address of the path.
    pub remote: SocketAddr,
}

/// What a player says at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
}

impl Player {
    /// Starts a player on a machine.
    ///
    /// # Errors
    /// When the program cannot be built or started.
    pub fn start(machine: &Machine, signal: &str, room: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = machine.command(program(binaries::TOOL)?);
        command
            .args(["play", "--json", "--signal", signal, "--room", room])
            .args(arguments);
        let process = Process::start("player", &mut command)?;
        Ok(Self { process })
    }

    /// The process, for its output and its end.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for the first event of a kind.
    ///
    /// # Errors
    /// When the player ends without it or takes too long.
    pub fn event(&self, kind: &str) -> Result<Value> {
        self.event_where(kind, |_| true)
    }

    /// Waits for the first event of a kind that `wanted` accepts.
    ///
    /// # Errors
    /// When the player ends without it or takes too long.
    pub fn event_where(&self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.process.wait_for(kind, PLAYER_PATIENCE, |line| {
            event_in(line, kind).filter(|event| wanted(event))
        })
    }

    /// Waits until it is connected to the other player.
    ///
    /// # Errors
    /// When it ends before or takes too long.
    pub fn connected(&self) -> Result<Connected> {
        let event = self.event("connected")?;
        let text = |key: &str| {
            let value = event.get(key).and_then(Value::as_str);
            value.with_context(|| format!("`{key}` in {event}"))
        };
        Ok(Connected {
            path: text("path")?.to_owned(),
            local: text("local")?.parse()?,
            remote: text("remote")?.parse()?,
        })
    }

    /// The paths it spoke of so far, in `connected` and `path_changed`, the last one last.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let lines = self.process.stdout_lines();
        let paths = lines.iter().filter_map(|line| {
            let event = event_in(line, "connected").or_else(|| event_in(line, "path_changed"))?;
            Some(event.get("path")?.as_str()?.to_owned())
        });
        paths.collect()
    }

    /// Waits for its successful end.
    ///
    /// # Errors
    /// When it takes too long or ends with anything but 0.
    pub fn done(&self) -> Result<Done> {
        let event = self.event("done")?;
        let status = self.process.wait(PLAYER_PATIENCE)?;
        ensure!(
            status.success(),
            "the player ended with {status}\n{}",
            self.process.report()
        );
        let number = |key: &str| {
            let value = event.get(key).and_then(Value::as_u64);
            value.with_context(|| format!("`{key}` in {event}"))
        };
        Ok(Done {
            sent: number("sent")?,
            received: number("received")?,
        })
    }

    /// Waits for its end without success and answers what it said about it.
    ///
    /// # Errors
    /// When it takes too long or succeeds.
    pub fn fails(&self) -> Result<String> {
        let status = self.process.wait(PLAYER_PATIENCE)?;
        ensure!(
            !status.success(),
            "the player should have failed\n{}",
            self.process.report()
        );
        Ok(format!(
            "{}\n{}",
            self.process.stdout(),
            self.process.stderr()
        ))
    }
}

/// The event in one line of output, if it is of this kind.
fn event_in(line: &str, kind: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event.get("event")?.as_str()? == kind).then_some(event)
}
