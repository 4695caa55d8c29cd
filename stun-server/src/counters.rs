//! Every metric of the STUN server, and which verdict moves which.
//!
//! They add up: what was received is `requests` + `indications` + `discarded_packets` without
//! `rate_limited`; what was answered is `requests` less those `rate_limited`.

mod connections;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use net_io::SendReport;
use ops::metrics::{Family, Histogram, MetricError, Registry, Tallies};
use stun_server_proto::{Answer, DropReason, Limit, Verdict};

pub(crate) use connections::{Closed, ConnectionCounters, ProxyHeader};

ops::label! {
    /// What a message came over.
    pub(crate) enum Transport: "transport" {
        /// Datagrams.
        Udp = "udp",
        /// Connections.
        Tcp = "tcp",
        /// Connections under TLS.
        Tls = "tls",
    }
}

ops::label! {
    /// The methods that are spoken.
    enum Method: "method" {
        Binding = "binding",
    }
}

ops::label! {
    /// The IP version of a source.
    enum IpFamily: "family" {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

ops::label_set! {
    /// How a request was answered.
    enum Response: ("method", "class", "code") {
        Success = ("binding", "success", "none"),
        UnknownAttribute = ("binding", "error", "420"),
        BadRequest = ("binding", "error", "400"),
    }
}

ops::label! {
    /// Why a message was not answered.
    enum Discard: "reason" {
        TooShort = "too_short",
        TooLong = "too_long",
        NotStun = "not_stun",
        BadLength = "bad_length",
        Malformed = "malformed",
        BadFingerprint = "bad_fingerprint",
        BadIntegrity = "bad_integrity",
        NotRequest = "not_request",
        Unsupported = "unsupported",
        BadSource = "bad_source",
        RateLimited = "rate_limited",
    }
}

ops::label! {
    /// Which limit refused.
    enum Limiter: "limiter" {
        Source = "source",
        Neighbourhood = "neighbourhood",
        Server = "server",
        Redirect = "redirect",
    }
}

ops::label! {
    /// Why the system did not take an answer.
    enum Unsent: "reason" {
        QueueFull = "queue_full",
        TooLarge = "too_large",
        Refused = "refused",
    }
}

/// One reply in this many is timed.
const TIMED: u32 = 64;
const DURATIONS: [f64; 8] = [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 10e-3, 100e-3];

/// The counters of one thread.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: Tallies<(Method, Transport, IpFamily)>,
    indications: Tallies<()>,
    responses: Tallies<Response>,
    discarded: Tallies<Discard>,
    rate_limited: Tallies<Limiter>,
    received_bytes: Tallies<Transport>,
    sent_bytes: Tallies<Transport>,
    unsent: Tallies<Unsent>,
    /// Of connections.
    pub(crate) connections: ConnectionCounters,
    durations: Histogram,
    until_timed: u32,
}

impl Counters {
    /// Declares everything, for so many threads.
    pub(crate) fn declare(registry: &Registry, threads: usize) -> Result<Vec<Self>, MetricError> {
        macro_rules! sharded {
            ($declare:ident, $name:literal, $help:literal) => {
                registry
                    .$declare(concat!("rallypoint_", $name), $help, threads)?
                    .into_iter()
            };
        }
        let mut requests = sharded!(
            sharded_counter,
            "stun_requests_total",
            "Well-formed requests."
        );
        let mut indications = sharded!(
            sharded_counter,
            "stun_indications_total",
            "Binding indications."
        );
        let mut responses = sharded!(sharded_counter, "stun_responses_total", "Answers.");
        let mut discarded = sharded!(
            sharded_counter,
            "stun_discarded_packets_total",
            "Datagrams and messages discarded without an answer."
        );
        let mut rate_limited = sharded!(
            sharded_counter,
            "rate_limited_total",
            "Requests not answered because a limit was reached."
        );
        let mut received_bytes = sharded!(
            sharded_counter,
            "stun_received_bytes_total",
            "Payload received."
        );
        let mut sent_bytes = sharded!(sharded_counter, "stun_sent_bytes_total", "Payload sent.");
        let mut unsent = sharded!(
            sharded_counter,
            "stun_unsent_packets_total",
            "Answers that the system did not take."
        );
        let mut connections = ConnectionCounters::declare(registry, threads)?.into_iter();
        let durations = declare_durations(registry)?;
        let one_thread = || {
            Some(Self {
                requests: requests.next()?,
                indications: indications.next()?,
                responses: responses.next()?,
                discarded: discarded.next()?,
                rate_limited: rate_limited.next()?,
                received_bytes: received_bytes.next()?,
                sent_bytes: sent_bytes.next()?,
                unsent: unsent.next()?,
                connections: connections.next()?,
                durations: durations.clone(),
                until_timed: TIMED,
            })
        };
        Ok(std::iter::from_fn(one_thread).collect())
    }

    /// Counts a message and what became of it.
    pub(crate) fn judged(
        &self,
        transport: Transport,
        source: SocketAddr,
        length: usize,
        verdict: Verdict,
    ) {
        self.received_bytes.add(transport, length as u64);
        match verdict {
            Verdict::Reply { answer, .. } => {
                self.requested(transport, source);
                self.responses.inc(match answer {
                    Answer::Success => Response::Success,
                    Answer::UnknownAttribute => Response::UnknownAttribute,
                    Answer::BadRequest => Response::BadRequest,
                });
            }
            Verdict::Absorbed => self.indications.inc(()),
            Verdict::Dropped(reason) => {
                if let DropReason::RateLimited(limit) = reason {
                    self.requested(transport, source);
                    self.rate_limited.inc(match limit {
                        Limit::Source => Limiter::Source,
                        Limit::Neighbourhood => Limiter::Neighbourhood,
                        Limit::Server => Limiter::Server,
                        Limit::Redirect => Limiter::Redirect,
                    });
                }
                self.discarded.inc(reason.into());
            }
        }
    }

    fn requested(&self, transport: Transport, source: SocketAddr) {
        let family = match source.ip() {
            IpAddr::V4(_) => IpFamily::Ipv4,
            IpAddr::V6(_) => IpFamily::Ipv6,
        };
        self.requests.inc((Method::Binding, transport, family));
    }

    /// Counts messages longer than any that is looked at.
    pub(crate) fn too_long(&self, messages: usize) {
        self.discarded.add(Discard::TooLong, messages as u64);
    }

    /// Counts what a batch of answers came to.
    pub(crate) fn sent_batch(&self, report: SendReport) {
        self.sent_bytes
            .add(Transport::Udp, report.sent_bytes as u64);
        self.unsent.add(Unsent::QueueFull, report.queue_full as u64);
        self.unsent.add(Unsent::TooLarge, report.too_large as u64);
        self.unsent.add(Unsent::Refused, report.refused as u64);
    }

    /// Counts bytes written to a connection.
    pub(crate) fn written(&self, transport: Transport, bytes: usize) {
        self.sent_bytes.add(transport, bytes as u64);
    }

    /// Whether the answer just made is one of those to be timed.
    pub(crate) fn is_timed(&mut self) -> bool {
        self.until_timed -= 1;
        if self.until_timed == 0 {
            self.until_timed = TIMED;
        }
        self.until_timed == TIMED
    }

    pub(crate) fn timed(&self, duration: std::time::Duration) {
        self.durations.observe(duration.as_secs_f64());
    }
}

fn declare_durations(registry: &Registry) -> Result<Histogram, MetricError> {
    registry.histogram(
        "rallypoint_stun_response_duration_seconds",
        "Time from receiving a request to having sent its answer; one in 64 is timed.",
        &DURATIONS,
    )
}

impl From<DropReason> for Discard {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::TooShort => Self::TooShort,
            DropReason::NotStun => Self::NotStun,
            DropReason::BadLength => Self::BadLength,
            DropReason::Malformed => Self::Malformed,
            DropReason::BadFingerprint => Self::BadFingerprint,
            DropReason::BadIntegrity => Self::BadIntegrity,
            DropReason::NotRequest => Self::NotRequest,
            DropReason::Unsupported => Self::Unsupported,
            DropReason::BadSource => Self::BadSource,
            DropReason::RateLimited(_) => Self::RateLimited,
        }
    }
}

/// What the kernel dropped at one listener, as each of its shards last saw it.
#[derive(Debug)]
pub(crate) struct QueueDrops {
    listener: String,
    shards: Vec<Arc<AtomicU64>>,
}

impl QueueDrops {
    pub(crate) fn new(listener: String) -> Self {
        Self {
            listener,
            shards: Vec::new(),
        }
    }

    /// The cell of one more shard, which alone writes it.
    pub(crate) fn shard(&mut self) -> Arc<AtomicU64> {
        let cell = Arc::new(AtomicU64::new(0));
        self.shards.push(Arc::clone(&cell));
        cell
    }

    /// Declares the drops of all listeners.
    pub(crate) fn declare(listeners: Vec<Self>, registry: &Registry) -> Result<(), MetricError> {
        let name = "rallypoint_udp_receive_queue_dropped_total";
        let help = "Datagrams that the system dropped: no room in the receive queue, or at first sight no STUN.";
        let family = Family::counter(name, help).labels(&["listener"]);
        registry.collector(vec![family], move |sink| {
            for listener in &listeners {
                let drops = listener
                    .shards
                    .iter()
                    .map(|cell| cell.load(Ordering::Relaxed));
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "samples are floats; exact to 2^53"
                )]
                sink.set(name, &[&listener.listener], drops.sum::<u64>() as f64);
            }
        })
    }
}
