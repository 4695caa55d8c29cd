//! Every metric of the relay: declared here, all of them at start, with closed labels.
//!
//! What the data path counts is in cells of its own shard and added up at scrape; what the machine
//! counts is copied into such cells after requests (`counters/scrape.rs`). A packet takes no lock.
//! For each side, received = the sum of its verdicts.

mod labels;
mod reload;
mod scrape;

use std::time::Duration;

use ops::config::ListenUrl;
use ops::metrics::{Histogram, MetricError, Registry, Tallies};
use turn_relay_proto::{Direction, DropReason, EndReason, Forward, Path, Traffic};

pub(crate) use labels::{
    Bound, Carrier, Connected, Dropped, Ended, Limiter, Operation, Origin, Outcome, PeerEnd,
    PeerRefusal, ProxyHeader, Side, StreamEnd, StreamKind, StreamRefusal, Told, Towards,
    UndecidedEnd, Version, Wrapped,
};
pub(crate) use reload::ConfigGauges;
pub(crate) use scrape::Cells;

use labels::client_labels;

/// One shard's part of all metrics; its thread alone writes to it.
#[derive(Debug)]
pub(crate) struct ShardCounters {
    pub(crate) traffic: TrafficCounters,
    pub(crate) allocations: AllocationCounters,
    pub(crate) streams: StreamCounters,
    pub(crate) peers: PeerCounters,
    pub(crate) relay_sockets: Tallies<Bound>,
    pub(crate) socket_errors: Tallies<Operation>,
    pub(crate) peer_errors: Tallies<Told>,
    pub(crate) cells: Cells,
}

/// What is received and what becomes of it.
#[derive(Debug)]
pub(crate) struct TrafficCounters {
    received: Tallies<Side>,
    verdicts: Tallies<(Side, Outcome)>,
    dropped: Tallies<(Towards, Dropped)>,
    relayed_packets: Tallies<(Towards, Wrapped)>,
    relayed_bytes: Tallies<(Towards, Wrapped)>,
    limited: Tallies<Limiter>,
    batch: Histogram,
    forward: Histogram,
}

/// Allocations and their ends.
#[derive(Debug)]
pub(crate) struct AllocationCounters {
    current: Tallies<(Carrier, Version)>,
    created: Tallies<(Carrier, Version)>,
    ended: Tallies<Ended>,
    duration: Histogram,
    relayed: Histogram,
}

/// TCP and TLS connections.
#[derive(Debug)]
pub(crate) struct StreamCounters {
    pub(crate) current: Tallies<StreamKind>,
    pub(crate) accepted: Tallies<StreamKind>,
    pub(crate) ended: Tallies<StreamEnd>,
    pub(crate) refused: Tallies<StreamRefusal>,
    pub(crate) undecided: Tallies<()>,
    pub(crate) undecided_ended: Tallies<UndecidedEnd>,
    pub(crate) proxy_headers: Tallies<ProxyHeader>,
}

/// TCP connections with peers (RFC 6062).
#[derive(Debug)]
pub(crate) struct PeerCounters {
    pub(crate) connects: Tallies<Connected>,
    pub(crate) opened: Tallies<Origin>,
    pub(crate) ended: Tallies<PeerEnd>,
    pub(crate) refused: Tallies<PeerRefusal>,
}

const DURATION_BUCKETS: [f64; 9] = [
    60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 43_200.0, 86_400.0,
];
const RELAYED_BUCKETS: [f64; 8] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];
const BATCH_BUCKETS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
const FORWARD_BUCKETS: [f64; 9] = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 1e-1];

/// Deals the parts of each metric out to the shards.
macro_rules! dealt {
    ($shards:expr, $part:ident { $($field:ident: $parts:expr),+ $(,)? }) => {{
        $(let mut $field = $parts.into_iter();)+
        let parts = (0..$shards).map(|_| Some($part { $($field: $field.next()?),+ }));
        parts.collect::<Option<Vec<_>>>().expect("each metric has a part for each shard")
    }};
}

/// Declares every metric and returns each shard's part.
///
/// `udp` are the UDP listeners as bound, in the order in which shards report their overflow.
pub(crate) fn register(
    registry: &Registry,
    shards: usize,
    udp: &[ListenUrl],
) -> Result<Vec<ShardCounters>, MetricError> {
    Ok(dealt!(
        shards,
        ShardCounters {
            traffic: TrafficCounters::declare(registry, shards)?,
            allocations: AllocationCounters::declare(registry, shards)?,
            streams: StreamCounters::declare(registry, shards)?,
            peers: PeerCounters::declare(registry, shards)?,
            relay_sockets: registry.sharded_counter(
                "rallypoint_turn_relay_sockets_total",
                "Relay sockets asked for, by what came of it.",
                shards,
            )?,
            socket_errors: registry.sharded_counter(
                "rallypoint_turn_socket_errors_total",
                "System calls that failed; service goes on.",
                shards,
            )?,
            peer_errors: registry.sharded_counter(
                "rallypoint_turn_peer_icmp_errors_total",
                "ICMP errors for packets relayed to peers, by whether the client was told.",
                shards,
            )?,
            cells: scrape::declare(registry, shards, udp)?,
        }
    ))
}

impl TrafficCounters {
    fn declare(registry: &Registry, shards: usize) -> Result<Vec<Self>, MetricError> {
        let batch = registry.histogram(
            "rallypoint_turn_receive_batch_packets",
            "Datagrams taken by one receive; one receive in 16 is sampled.",
            &BATCH_BUCKETS,
        )?;
        let forward = registry.histogram(
            "rallypoint_turn_forward_duration_seconds",
            "From reading a batch to having sent what came of it; one batch in 64 is sampled.",
            &FORWARD_BUCKETS,
        )?;
        Ok(dealt!(
            shards,
            Self {
                received: registry.sharded_counter(
                    "rallypoint_turn_received_packets_total",
                    "Datagrams, and frames of connections, received from clients and from peers.",
                    shards,
                )?,
                verdicts: registry.sharded_counter(
                    "rallypoint_turn_verdicts_total",
                    "What became of everything received: for each side they add up to it.",
                    shards,
                )?,
                dropped: registry.sharded_counter(
                    "rallypoint_turn_dropped_packets_total",
                    "Packets not relayed and not answered, by the way they would have gone.",
                    shards,
                )?,
                relayed_packets: registry.sharded_counter(
                    "rallypoint_turn_relayed_packets_total",
                    "Payloads relayed, including the few the system then refused to send.",
                    shards,
                )?,
                relayed_bytes: registry.sharded_counter(
                    "rallypoint_turn_relayed_bytes_total",
                    "Payload bytes relayed, without framing.",
                    shards,
                )?,
                limited: registry.sharded_counter(
                    "rallypoint_rate_limited_total",
                    "Packets refused by a rate limit.",
                    shards,
                )?,
                batch: std::iter::repeat(batch),
                forward: std::iter::repeat(forward),
            }
        ))
    }

    /// Something was received; it is followed by exactly one of the next four.
    pub(crate) fn received(&self, side: Side) {
        self.received.inc(side);
    }

    pub(crate) fn forwarded(&self, side: Side, forward: &Forward) {
        self.verdicts.inc((side, Outcome::Forwarded));
        let labels = (forward.direction.into(), forward.framing.into());
        let bytes = u64::try_from(forward.payload.len()).unwrap_or(u64::MAX);
        self.relayed_packets.inc(labels);
        self.relayed_bytes.add(labels, bytes);
    }

    /// Bytes that a connection with a peer has carried (RFC 6062).
    pub(crate) fn carried(&self, direction: Direction, bytes: usize) {
        let labels = (direction.into(), Wrapped::Connection);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.relayed_bytes.add(labels, bytes);
    }

    pub(crate) fn replied(&self, side: Side) {
        self.verdicts.inc((side, Outcome::Replied));
    }

    pub(crate) fn absorbed(&self, side: Side) {
        self.verdicts.inc((side, Outcome::Absorbed));
    }

    pub(crate) fn dropped(&self, side: Side, reason: DropReason) {
        let reason = Dropped::from(reason);
        self.verdicts.inc((side, Outcome::Dropped));
        self.dropped.inc((away_from(side), reason));
        if let Some(limiter) = reason.limiter() {
            self.limited.inc(limiter);
        }
    }

    /// Received, but longer than any datagram this relay takes.
    pub(crate) fn truncated(&self, side: Side, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.received.add(side, count);
        self.verdicts.add((side, Outcome::Dropped), count);
        self.dropped
            .add((away_from(side), Dropped::TooLarge), count);
    }

    /// Decided to be sent, and then not.
    pub(crate) fn unsent(&self, towards: Towards, reason: Dropped, count: usize) {
        if count > 0 {
            self.dropped
                .add((towards, reason), u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn sample_batch(&self, datagrams: usize) {
        self.batch
            .observe(f64::from(u32::try_from(datagrams).unwrap_or(u32::MAX)));
    }

    pub(crate) fn sample_forward(&self, duration: Duration) {
        self.forward.observe(duration.as_secs_f64());
    }
}

fn away_from(side: Side) -> Towards {
    match side {
        Side::Client => Towards::Peer,
        Side::Peer => Towards::Client,
    }
}

impl AllocationCounters {
    fn declare(registry: &Registry, shards: usize) -> Result<Vec<Self>, MetricError> {
        let duration = registry.histogram(
            "rallypoint_turn_allocation_duration_seconds",
            "How long allocations lived.",
            &DURATION_BUCKETS,
        )?;
        let relayed = registry.histogram(
            "rallypoint_turn_allocation_relayed_bytes",
            "Payload bytes that allocations carried, both ways together.",
            &RELAYED_BUCKETS,
        )?;
        Ok(dealt!(
            shards,
            Self {
                current: registry.sharded_gauge(
                    "rallypoint_turn_allocations",
                    "Allocations that exist, by the client's transport and family.",
                    shards,
                )?,
                created: registry.sharded_counter(
                    "rallypoint_turn_allocations_created_total",
                    "Allocations made, by the client's transport and family.",
                    shards,
                )?,
                ended: registry.sharded_counter(
                    "rallypoint_turn_allocations_ended_total",
                    "Allocations that ended.",
                    shards,
                )?,
                duration: std::iter::repeat(duration),
                relayed: std::iter::repeat(relayed),
            }
        ))
    }

    pub(crate) fn created(&self, client: Path) {
        self.current.inc(client_labels(client));
        self.created.inc(client_labels(client));
    }

    pub(crate) fn ended(&self, client: Path, reason: EndReason, lived: Duration, traffic: Traffic) {
        self.current.sub(client_labels(client), 1);
        self.ended.inc(reason.into());
        self.duration.observe(lived.as_secs_f64());
        let bytes = traffic
            .to_peer_bytes
            .saturating_add(traffic.to_client_bytes);
        self.relayed.observe(scrape::sample(bytes));
    }
}

impl StreamCounters {
    fn declare(registry: &Registry, shards: usize) -> Result<Vec<Self>, MetricError> {
        Ok(dealt!(
            shards,
            Self {
                current: registry.sharded_gauge(
                    "rallypoint_turn_connections",
                    "Client connections that are open.",
                    shards,
                )?,
                accepted: registry.sharded_counter(
                    "rallypoint_turn_connections_total",
                    "Client connections accepted.",
                    shards,
                )?,
                ended: registry.sharded_counter(
                    "rallypoint_turn_connections_ended_total",
                    "Client connections that ended.",
                    shards,
                )?,
                refused: registry.sharded_counter(
                    "rallypoint_turn_connections_refused_total",
                    "Client connections closed at once, or as soon as their client was known.",
                    shards,
                )?,
                undecided: registry.sharded_gauge(
                    "rallypoint_turn_undecided_connections",
                    "Connections that have not shown yet who they are of, or whether TLS is spoken.",
                    shards,
                )?,
                undecided_ended: registry.sharded_counter(
                    "rallypoint_turn_undecided_connections_ended_total",
                    "Connections that ended before that.",
                    shards,
                )?,
                proxy_headers: registry.sharded_counter(
                    "rallypoint_turn_proxy_headers_total",
                    "PROXY headers taken, and refused together with their connections.",
                    shards,
                )?,
            }
        ))
    }
}

impl PeerCounters {
    fn declare(registry: &Registry, shards: usize) -> Result<Vec<Self>, MetricError> {
        Ok(dealt!(
            shards,
            Self {
                connects: registry.sharded_counter(
                    "rallypoint_turn_peer_connects_total",
                    "Connections to peers asked for (RFC 6062), by what came of it.",
                    shards,
                )?,
                opened: registry.sharded_counter(
                    "rallypoint_turn_peer_connections_total",
                    "Connections with peers that came to be, by who made them.",
                    shards,
                )?,
                ended: registry.sharded_counter(
                    "rallypoint_turn_peer_connections_ended_total",
                    "Connections with peers that ended.",
                    shards,
                )?,
                refused: registry.sharded_counter(
                    "rallypoint_turn_peer_connections_refused_total",
                    "Connections of peers closed at once.",
                    shards,
                )?,
            }
        ))
    }
}
