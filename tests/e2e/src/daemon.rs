//! One daemon on one machine: started with its configuration file, ready, asked for its metrics, restarted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::http;
use crate::netns::Machine;
use crate::processes::Process;
use crate::wait;

/// Counters follow what they count within this, even on a loaded machine.
const METRICS_PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    machine: Machine,
    admin: SocketAddr,
    config: PathBuf,
    program: PathBuf,
    prefix: Vec<String>,
}

impl Daemon {
    /// Starts `PROGRAM --config FILE` and waits until its admin listener says that it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the error holds what it said.
    pub fn start(
        machine: Machine,
        program: &Path,
        config: &Path,
        admin: SocketAddr,
    ) -> Result<Self> {
        Self::start_by(&[], machine, program, config, admin)
    }

    /// As [`Daemon::start`], by way of a command that ends by executing its last arguments, such as `env NAME=VALUE`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_by(
        prefix: &[&str],
        machine: Machine,
        program: &Path,
        config: &Path,
        admin: SocketAddr,
    ) -> Result<Self> {
        let prefix: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
        let process = launch(&prefix, &machine, program, config)?;
        let daemon = Self {
            process,
            machine,
            admin,
            config: config.to_owned(),
            program: program.to_owned(),
            prefix,
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts it again with the same configuration, killing it first (SIGKILL) if it still runs.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.running()? {
            self.process.kill()?;
        }
        self.process = launch(&self.prefix, &self.machine, &self.program, &self.config)?;
        self.wait_ready()
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The machine it runs on.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its admin listener, on that machine's loopback.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `/metrics` as text.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub fn metrics(&self) -> Result<String> {
        let (status, body) = http::get(&self.machine, self.admin, "/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {body}");
        Ok(body)
    }

    /// The sum of a metric over its series that carry all the given labels (as `name="value"`).
    ///
    /// # Errors
    /// When `/metrics` does not answer, or has no such series.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let scrape = self.metrics()?;
        sum_of(&scrape, name, labels).with_context(|| format!("no {name} {labels:?} in\n{scrape}"))
    }

    /// Waits until a metric has reached `least`: a daemon answers first and counts a moment later.
    ///
    /// # Errors
    /// When it stays below, or there is no such series.
    pub fn metric_reaches(&self, name: &str, labels: &[&str], least: f64) -> Result<()> {
        let what = format!("{name} {labels:?} reaches {least}");
        wait::until(&what, METRICS_PATIENCE, || {
            Ok((self.metric(name, labels)? >= least).then_some(()))
        })
        .with_context(|| format!("it is {:?}", self.metric(name, labels)))
    }

    /// Asks it to end by SIGTERM and waits until it has, with success.
    ///
    /// # Errors
    /// When it takes too long or ends with anything but 0.
    pub fn shut_down(&self, patience: Duration) -> Result<()> {
        self.process.terminate()?;
        let status = self.process.wait(patience)?;
        ensure!(
            status.success(),
            "{} ended with {status}\n{}",
            self.program.display(),
            self.process.report()
        );
        Ok(())
    }

    fn wait_ready(&self) -> Result<()> {
        http::wait_ready(&self.machine, self.admin, &self.process)
            .with_context(|| self.program.display().to_string())
    }
}

/// The sum of one metric in a scrape over the series that carry all the given labels; `None` when there is no such series.
#[must_use]
pub fn sum_of(scrape: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = scrape
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| labels.iter().all(|label| line.contains(label)));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value)
}

fn launch(prefix: &[String], machine: &Machine, program: &Path, config: &Path) -> Result<Process> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = match prefix.split_first() {
        None => machine.command(program),
        Some((first, rest)) => {
            let mut command = machine.command(first);
            command.args(rest).arg(program);
            command
        }
    };
    Process::start(&name, command.arg("--config").arg(config))
}
