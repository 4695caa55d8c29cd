//! Whether the service takes work: told to probes, to Prometheus and to systemd alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

use crate::metrics::{Gauge, MetricError, Registry};

/// Ready and draining. Clones share one state.
///
/// Under systemd (`Type=notify`) the first `set_ready(true)` completes the start, and
/// `set_stopping` announces the stop.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    ready: AtomicBool,
    draining: AtomicBool,
    ready_gauge: Gauge,
    draining_gauge: Gauge,
}

impl Health {
    /// Neither ready nor draining; declares `rallypoint_ready` and `rallypoint_draining`.
    ///
    /// # Errors
    /// They are declared already.
    pub fn new(registry: &Registry) -> Result<Self, MetricError> {
        let ready_help = "1 while the service takes new work.";
        let draining_help = "1 while the service refuses new work and waits for the old to end.";
        Ok(Self(Arc::new(State {
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ready_gauge: registry.gauge("rallypoint_ready", ready_help)?,
            draining_gauge: registry.gauge("rallypoint_draining", draining_help)?,
        })))
    }

    /// Says whether the service can take work.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
        self.0.ready_gauge.set(i64::from(self.is_ready()));
        if ready {
            tell_systemd(&NotifyState::Ready);
        }
    }

    /// Says that no new work is taken. A draining service is not ready, whatever `set_ready` said.
    pub fn set_draining(&self, draining: bool) {
        self.0.draining.store(draining, Ordering::Relaxed);
        self.0.draining_gauge.set(i64::from(draining));
        self.0.ready_gauge.set(i64::from(self.is_ready()));
    }

    /// Says that no new work is taken, and that the process ends with the old.
    pub fn set_stopping(&self) {
        self.set_draining(true);
        tell_systemd(&NotifyState::Stopping);
    }

    /// Whether new work is taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed) && !self.is_draining()
    }

    /// Whether the service waits for its work to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }
}

/// Does nothing where there is no `NOTIFY_SOCKET`.
fn tell_systemd(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_service_is_not_ready() {
        let registry = Registry::new();
        let health = Health::new(&registry).unwrap();
        assert!(!health.is_ready());
        health.set_ready(true);
        assert!(health.is_ready());
        assert!(registry.render().contains("\nrallypoint_ready 1\n"));
        health.set_draining(true);
        assert!(!health.is_ready());
        let text = registry.render();
        assert!(text.contains("\nrallypoint_ready 0\n"), "{text}");
        assert!(text.contains("\nrallypoint_draining 1\n"), "{text}");
        health.set_draining(false);
        assert!(health.is_ready());
        health.set_stopping();
        assert!(health.is_draining() && !health.is_ready());
    }
}
