//! A new configuration for a process that runs: asked for by SIGHUP or by a change of the file, in force whole or refused
//! whole, and told in the log and the metrics either way.

mod requests;

use std::error::Error;
use std::fmt::Display;

pub use requests::{ConfigFile, ReloadRequests};

use crate::config::Problems;
use crate::logging::OPERATOR;
use crate::metrics::{Gauge, MetricError, Registry};

/// Why a configuration was refused; the one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError<E: Error + 'static> {
    /// Every fault of the file.
    #[error(transparent)]
    File(Problems),
    /// It does not fit what runs.
    #[error(transparent)]
    Config(E),
}

/// What came of a new configuration, by its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// In force now.
    pub changed: Vec<&'static str>,
    /// Differ from what runs, and wait for a restart.
    pub need_restart: Vec<&'static str>,
}

impl Reloaded {
    /// From keys, each with whether it differs: of those that can change while the process runs, and of those that sockets
    /// and threads were made from.
    #[must_use]
    pub fn of(live: &[(&'static str, bool)], fixed: &[(&'static str, bool)]) -> Self {
        let differing = |keys: &[(&'static str, bool)]| {
            let differing = keys.iter().filter(|(_, differs)| *differs);
            differing.map(|(key, _)| *key).collect()
        };
        Self {
            changed: differing(live),
            need_restart: differing(fixed),
        }
    }
}

/// Says in the log what came of a new configuration.
pub fn log<E: Display>(outcome: &Result<Reloaded, E>) {
    match outcome {
        Ok(reloaded) => {
            let changed = list(&reloaded.changed);
            tracing::info!(changed, "configuration reloaded");
            if !reloaded.need_restart.is_empty() {
                let keys = list(&reloaded.need_restart);
                tracing::warn!(keys, "changed, but in force only after a restart");
            }
        }
        Err(error) => {
            tracing::warn!("configuration refused, the one before stays in force");
            // One line for each fault: an operator asked for this.
            for fault in error.to_string().lines() {
                tracing::warn!(name: OPERATOR, "{fault}");
            }
        }
    }
}

fn list(keys: &[&str]) -> String {
    if keys.is_empty() {
        return "nothing".to_owned();
    }
    keys.join(", ")
}

/// What the configuration in force says of its own newness.
#[derive(Debug, Clone)]
pub struct ReloadGauges {
    successful: Gauge,
    succeeded_at: Gauge,
}

impl ReloadGauges {
    /// Declares both.
    ///
    /// # Errors
    /// They are declared already.
    pub fn declare(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            successful: registry.gauge(
                "rallypoint_config_last_reload_successful",
                "1 if the newest configuration offered is in force, 0 if it was refused.",
            )?,
            succeeded_at: registry.gauge(
                "rallypoint_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was taken over, in seconds since 1970.",
            )?,
        })
    }

    /// A configuration is in force from now on; `unix` is the time in seconds since 1970.
    pub fn taken_over(&self, unix: u64) {
        self.succeeded_at
            .set(i64::try_from(unix).unwrap_or(i64::MAX));
        self.successful.set(1);
    }

    /// A configuration was refused; the one before stays in force.
    pub fn refused(&self) {
        self.successful.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_its_key() {
        let reloaded = Reloaded::of(
            &[("limits", true), ("tls", false), ("log.level", true)],
            &[("listen", false), ("threads", true)],
        );
        assert_eq!(reloaded.changed, ["limits", "log.level"]);
        assert_eq!(reloaded.need_restart, ["threads"]);
        assert_eq!(list(&[]), "nothing");
        assert_eq!(list(&reloaded.changed), "limits, log.level");
    }
}
