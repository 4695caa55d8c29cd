//! One player of the demo: an SDK endpoint behind an emulated NAT, on a thread of its own, as a game would use it.
//!
//! Once connected it sends a numbered message on both channels every [`INTERVAL`] and echoes the other's unreliable ones.
//! A player is done when all it sent is out and all of the other's reliable messages are in; the two leave together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use net_io::clock;
use rallypoint_client::{
    CandidateKind as SdkKind, Channel, ChannelId, DiaryEvent, Endpoint, Event, Join, Mode,
    PathInfo, PathKind, PlayerId, RelayTransport, SendError,
};

use crate::demo::board::{Happening, What};
use crate::demo::home::Home;
use crate::demo::record::{CandidateKind, LineKind, Path};

/// Messages a player sends on each channel.
pub(crate) const MESSAGES: u32 = 200;
const INTERVAL: Duration = Duration::from_millis(20);
/// How long the pair has played when the direct path is cut.
const CUT_AFTER: Duration = Duration::from_millis(1600);
/// How long the last unreliable messages may be under way.
const LAST_ECHOES: Duration = Duration::from_millis(200);
const NAP: Duration = Duration::from_millis(20);
/// A small game's state update.
const MESSAGE_BYTES: usize = 64;

const UNRELIABLE: ChannelId = 0;
const RELIABLE: ChannelId = 1;
const PING: u8 = 0;
const ECHO: u8 = 1;

/// A player's place in the demo.
pub(crate) struct Seat {
    pub(crate) pair: usize,
    pub(crate) side: usize,
    pub(crate) name: &'static str,
    pub(crate) signal: String,
    pub(crate) room: String,
    pub(crate) home: Home,
    /// This player's NAT is the one that cuts.
    pub(crate) cuts: bool,
    pub(crate) deadline: Instant,
    /// Somebody asked the whole demo to end.
    pub(crate) interrupted: Arc<AtomicBool>,
    pub(crate) happenings: Sender<Happening>,
    /// How many of the pair are done.
    pub(crate) done: Arc<AtomicU8>,
}

/// Plays until both are done, something fails, or the deadline is over; `Left` is the last that is reported.
pub(crate) fn play(seat: Seat) {
    let happenings = seat.happenings.clone();
    let (pair, side) = (seat.pair, seat.side);
    seat.report(What::Started);
    if let Err(reason) = Player::start(seat).and_then(Player::play) {
        let at = clock::mono();
        let _ = happenings.send(Happening {
            at,
            pair,
            side,
            what: What::Failed(reason),
        });
    }
    let at = clock::mono();
    let _ = happenings.send(Happening {
        at,
        pair,
        side,
        what: What::Left,
    });
}

struct Player {
    seat: Seat,
    endpoint: Endpoint,
    reliable: Channel,
    unreliable: Channel,
    other: Option<PlayerId>,
    connected: Option<Instant>,
    path: Option<PathInfo>,
    reliable_sent: u32,
    reliable_received: u32,
    /// When each unreliable message left.
    left: Vec<Instant>,
    cut: bool,
    done: bool,
}

impl Seat {
    fn report(&self, what: What) {
        let at = clock::mono();
        // The demo ends only after its players: somebody listens.
        let _ = self.happenings.send(Happening {
            at,
            pair: self.pair,
            side: self.side,
            what,
        });
    }
}

impl Player {
    fn start(seat: Seat) -> Result<Self, String> {
        let endpoint = Endpoint::builder(&seat.signal)
            .game("demo")
            .name(seat.name)
            .network(Arc::new(seat.home.clone()))
            .start()
            .map_err(|error| error.to_string())?;
        let unreliable = endpoint.channel(UNRELIABLE, Mode::Unreliable);
        let reliable = endpoint.channel(RELIABLE, Mode::ReliableOrdered);
        endpoint.join(Join::passphrase(&seat.room).create(2));
        Ok(Self {
            seat,
            endpoint,
            reliable,
            unreliable,
            other: None,
            connected: None,
            path: None,
            reliable_sent: 0,
            reliable_received: 0,
            left: Vec::new(),
            cut: false,
            done: false,
        })
    }

    fn play(mut self) -> Result<(), String> {
        loop {
            for event in self.endpoint.wait(self.time_to_sleep()) {
                self.handle(event)?;
            }
            self.send_what_is_due()?;
            self.cut_when_due();
            self.note_when_done();
            if self.seat.done.load(Ordering::SeqCst) >= 2 {
                self.endpoint.shutdown();
                return Ok(());
            }
            let interrupted = self.seat.interrupted.load(Ordering::SeqCst);
            if interrupted || clock::mono() >= self.seat.deadline {
                return Err(self.what_is_missing());
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::RoomJoined { players, .. } => {
                self.seat.report(What::Joined);
                self.other = players.first().map(|(player, _)| *player);
            }
            Event::PlayerJoined { player, .. } => self.other = Some(player),
            Event::CandidateGathered(candidate) => {
                let kind = match candidate.kind {
                    SdkKind::Host => CandidateKind::Host,
                    SdkKind::ServerReflexive | SdkKind::PeerReflexive => CandidateKind::Reflexive,
                    SdkKind::Relayed => CandidateKind::Relayed,
                };
                self.seat.report(What::Candidate {
                    kind,
                    address: candidate.address.to_string(),
                    transport: candidate.transport.map(|transport| transport.to_string()),
                });
            }
            Event::Gathered { .. } => self.seat.report(What::Gathered),
            Event::Diary { entry, .. } => {
                let kind = if let DiaryEvent::CheckSent { .. } = entry.what {
                    LineKind::Check
                } else if let DiaryEvent::CheckAnswered { .. } = entry.what {
                    LineKind::Answer
                } else {
                    LineKind::Note
                };
                self.seat.report(What::Diary(kind, entry.what.to_string()));
            }
            Event::PlayerConnected { player, path, .. } => {
                self.other = Some(player);
                self.connected = Some(clock::mono());
                self.path = Some(path);
                self.seat
                    .report(What::Connected(path_of(&path), path.to_string()));
            }
            Event::PathChanged { to, .. } => {
                self.path = Some(to);
                self.seat.report(What::Moved(path_of(&to), to.to_string()));
            }
            Event::Message {
                player,
                channel,
                data,
            } => self.take(player, channel, &data),
            Event::PlayerLost { reason, diary, .. } if !self.done => {
                return Err(format!("{reason}; {}", diary.summary()));
            }
            Event::Failed(error) if !self.done => return Err(error.to_string()),
            // The last two: of no interest once everything is done.
            Event::Signaling(_)
            | Event::RoomReady
            | Event::PlayerLost { .. }
            | Event::Failed(_) => {}
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, player: PlayerId, channel: ChannelId, data: &[u8]) {
        let Some((kind, rest)) = data.split_first() else {
            return;
        };
        let Some(number) = rest.first_chunk().map(|number| u32::from_be_bytes(*number)) else {
            return;
        };
        if channel == RELIABLE {
            self.reliable_received += 1;
            self.seat.report(What::ReliableArrived(number));
        } else if *kind == PING {
            self.seat.report(What::UnreliableArrived(number));
            // What finds no room is a lost datagram.
            let _ = self.unreliable.send(player, &message(ECHO, number));
        } else if let Some(left) = usize::try_from(number)
            .ok()
            .and_then(|at| self.left.get(at))
        {
            let rtt = clock::mono().saturating_duration_since(*left);
            self.seat.report(What::Echoed(rtt.as_secs_f64() * 1000.0));
        }
    }

    fn send_what_is_due(&mut self) -> Result<(), String> {
        let (Some(other), Some(connected)) = (self.other, self.connected) else {
            return Ok(());
        };
        let now = clock::mono();
        let due = |number: u32| number < MESSAGES && now >= connected + INTERVAL * number;
        while due(self.unreliable_sent()) {
            let message = message(PING, self.unreliable_sent());
            self.left.push(now);
            self.seat.report(What::UnreliableSent);
            let _ = self.unreliable.send(other, &message);
        }
        while due(self.reliable_sent) {
            match self
                .reliable
                .send(other, &message(PING, self.reliable_sent))
            {
                Ok(()) => {}
                // Full: kept, and tried again with the next turn of the loop.
                Err(SendError::Full { .. } | SendError::NotConnected) => break,
                Err(error) => return Err(error.to_string()),
            }
            self.reliable_sent += 1;
            self.seat.report(What::ReliableSent);
        }
        Ok(())
    }

    fn cut_when_due(&mut self) {
        let Some((connected, path)) = self.connected.zip(self.path) else {
            return;
        };
        let is_due = clock::mono() >= connected + CUT_AFTER;
        if self.seat.cuts && !self.cut && is_due && path.kind == PathKind::Direct {
            self.cut = true;
            self.seat.home.cut(path.remote);
            self.seat.report(What::Cut);
        }
    }

    fn note_when_done(&mut self) {
        let quiet = self.left.last().map(|last| *last + LAST_ECHOES);
        let all_out = self.reliable_sent == MESSAGES && self.unreliable_sent() == MESSAGES;
        let all_in = self.reliable_received == MESSAGES;
        if !self.done && all_out && all_in && quiet.is_some_and(|quiet| quiet <= clock::mono()) {
            self.done = true;
            self.seat.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn unreliable_sent(&self) -> u32 {
        u32::try_from(self.left.len()).unwrap_or(u32::MAX)
    }

    fn time_to_sleep(&self) -> Duration {
        let Some(connected) = self.connected else {
            return NAP;
        };
        let next = connected + INTERVAL * self.unreliable_sent();
        next.saturating_duration_since(clock::mono()).min(NAP)
    }

    fn what_is_missing(&self) -> String {
        if self.connected.is_none() {
            let diary = self.other.and_then(|other| self.endpoint.diary(other));
            let tried = diary.map(|diary| format!("; {}", diary.summary()));
            return format!("no connection in time{}", tried.unwrap_or_default());
        }
        format!(
            "{} of {MESSAGES} reliable messages in time",
            self.reliable_received
        )
    }
}

fn path_of(path: &PathInfo) -> Path {
    match path.kind {
        PathKind::Direct => Path::Direct,
        PathKind::Relayed {
            transport: RelayTransport::Udp,
        } => Path::Relay,
        PathKind::Relayed { .. } => Path::RelayOverTcp,
    }
}

fn message(kind: u8, number: u32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(MESSAGE_BYTES, 0);
    bytes
}
