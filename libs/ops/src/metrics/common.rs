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

/// Declares `rallypoint_build_info`, `rallypoint_log_*` and, on Linux, `process_*`.
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
    register_log(registry)?;
    register_process_usage(registry)
}

fn register_log(registry: &Registry) -> Result<(), MetricError> {
    const MESSAGES: &str = "rallypoint_log_messages_total";
    const SUPPRESSED: &str = "rallypoint_log_suppressed_messages_total";
    const FAILED: &str = "rallypoint_log_failed_writes_total";
    let held_back =
        "Messages held back, because there were more than ten of their kind in a second.";
    let families = vec![
        Family::counter(MESSAGES, "Messages logged, by level.").labels(&["level"]),
        Family::counter(SUPPRESSED, held_back).labels(&["level"]),
        Family::counter(
            FAILED,
            "Writes of the log that the system refused, such as on a full disk.",
        ),
    ];
    registry.collector(families, |sink| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "samples are floats; exact to 2^53"
        )]
        let float = |count: u64| count as f64;
        for (level, count) in logging::message_counts() {
            sink.set(MESSAGES, &[level], float(count));
        }
        for (level, count) in logging::suppressed_counts() {
            sink.set(SUPPRESSED, &[level], float(count));
        }
        sink.set(FAILED, &[], float(logging::failed_writes()));
    })
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
