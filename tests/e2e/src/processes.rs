//! A running program: its output line by line, its end, and its certain death with the test.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{self, Deadline};

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: Pid,
    output: Arc<Output>,
}

/// What the process has written so far; the readers wake whoever waits for more.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// How many of the two streams have ended.
    ended: u8,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Process {
    /// Starts a command with its output captured and no input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            read_lines(stdout, Stream::Stdout, Arc::clone(&output));
        }
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, Stream::Stderr, Arc::clone(&output));
        }
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        Ok(Self {
            name: name.to_owned(),
            child: Mutex::new(child),
            pid,
            output,
        })
    }

    /// Waits for the first line on standard output for which `wanted` has an answer.
    ///
    /// # Errors
    /// When the process ends or the time is over before there is one; the error holds everything it wrote.
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        self.wait_in(what, patience, |lines| {
            lines.stdout.iter().find_map(|line| wanted(line))
        })
    }

    /// Waits for a line on standard error that contains `text`.
    ///
    /// # Errors
    /// As [`Process::wait_for`].
    pub fn wait_for_stderr(&self, text: &str, patience: Duration) -> Result<()> {
        self.wait_in(text, patience, |lines| {
            lines
                .stderr
                .iter()
                .any(|line| line.contains(text))
                .then_some(())
        })
    }

    /// Waits for the process to end by itself (or by [`Process::terminate`]).
    ///
    /// # Errors
    /// When it is still running after `patience`.
    pub fn wait(&self, patience: Duration) -> Result<ExitStatus> {
        let status = wait::until(&format!("{} ends", self.name), patience, || {
            Ok(self.child().try_wait()?)
        })
        .with_context(|| self.report())?;
        // The pipes end with the process: everything it wrote is then in.
        self.wait_in("the end of its output", patience, |lines| {
            (lines.ended == 2).then_some(())
        })?;
        Ok(status)
    }

    /// Its number, for what the system tells of it under `/proc`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the operating system cannot be asked.
    pub fn running(&self) -> Result<bool> {
        Ok(self.child().try_wait()?.is_none())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn terminate(&self) -> Result<()> {
        kill_process(self.pid, Signal::TERM).with_context(|| format!("SIGTERM to {}", self.name))
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Standard output so far, as lines.
    #[must_use]
    pub fn stdout_lines(&self) -> Vec<String> {
        self.output.lock().stdout.clone()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout_lines().join("\n")
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.output.lock().stderr.join("\n")
    }

    /// Name and output, for the message of a failure.
    #[must_use]
    pub fn report(&self) -> String {
        let lines = self.output.lock();
        format!(
            "--- {}, standard output:\n{}\n--- {}, standard error:\n{}",
            self.name,
            tail(&lines.stdout),
            self.name,
            tail(&lines.stderr)
        )
    }

    fn wait_in<T>(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Lines) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(patience);
        let mut lines = self.output.lock();
        loop {
            if let Some(answer) = wanted(&lines) {
                return Ok(answer);
            }
            if lines.ended == 2 || deadline.passed() {
                let why = if lines.ended == 2 {
                    "it ended first"
                } else {
                    "not in time"
                };
                drop(lines);
                bail!("{}: {what}: {why}\n{}", self.name, self.report());
            }
            lines = self
                .output
                .changed
                .wait_timeout(lines, deadline.left())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.kill();
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects lines until the stream ends. The thread ends with the process.
fn read_lines(source: impl Read + Send + 'static, stream: Stream, output: Arc<Output>) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut lines = output.lock();
            match stream {
                Stream::Stdout => lines.stdout.push(line),
                Stream::Stderr => lines.stderr.push(line),
            }
            output.changed.notify_all();
        }
        output.lock().ended += 1;
        output.changed.notify_all();
    });
}

/// The last lines: enough to see why, not enough to bury it.
fn tail(lines: &[String]) -> String {
    lines
        .get(lines.len().saturating_sub(60)..)
        .unwrap_or_default()
        .join("\n")
}
