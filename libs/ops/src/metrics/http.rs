//! Requests over HTTP, of the admin listener and of a service's own.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use super::{MetricError, Registry};

const DURATIONS: [f64; 8] = [0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// `rallypoint_http_requests_total{handler,code}` and `rallypoint_http_request_duration_seconds{handler}`.
///
/// A handler is a name in our code, never a path that a client sent.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl HttpMetrics {
    pub(super) fn declare_in(registry: &Registry) -> Result<Self, MetricError> {
        let name = "rallypoint_http_requests_total";
        let help = "HTTP requests answered, by handler and status code.";
        let requests = IntCounterVec::new(Opts::new(name, help), &["handler", "code"])
            .map_err(|error| MetricError::new(name, error))?;
        registry.register(name, Box::new(requests.clone()))?;
        let name = "rallypoint_http_request_duration_seconds";
        let help = "Time from a request's head to its answer, by handler.";
        let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
        let durations = HistogramVec::new(options, &["handler"])
            .map_err(|error| MetricError::new(name, error))?;
        registry.register(name, Box::new(durations.clone()))?;
        Ok(Self {
            requests,
            durations,
        })
    }

    /// Exports `handler` with these status codes from the start, as 0.
    pub fn declare(&self, handler: &'static str, codes: &[u16]) {
        for code in codes {
            let _ = self
                .requests
                .with_label_values(&[handler, &code.to_string()]);
        }
        let _ = self.durations.with_label_values(&[handler]);
    }

    /// Counts one answered request.
    pub fn record(&self, handler: &'static str, code: u16, duration: Duration) {
        self.requests
            .with_label_values(&[handler, &code.to_string()])
            .inc();
        self.durations
            .with_label_values(&[handler])
            .observe(duration.as_secs_f64());
    }
}
