//! Families that are read at scrape: a function writes their values into a [`Sink`].

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::{MetricError, Registry};

/// Whether a family only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric by its name, what it says, and the names of its labels.
#[derive(Debug, Clone)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: Vec<&'static str>,
}

impl Family {
    /// A counter; its name ends in `_total`.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Counter,
            labels: Vec::new(),
        }
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
        }
    }

    /// The same family with these labels.
    #[must_use]
    pub fn labels(mut self, labels: &[&'static str]) -> Self {
        self.labels = labels.to_vec();
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// Takes the values of one scrape.
#[derive(Debug)]
pub struct Sink<'f> {
    families: &'f [Family],
    metrics: Vec<Vec<proto::Metric>>,
}

impl Sink<'_> {
    /// Reports one value of the family called `name`; `labels` are the values in the declared order.
    /// What was not declared is left out.
    pub fn set(&mut self, name: &str, labels: &[&str], value: f64) {
        let Some(index) = self.families.iter().position(|family| family.name == name) else {
            debug_assert!(false, "metric {name} was not declared");
            return;
        };
        self.set_at(index, labels, value);
    }

    pub(super) fn set_at(&mut self, index: usize, labels: &[&str], value: f64) {
        let (Some(family), Some(metrics)) = (self.families.get(index), self.metrics.get_mut(index))
        else {
            return;
        };
        debug_assert_eq!(
            family.labels.len(),
            labels.len(),
            "labels of {}",
            family.name
        );
        let mut metric = proto::Metric::default();
        let pairs = family.labels.iter().zip(labels);
        let mut pairs: Vec<_> = pairs.map(|(name, value)| label_pair(name, value)).collect();
        // Sorted by name, as the library does for its own metrics.
        pairs.sort_by(|left, right| left.name().cmp(right.name()));
        metric.set_label(pairs);
        match family.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metrics.push(metric);
    }
}

fn label_pair(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

type Read = Box<dyn Fn(&mut Sink<'_>) + Send + Sync>;

struct ReadAtScrape {
    families: Vec<Family>,
    descriptions: Vec<Desc>,
    read: Read,
}

pub(super) fn declare(
    registry: &Registry,
    families: Vec<Family>,
    read: Read,
) -> Result<(), MetricError> {
    let describe = |family: &Family| {
        let labels = family
            .labels
            .iter()
            .map(|label| (*label).to_owned())
            .collect();
        Desc::new(
            family.name.to_owned(),
            family.help.to_owned(),
            labels,
            Default::default(),
        )
        .map_err(|error| MetricError::new(family.name, error))
    };
    let descriptions = families
        .iter()
        .map(describe)
        .collect::<Result<Vec<Desc>, _>>()?;
    let names: Vec<&str> = families.iter().map(Family::name).collect();
    let names = names.join(", ");
    registry.register(
        &names,
        Box::new(ReadAtScrape {
            families,
            descriptions,
            read,
        }),
    )
}

impl Collector for ReadAtScrape {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let metrics = vec![Vec::new(); self.families.len()];
        let mut sink = Sink {
            families: &self.families,
            metrics,
        };
        (self.read)(&mut sink);
        let collected = sink.families.iter().zip(sink.metrics);
        collected
            .map(|(family, metrics)| exported(family, metrics))
            .collect()
    }
}

fn exported(family: &Family, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut exported = proto::MetricFamily::default();
    exported.set_name(family.name.to_owned());
    exported.set_help(family.help.to_owned());
    exported.set_field_type(match family.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    });
    exported.set_metric(metrics);
    exported
}
