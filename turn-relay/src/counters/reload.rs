//! What the configuration in force says of itself.

use net_io::clock;
use ops::metrics::{Gauge, MetricError, Registry};
use ops::reload::ReloadGauges;

use crate::config::Config;

/// Gauges that follow the configuration; the control plane alone writes to them.
#[derive(Debug, Clone)]
pub(crate) struct ConfigGauges {
    reloads: ReloadGauges,
    bandwidth_limit: Gauge,
}

impl ConfigGauges {
    pub(crate) fn declare(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            reloads: ReloadGauges::declare(registry)?,
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
        self.reloads.taken_over(clock::unix());
    }

    /// A configuration was refused; the one before stays in force.
    pub(crate) fn refused(&self) {
        self.reloads.refused();
    }
}
