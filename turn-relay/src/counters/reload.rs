//! What the configuration in force says of itself.

use net_io::clock;
use ops::metrics::{Gauge, MetricError, Registry};

use crate::config::Config;

/// Gauges that follow the configuration; the control plane alone writes to them.
#[derive(Debug, Clone)]
pub(crate) struct ConfigGauges {
    successful: Gauge,
    succeeded_at: Gauge,
    bandwidth_limit: Gauge,
}

impl ConfigGauges {
    pub(crate) fn declare(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            successful: registry.gauge(
                "rallypoint_config_last_reload_successful",
                "1 if the newest configuration offered is in force, 0 if it was refused.",
            )?,
            succeeded_at: registry.gauge(
                "rallypoint_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was taken over, in seconds since 1970.",
            )?,
            bandwidth_limit: registry.gauge(
                "rallypoint_turn_bandwidth_limit_bytes_per_second",
                "Payload bytes a second of one allocation, each way; 0: unlimited.",
            )?,
        })
    }

    /// This configuration is in force from now on.
    pub(crate) fn taken_over(&self, config: &Config) {
        let limit = config.quota.bandwidth_per_allocation.unwrap_or(0);
        self.bandwidth_limit.set(i64::from(limit));
        let now = i64::try_from(clock::unix()).unwrap_or(i64::MAX);
        self.succeeded_at.set(now);
        self.successful.set(1);
    }

    /// A configuration was refused; the one before stays in force.
    pub(crate) fn refused(&self) {
        self.successful.set(0);
    }
}
