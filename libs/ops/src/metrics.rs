//! Metrics: the one module that knows the metrics library, so that it can be replaced.
//!
//! Three kinds of source, for three kinds of code:
//!
//! - [`Counter`], [`Gauge`], [`Histogram`] and their `…Vec`s: atomic, for the control plane.
//! - [`Tallies`], from [`Registry::sharded_counter`]: one plain cell per shard, label and counter,
//!   written by that shard alone and summed at scrape, for the data path.
//! - [`Registry::collector`]: a function asked at scrape, for what is known elsewhere already.
//!
//! Labels are closed: a [`Label`] is an enum whose values are all exported from the start, as 0. Names
//! follow `rallypoint_<component>_<thing>_<unit>`, counters end in `_total`, units are seconds and bytes.

mod collector;
mod common;
mod http;
mod labels;
mod sharded;

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::{HistogramOpts, Opts, TextEncoder};

pub use collector::{Family, Kind, Sink};
pub use common::{BuildInfo, register_process};
pub use http::HttpMetrics;
pub use labels::{Label, LabelSet};
pub use sharded::Tallies;

/// The media type of what [`Registry::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric could not be declared: its name is taken, or not a name.
#[derive(Debug, thiserror::Error)]
#[error("metric `{name}`: {reason}")]
pub struct MetricError {
    name: String,
    reason: String,
}

impl MetricError {
    fn new(name: &str, reason: impl fmt::Display) -> Self {
        Self {
            name: name.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// The metrics of one service. Clones share them; two services of one process have two.
#[derive(Clone, Default)]
pub struct Registry {
    inner: prometheus::Registry,
    http: Arc<OnceLock<HttpMetrics>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a counter without labels.
    ///
    /// # Errors
    /// The name is taken or not a name; so for all that follow.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, MetricError> {
        Ok(self.counter_vec::<()>(name, help)?.with(()).clone())
    }

    /// Declares a counter for each value of a closed set of labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn counter_vec<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
    ) -> Result<CounterVec<L>, MetricError> {
        let vec = prometheus::IntCounterVec::new(Opts::new(name, help), &L::names())
            .map_err(|error| MetricError::new(name, error))?;
        self.register(name, Box::new(vec.clone()))?;
        CounterVec::new(name, |values| {
            vec.get_metric_with_label_values(values).map(Counter)
        })
    }

    /// Declares a gauge without labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricError> {
        Ok(self.gauge_vec::<()>(name, help)?.with(()).clone())
    }

    /// Declares a gauge for each value of a closed set of labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge_vec<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
    ) -> Result<GaugeVec<L>, MetricError> {
        let vec = prometheus::IntGaugeVec::new(Opts::new(name, help), &L::names())
            .map_err(|error| MetricError::new(name, error))?;
        self.register(name, Box::new(vec.clone()))?;
        GaugeVec::new(name, |values| {
            vec.get_metric_with_label_values(values).map(Gauge)
        })
    }

    /// Declares a histogram without labels; `buckets` are upper bounds, ascending.
    ///
    /// # Errors
    /// As [`counter`](Self::counter), or the bounds do not ascend.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricError> {
        Ok(self
            .histogram_vec::<()>(name, help, buckets)?
            .with(())
            .clone())
    }

    /// Declares a histogram for each value of a closed set of labels.
    ///
    /// # Errors
    /// As [`histogram`](Self::histogram).
    pub fn histogram_vec<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec<L>, MetricError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let vec = prometheus::HistogramVec::new(options, &L::names())
            .map_err(|error| MetricError::new(name, error))?;
        self.register(name, Box::new(vec.clone()))?;
        HistogramVec::new(name, |values| {
            vec.get_metric_with_label_values(values).map(Histogram)
        })
    }

    /// Declares a counter that each of `shards` threads counts for itself; see [`Tallies`].
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn sharded_counter<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
        shards: usize,
    ) -> Result<Vec<Tallies<L>>, MetricError> {
        sharded::declare(self, Family::counter(name, help), shards)
    }

    /// Declares a gauge that each of `shards` threads moves for itself; see [`Tallies`].
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn sharded_gauge<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
        shards: usize,
    ) -> Result<Vec<Tallies<L>>, MetricError> {
        sharded::declare(self, Family::gauge(name, help), shards)
    }

    /// Declares families whose values `read` is asked for at every scrape.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn collector(
        &self,
        families: Vec<Family>,
        read: impl Fn(&mut Sink<'_>) + Send + Sync + 'static,
    ) -> Result<(), MetricError> {
        collector::declare(self, families, Box::new(read))
    }

    /// The HTTP metrics of this service, declared on first use and shared by all its listeners.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn http(&self) -> Result<HttpMetrics, MetricError> {
        if let Some(metrics) = self.http.get() {
            return Ok(metrics.clone());
        }
        let metrics = HttpMetrics::declare_in(self)?;
        Ok(self.http.get_or_init(|| metrics).clone())
    }

    /// Every metric, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.inner.gather())
            .expect("families without metrics are left out, and writing to a string cannot fail")
    }

    fn register(&self, name: &str, collector: Box<dyn Collector>) -> Result<(), MetricError> {
        self.inner
            .register(collector)
            .map_err(|error| MetricError::new(name, error))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(prometheus::IntCounter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The number so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(prometheus::IntGauge);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.add(n);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.get()
    }
}

/// How observed values spread over fixed buckets.
#[derive(Debug, Clone)]
pub struct Histogram(prometheus::Histogram);

impl Histogram {
    /// Counts `value` in its bucket.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// How many values were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

/// One metric for each value of a closed set of labels, found by position and not by hashing.
#[derive(Debug, Clone)]
pub struct MetricVec<L, M> {
    metrics: Arc<[M]>,
    labels: PhantomData<fn(L)>,
}

/// A counter for each value of a closed set of labels.
pub type CounterVec<L> = MetricVec<L, Counter>;
/// A gauge for each value of a closed set of labels.
pub type GaugeVec<L> = MetricVec<L, Gauge>;
/// A histogram for each value of a closed set of labels.
pub type HistogramVec<L> = MetricVec<L, Histogram>;

impl<L: LabelSet, M> MetricVec<L, M> {
    fn new(
        name: &str,
        create: impl Fn(&[&str]) -> prometheus::Result<M>,
    ) -> Result<Self, MetricError> {
        let all = L::all();
        let metrics: prometheus::Result<Arc<[M]>> =
            all.iter().map(|labels| create(&labels.values())).collect();
        let metrics = metrics.map_err(|error| MetricError::new(name, error))?;
        Ok(Self {
            metrics,
            labels: PhantomData,
        })
    }

    /// The metric with these labels.
    #[must_use]
    pub fn with(&self, labels: L) -> &M {
        self.metrics
            .get(labels.index())
            .expect("there is a metric for each value of the set")
    }
}

#[cfg(test)]
mod tests;
