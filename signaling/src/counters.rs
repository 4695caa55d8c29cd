//! Every metric of the server, with its help and its closed labels; all of them are there from the
//! start, as 0.

mod labels;

pub(crate) use labels::{
    Direction, DisconnectReason, DroppedWhat, ErrorLabel, LimiterLabel, LobbyEndLabel, LobbyState,
    MessageType, PlayerState, RefusedWhy, ResumeLabel,
};

use crate::config::Config;
use ops::metrics::{
    Counter, CounterVec, Family, Gauge, GaugeVec, HistogramVec, MetricError, Registry,
};
use signaling_lobby::{Census, Event};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From a microsecond (a ping) to a tenth of a second (something is wrong).
const DURATIONS: [f64; 9] = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2, 1e-1];

/// The metrics of `ops.md` 3.3 that belong to what this server does, and a few of its own.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) connections_refused: CounterVec<RefusedWhy>,
    pub(crate) disconnects: CounterVec<DisconnectReason>,
    pub(crate) messages: CounterVec<(Direction, MessageType)>,
    pub(crate) message_duration: HistogramVec<MessageType>,
    pub(crate) send_queue_dropped: Counter,
    pub(crate) dropped: CounterVec<DroppedWhat>,
    pub(crate) lobbies: GaugeVec<LobbyState>,
    pub(crate) lobbies_opened: Counter,
    pub(crate) lobbies_closed: CounterVec<LobbyEndLabel>,
    pub(crate) players: GaugeVec<PlayerState>,
    pub(crate) resumes: CounterVec<ResumeLabel>,
    pub(crate) errors: CounterVec<ErrorLabel>,
    pub(crate) rate_limited: CounterVec<LimiterLabel>,
    credentials: Arc<Vec<Issued>>,
    /// For each relay of the configuration the place of its region in `credentials`.
    regions: Vec<usize>,
}

/// Credentials issued for one region.
#[derive(Debug)]
struct Issued {
    region: String,
    count: AtomicU64,
}

impl Counters {
    pub(crate) fn new(registry: &Registry, config: &Config) -> Result<Self, MetricError> {
        let (credentials, regions) = regions(config);
        declare_credentials(registry, &credentials)?;
        Ok(Self {
            connections: registry.gauge(
                "rallypoint_signal_connections",
                "WebSocket connections open.",
            )?,
            connections_total: registry.counter(
                "rallypoint_signal_connections_total",
                "WebSocket connections opened.",
            )?,
            connections_refused: registry.counter_vec(
                "rallypoint_signal_connections_refused_total",
                "Connections refused before or at their upgrade, by reason.",
            )?,
            disconnects: registry.counter_vec(
                "rallypoint_signal_disconnects_total",
                "WebSocket connections ended, by reason.",
            )?,
            messages: registry.counter_vec(
                "rallypoint_signal_messages_total",
                "Messages received and sent, by type.",
            )?,
            message_duration: registry.histogram_vec(
                "rallypoint_signal_message_duration_seconds",
                "Time from a message's arrival to its answers waiting to be sent, by type.",
                &DURATIONS,
            )?,
            send_queue_dropped: registry.counter(
                "rallypoint_signal_send_queue_dropped_total",
                "Messages dropped because their receiver does not read.",
            )?,
            dropped: registry.counter_vec(
                "rallypoint_signal_dropped_total",
                "Messages dropped within a bound, by what they were.",
            )?,
            lobbies: registry.gauge_vec("rallypoint_signal_lobbies", "Lobbies open, by state.")?,
            lobbies_opened: registry
                .counter("rallypoint_signal_lobbies_opened_total", "Lobbies opened.")?,
            lobbies_closed: registry.counter_vec(
                "rallypoint_signal_lobbies_closed_total",
                "Lobbies ended, by reason.",
            )?,
            players: registry.gauge_vec(
                "rallypoint_signal_players",
                "Players with a session, by state.",
            )?,
            resumes: registry.counter_vec(
                "rallypoint_signal_resumes_total",
                "Attempts to take a session up again, by outcome.",
            )?,
            errors: registry.counter_vec(
                "rallypoint_signal_errors_total",
                "Requests refused, by error code.",
            )?,
            rate_limited: registry.counter_vec(
                "rallypoint_rate_limited_total",
                "Times a rate limit was hit, by limiter.",
            )?,
            credentials,
            regions,
        })
    }

    /// Counts a TURN credential for the relay at `index` of the configuration.
    pub(crate) fn credential_issued(&self, index: usize) {
        let issued = self
            .regions
            .get(index)
            .and_then(|region| self.credentials.get(*region));
        if let Some(issued) = issued {
            issued.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what happened in the machine.
    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::NotAdmitted(why) => self.connections_refused.with(RefusedWhy::from(why)).inc(),
            Event::Refused(code) => self.errors.with(ErrorLabel::from(code)).inc(),
            Event::RateLimited(limiter) => {
                self.rate_limited.with(LimiterLabel::from(limiter)).inc();
            }
            Event::LobbyOpened(_) => self.lobbies_opened.inc(),
            Event::LobbyReady(_) => {}
            Event::LobbyClosed(end) => self.lobbies_closed.with(LobbyEndLabel::from(end)).inc(),
            Event::Resume(outcome) => self.resumes.with(ResumeLabel::from(outcome)).inc(),
            Event::Dropped(what) => self.dropped.with(DroppedWhat::from(what)).inc(),
        }
    }

    /// Shows how many of everything there are.
    pub(crate) fn census(&self, census: Census) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let ready = census.lobbies_ready;
        self.lobbies.with(LobbyState::Ready).set(gauge(ready));
        self.lobbies
            .with(LobbyState::Waiting)
            .set(gauge(census.lobbies.saturating_sub(ready)));
        let cut = census.sessions_cut;
        self.players.with(PlayerState::Cut).set(gauge(cut));
        self.players
            .with(PlayerState::Connected)
            .set(gauge(census.sessions.saturating_sub(cut)));
    }
}

/// The regions of the relays, each once, and for each relay the place of its own.
fn regions(config: &Config) -> (Arc<Vec<Issued>>, Vec<usize>) {
    let mut regions: Vec<Issued> = Vec::new();
    let mut places = Vec::new();
    for relay in &config.relays {
        let known = regions
            .iter()
            .position(|issued| issued.region == relay.region);
        places.push(known.unwrap_or(regions.len()));
        if known.is_none() {
            let region = relay.region.clone();
            regions.push(Issued {
                region,
                count: AtomicU64::new(0),
            });
        }
    }
    (Arc::new(regions), places)
}

fn declare_credentials(
    registry: &Registry,
    credentials: &Arc<Vec<Issued>>,
) -> Result<(), MetricError> {
    const NAME: &str = "rallypoint_signal_turn_credentials_issued_total";
    let family = Family::counter(NAME, "TURN credentials issued, by region.").labels(&["region"]);
    let credentials = Arc::clone(credentials);
    registry.collector(vec![family], move |sink| {
        for issued in &*credentials {
            // Exact up to 2^53, like everything in Prometheus.
            #[expect(clippy::cast_precision_loss, reason = "the format has floats only")]
            let count = issued.count.load(Ordering::Relaxed) as f64;
            sink.set(NAME, &[&issued.region], count);
        }
    })
}
