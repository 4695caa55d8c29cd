//! Counters of the data path: each shard writes cells of its own, a scrape adds them up.
//!
//! A cell has one writer, so counting is a load, an addition and a store in the shard's own cache line:
//! no locked instruction, no lookup by label text.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Family, LabelSet, MetricError, Registry, Sink};

/// Cells in one line: two cache lines, since neighbours are fetched in pairs.
const LINE: usize = 16;

#[repr(align(128))]
#[derive(Default)]
struct Line([AtomicU64; LINE]);

/// One shard's part of a counter or gauge. It can move to the shard's thread and cannot be shared, which
/// is what makes its cells single-writer.
pub struct Tallies<L> {
    lines: Arc<[Line]>,
    labels: PhantomData<fn(L)>,
    one_writer: PhantomData<Cell<()>>,
}

impl<L: LabelSet> Tallies<L> {
    /// Adds one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Adds `n`.
    pub fn add(&self, labels: L, n: u64) {
        let cell = self.cell(labels);
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes `n` away; for gauges. A shard may go below 0 as long as the sum of all does not.
    pub fn sub(&self, labels: L, n: u64) {
        let cell = self.cell(labels);
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    /// This shard's part.
    #[must_use]
    pub fn value(&self, labels: L) -> u64 {
        self.cell(labels).load(Ordering::Relaxed)
    }

    fn cell(&self, labels: L) -> &AtomicU64 {
        cell(&self.lines, labels.index())
    }
}

impl<L> std::fmt::Debug for Tallies<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tallies")
    }
}

fn cell(lines: &[Line], index: usize) -> &AtomicU64 {
    let line = lines
        .get(index / LINE)
        .expect("there is a cell for each value of the set");
    line.0
        .get(index % LINE)
        .expect("a remainder is smaller than its divisor")
}

pub(super) fn declare<L: LabelSet>(
    registry: &Registry,
    family: Family,
    shards: usize,
) -> Result<Vec<Tallies<L>>, MetricError> {
    let all = L::all();
    let lines = |_| -> Arc<[Line]> {
        std::iter::repeat_with(Line::default)
            .take(all.len().div_ceil(LINE))
            .collect()
    };
    let shards: Vec<Arc<[Line]>> = (0..shards).map(lines).collect();
    let read = shards.clone();
    let values: Vec<(usize, Vec<&str>)> = all.iter().map(|l| (l.index(), l.values())).collect();
    let collect = move |sink: &mut Sink<'_>| {
        for (index, labels) in &values {
            let parts = read
                .iter()
                .map(|lines| cell(lines, *index).load(Ordering::Relaxed));
            sink.set_at(0, labels, sum(parts));
        }
    };
    registry.collector(vec![family.labels(&L::names())], collect)?;
    let tallies = |lines| Tallies {
        lines,
        labels: PhantomData,
        one_writer: PhantomData,
    };
    Ok(shards.into_iter().map(tallies).collect())
}

/// The sum of all shards, where one shard's part of a gauge may be negative.
fn sum(parts: impl Iterator<Item = u64>) -> f64 {
    let total = parts.fold(0_u64, u64::wrapping_add);
    // Two shards are read one after the other, so a gauge that moved between them may pass below 0.
    let total = if total > u64::MAX / 2 { 0 } else { total };
    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floats; exact up to 2^53"
    )]
    let total = total as f64;
    total
}
