//! What every process exports: which build it is, what it uses, what it logs.

use super::{Family, MetricError, Registry};
use crate::logging;

/// Which build this is.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// The version, of the daemon's own manifest.
    pub version: &'static str,
    /// The revision it was built from, or `unknown`.
    pub revision: &'static str,
}

/// Declares `rallypoint_build_info`, `rallypoint_log_messages_total` and, on Linux, `process_*`.
///
/// # Errors
/// They are declared already.
pub fn register_process(registry: &Registry, build: BuildInfo) -> Result<(), MetricError> {
    let info = Family::gauge("rallypoint_build_info", "The build that runs; always 1.")
        .labels(&["version", "revision"]);
    registry.collector(vec![info], move |sink| {
        sink.set(
            "rallypoint_build_info",
            &[build.version, build.revision],
            1.0,
        );
    })?;
    let messages = Family::counter(
        "rallypoint_log_messages_total",
        "Messages logged, by level.",
    )
    .labels(&["level"]);
    registry.collector(vec![messages], |sink| {
        for (level, count) in logging::message_counts() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "samples are floats; exact to 2^53"
            )]
            sink.set("rallypoint_log_messages_total", &[level], count as f64);
        }
    })?;
    register_process_usage(registry)
}

#[cfg(target_os = "linux")]
fn register_process_usage(registry: &Registry) -> Result<(), MetricError> {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register("process_*", Box::new(process))
}

#[cfg(not(target_os = "linux"))]
fn register_process_usage(_: &Registry) -> Result<(), MetricError> {
    Ok(())
}
