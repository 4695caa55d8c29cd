//! The `rallypoint` binary as a process: started, read line by line, ended by its own id.
#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::panic, reason = "a test's helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Enough for everything on a machine whose cores are all busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The binary with these arguments.
pub(crate) fn rallypoint(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rallypoint"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    rallypoint(args).output().expect("the binary runs")
}

/// What it said on stderr.
pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process whose stdout is JSON lines.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = rallypoint(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line, as JSON.
    pub(crate) fn next(&self) -> Option<Value> {
        let line = self.lines.recv_timeout(PATIENCE).ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// Everything it says until it ends: its events, its words on stderr, how it ended.
    pub(crate) fn finish(mut self) -> Finished {
        let events: Vec<Value> = std::iter::from_fn(|| self.next()).collect();
        let mut words = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut words).expect("text");
        let status = self.child.wait().expect("it ends");
        Finished {
            events,
            words,
            status,
        }
    }

    /// Asks it to end, as Ctrl-C does.
    #[cfg(unix)]
    pub(crate) fn interrupt(&self) {
        let killed = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(killed.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or in a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) events: Vec<Value>,
    pub(crate) words: String,
    pub(crate) status: ExitStatus,
}

impl Finished {
    /// The one event of this name.
    pub(crate) fn event(&self, name: &str) -> &Value {
        let mut found = self.events.iter().filter(|event| event["event"] == name);
        let event = found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {self:#?}"));
        assert!(found.next().is_none(), "more than one {name} in {self:#?}");
        event
    }

    pub(crate) fn assert_success(&self) -> &Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

/// `rallypoint up` on free ports.
pub(crate) struct Services {
    process: Process,
    pub(crate) ready: Value,
}

impl Services {
    pub(crate) fn start() -> Self {
        let free = [
            "--stun-port",
            "--turn-port",
            "--signal-port",
            "--stun-admin-port",
            "--turn-admin-port",
            "--signal-admin-port",
        ];
        let mut args = vec!["up", "--json"];
        args.extend(free.iter().flat_map(|port| [*port, "0"]));
        let process = Process::start(&args);
        let ready = process.next().expect("it says when it is ready");
        assert_eq!(ready["event"], "up");
        Self { process, ready }
    }

    pub(crate) fn signal(&self) -> &str {
        self.ready["signal"].as_str().expect("a URL")
    }

    /// Ends it with SIGINT and waits.
    #[cfg(unix)]
    pub(crate) fn end(self) -> Finished {
        self.process.interrupt();
        self.process.finish()
    }
}

/// Two players in a room of their own, each with further arguments.
pub(crate) fn two_players(
    services: &Services,
    room: &str,
    a: &[&str],
    b: &[&str],
) -> [Finished; 2] {
    let common = [
        "play",
        "--json",
        "--timeout",
        "60",
        "--signal",
        services.signal(),
        "--room",
        room,
    ];
    let start = |name: &str, more: &[&str]| {
        let mut args = common.to_vec();
        args.extend(["--name", name]);
        args.extend(more);
        Process::start(&args)
    };
    let players = [start("anna", a), start("ben", b)];
    players.map(Process::finish)
}
