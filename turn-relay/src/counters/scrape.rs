//! What is read at scrape: copies of the machine's own counts, and what sockets and threads report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use net_io::clock;
use ops::config::ListenUrl;
use ops::metrics::{Family, MetricError, Registry, Sink};
use turn_relay_proto::{Counters, Gauges, Relay};

/// Listeners named in labels; the rest is `other` together.
const LISTENERS_NAMED: usize = 32;

/// Scrapes closer together than this see the same busy ratio.
const BUSY_WINDOW: Duration = Duration::from_secs(1);

const REQUESTS: &str = "rallypoint_turn_requests_total";
const RESPONSES: &str = "rallypoint_turn_responses_total";
const AUTH_FAILURES: &str = "rallypoint_turn_auth_failures_total";
const QUOTA_REJECTIONS: &str = "rallypoint_turn_quota_rejections_total";
const OVERFLOW: &str = "rallypoint_udp_receive_queue_dropped_total";
const CONNECTED: &str = "rallypoint_turn_connected_sockets";
const BUSY: &str = "rallypoint_turn_worker_busy_ratio";

type Level = fn(&Gauges) -> usize;

const LEVELS: [(&str, &str, Level); 7] = [
    (
        "rallypoint_turn_permissions",
        "Permissions installed.",
        |g| g.permissions,
    ),
    ("rallypoint_turn_channels", "Channels bound.", |g| {
        g.channels
    }),
    (
        "rallypoint_turn_peer_connections",
        "TCP connections with peers (RFC 6062), those that are being made included.",
        |g| g.peer_connections,
    ),
    (
        "rallypoint_turn_relay_ports_in_use",
        "Relay ports in use or reserved.",
        |g| g.ports_in_use,
    ),
    (
        "rallypoint_turn_relay_ports_limit",
        "Relay ports there are.",
        |g| g.ports_limit,
    ),
    (
        "rallypoint_turn_relay_ports_reserved",
        "Relay ports held for a token.",
        |g| g.reservations,
    ),
    (
        "rallypoint_turn_spare_sockets",
        "Relay sockets that ended allocations have left for the next ones.",
        |g| g.spare_sockets,
    ),
];

/// One shard's cells. A clone is the reader's end.
#[derive(Debug, Clone)]
pub(crate) struct Cells(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: Vec<AtomicU64>,
    responses: Vec<AtomicU64>,
    auth_failures: Vec<AtomicU64>,
    quota_rejections: Vec<AtomicU64>,
    levels: [AtomicU64; LEVELS.len()],
    /// Datagrams the system dropped, by UDP listener; the last cell is all relay sockets.
    overflow: Vec<AtomicU64>,
    connected: AtomicU64,
    busy_nanos: AtomicU64,
}

impl Cells {
    fn new(udp_listeners: usize) -> Self {
        let cells = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let model = Counters::default();
        Self(Arc::new(Inner {
            requests: cells(model.requests().count()),
            responses: cells(model.responses().count()),
            auth_failures: cells(model.auth_failures().count()),
            quota_rejections: cells(model.quota_rejections().count()),
            levels: [const { AtomicU64::new(0) }; LEVELS.len()],
            overflow: cells(udp_listeners + 1),
            connected: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
        }))
    }

    /// Copies what the machine has counted. Some hundred plain stores: after requests, not packets.
    pub(crate) fn publish(&self, relay: &Relay) {
        let counters = relay.counters();
        store(&self.0.requests, counters.requests().map(|(_, _, n)| n));
        store(&self.0.responses, counters.responses().map(|(_, _, n)| n));
        store(
            &self.0.auth_failures,
            counters.auth_failures().map(|(_, n)| n),
        );
        store(
            &self.0.quota_rejections,
            counters.quota_rejections().map(|(_, n)| n),
        );
        let gauges = relay.gauges();
        let levels = LEVELS.iter().map(|(_, _, level)| level(&gauges));
        store(
            &self.0.levels,
            levels.map(|level| u64::try_from(level).unwrap_or(u64::MAX)),
        );
    }

    /// What the system has dropped so far on a UDP listener.
    pub(crate) fn listener_overflow(&self, listener: usize, total: u64) {
        if let Some(cell) = self.0.overflow.get(listener) {
            cell.store(total, Ordering::Relaxed);
        }
    }

    /// What the system has dropped more on some relay socket.
    pub(crate) fn relay_overflow(&self, more: u64) {
        if let Some(cell) = self.0.overflow.last().filter(|_| more > 0) {
            cell.store(
                cell.load(Ordering::Relaxed).wrapping_add(more),
                Ordering::Relaxed,
            );
        }
    }

    /// There are so many sockets that are connected to a peer.
    pub(crate) fn connected_sockets(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.connected.store(count, Ordering::Relaxed);
    }

    /// The thread has worked for so long since it last waited.
    pub(crate) fn busy_for(&self, duration: Duration) {
        let cell = &self.0.busy_nanos;
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(nanos),
            Ordering::Relaxed,
        );
    }
}

fn store(cells: &[AtomicU64], values: impl Iterator<Item = u64>) {
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value, Ordering::Relaxed);
    }
}

/// Declares what is read from cells and returns each shard's.
pub(super) fn declare(
    registry: &Registry,
    shards: usize,
    udp: &[ListenUrl],
) -> Result<Vec<Cells>, MetricError> {
    let cells: Vec<Cells> = (0..shards).map(|_| Cells::new(udp.len())).collect();
    declare_machine(registry, cells.clone())?;
    declare_overflow(registry, cells.clone(), udp)?;
    declare_connected(registry, cells.clone())?;
    declare_busy(registry, cells.clone())?;
    Ok(cells)
}

fn declare_machine(registry: &Registry, cells: Vec<Cells>) -> Result<(), MetricError> {
    let mut families = vec![
        Family::counter(REQUESTS, "Well-formed requests.").labels(&["method", "transport"]),
        Family::counter(RESPONSES, "Responses made; code 0 is success.")
            .labels(&["method", "class", "code"]),
        Family::counter(AUTH_FAILURES, "Requests not authenticated.").labels(&["reason"]),
        Family::counter(QUOTA_REJECTIONS, "Refused because of a quota.").labels(&["quota"]),
    ];
    families.extend(
        LEVELS
            .iter()
            .map(|(name, help, _)| Family::gauge(name, help)),
    );
    registry.collector(families, move |sink| report_machine(sink, &cells))
}

fn report_machine(sink: &mut Sink<'_>, cells: &[Cells]) {
    let model = Counters::default();
    let total = |index: usize, part: fn(&Inner) -> &[AtomicU64]| {
        sample(sum(cells
            .iter()
            .filter_map(|cells| part(&cells.0).get(index))))
    };
    for (index, (method, transport, _)) in model.requests().enumerate() {
        let labels = [method.label(), transport.label()];
        sink.set(REQUESTS, &labels, total(index, |inner| &inner.requests));
    }
    for (index, (method, code, _)) in model.responses().enumerate() {
        let class = if code.is_some() { "error" } else { "success" };
        let code = code.unwrap_or(0).to_string();
        let labels = [method.label(), class, &code];
        sink.set(RESPONSES, &labels, total(index, |inner| &inner.responses));
    }
    for (index, (failure, _)) in model.auth_failures().enumerate() {
        sink.set(
            AUTH_FAILURES,
            &[failure.label()],
            total(index, |inner| &inner.auth_failures),
        );
    }
    for (index, (quota, _)) in model.quota_rejections().enumerate() {
        sink.set(
            QUOTA_REJECTIONS,
            &[quota.label()],
            total(index, |inner| &inner.quota_rejections),
        );
    }
    for (index, (name, _, _)) in LEVELS.iter().enumerate() {
        sink.set(name, &[], total(index, |inner| &inner.levels));
    }
}

fn declare_overflow(
    registry: &Registry,
    cells: Vec<Cells>,
    udp: &[ListenUrl],
) -> Result<(), MetricError> {
    let family = Family::counter(
        OVERFLOW,
        "Datagrams the system dropped: a receive queue was full, or at first sight no TURN.",
    );
    // Addresses come from the configuration, so there are as many as the operator wrote.
    let named = udp.iter().take(LISTENERS_NAMED).map(ToString::to_string);
    let mut names: Vec<String> = named.collect();
    if udp.len() > LISTENERS_NAMED {
        names.push("other".to_owned());
    }
    registry.collector(vec![family.labels(&["listener"])], move |sink| {
        for (index, name) in names.iter().enumerate() {
            let last = if name == "other" { usize::MAX } else { index };
            let parts = cells.iter().flat_map(|cells| {
                let (_, listeners) = cells.0.overflow.split_last()?;
                listeners.get(index..=last.min(listeners.len() - 1))
            });
            sink.set(OVERFLOW, &[name], sample(sum(parts.flatten())));
        }
        let relays = cells.iter().filter_map(|cells| cells.0.overflow.last());
        sink.set(OVERFLOW, &["relay"], sample(sum(relays)));
    })
}

fn declare_connected(registry: &Registry, cells: Vec<Cells>) -> Result<(), MetricError> {
    let family = Family::gauge(
        CONNECTED,
        "Second sockets of allocations, each connected to the peer that is sent most.",
    );
    registry.collector(vec![family], move |sink| {
        let all = cells.iter().map(|cells| &cells.0.connected);
        sink.set(CONNECTED, &[], sample(sum(all)));
    })
}

/// What the busy ratios were reckoned from last.
struct Window {
    since: Instant,
    busy_nanos: Vec<u64>,
    ratios: Vec<f64>,
}

fn declare_busy(registry: &Registry, cells: Vec<Cells>) -> Result<(), MetricError> {
    let family = Family::gauge(
        BUSY,
        "Share of the time since the last scrape in which the worker did not wait.",
    );
    let window = Mutex::new(Window {
        since: clock::mono(),
        busy_nanos: vec![0; cells.len()],
        ratios: vec![0.0; cells.len()],
    });
    registry.collector(vec![family.labels(&["worker"])], move |sink| {
        // Taken by scrapes alone; a poisoned window is still a window.
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        window.advance(clock::mono(), &cells);
        for (worker, ratio) in window.ratios.iter().enumerate() {
            sink.set(BUSY, &[&worker.to_string()], *ratio);
        }
    })
}

impl Window {
    fn advance(&mut self, now: Instant, cells: &[Cells]) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < BUSY_WINDOW {
            return;
        }
        let parts = self.ratios.iter_mut().zip(&mut self.busy_nanos).zip(cells);
        for ((ratio, before), cells) in parts {
            let busy = cells.0.busy_nanos.load(Ordering::Relaxed);
            let worked = Duration::from_nanos(busy.wrapping_sub(*before));
            *ratio = (worked.as_secs_f64() / elapsed.as_secs_f64()).min(1.0);
            *before = busy;
        }
        self.since = now;
    }
}

fn sum<'c>(cells: impl Iterator<Item = &'c AtomicU64>) -> u64 {
    cells
        .map(|cell| cell.load(Ordering::Relaxed))
        .fold(0, u64::wrapping_add)
}

/// Samples are floats; exact to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "samples are floats; exact to 2^53"
)]
pub(super) fn sample(value: u64) -> f64 {
    value as f64
}
