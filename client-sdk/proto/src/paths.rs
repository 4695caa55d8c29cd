//! The path diary, and the judgement whether a path still lives.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::trust::DescriptionError;
use crate::types::{CandidateInfo, CandidateKind, PathInfo, RelayTransport};

/// Lines a diary keeps; later ones are dropped and counted.
pub const MAX_DIARY: usize = 400;
/// The least silence that counts as death, and how many round trips it is at least.
const SILENCE: Duration = Duration::from_millis(350);
const SILENCE_TRIPS: u32 = 6;
/// The same where something is heard but no probe is answered: our direction alone has died.
const UNANSWERED: Duration = Duration::from_millis(1000);
const UNANSWERED_TRIPS: u32 = 12;
/// Probes are at least this far apart.
const PROBE_PACE: Duration = Duration::from_millis(100);
/// An address given up is tried again after this long, doubling up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// One line of a [`PathDiary`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiaryEntry {
    /// Since the player was known.
    pub at: Duration,
    /// What happened.
    pub what: DiaryEvent,
}

/// What happened on the way to a player.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiaryEvent {
    /// We told the other player a candidate of ours.
    LocalCandidate(CandidateInfo),
    /// The other player told us one of theirs.
    RemoteCandidate {
        /// Its kind.
        kind: CandidateKind,
        /// Its address.
        address: SocketAddr,
    },
    /// The other player's signed description came.
    DescriptionTaken,
    /// A description was refused.
    DescriptionRefused(DescriptionError),
    /// A relay gave us no address, or took it back.
    RelayFailed {
        /// Its URL.
        url: std::sync::Arc<str>,
        /// Why.
        reason: &'static str,
    },
    /// A pair was checked for the first time.
    CheckSent {
        /// Our end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    },
    /// A pair's check was answered: the path works both ways.
    CheckAnswered {
        /// Our end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    },
    /// A path was chosen.
    Chosen(PathInfo),
    /// The encrypted session is open.
    Connected,
    /// Nothing came back over the path in use for `silent`; it was left.
    Died {
        /// The path.
        path: PathInfo,
        /// For how long.
        silent: Duration,
    },
    /// A path that had died is checked again.
    TriedAgain {
        /// Its other end.
        remote: SocketAddr,
    },
}

impl fmt::Display for DiaryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.1} ms  {}",
            self.at.as_secs_f64() * 1000.0,
            self.what
        )
    }
}

impl fmt::Display for DiaryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalCandidate(candidate) => write!(f, "told our candidate {candidate}"),
            Self::RemoteCandidate { kind, address } => {
                write!(f, "learnt their candidate {kind} {address}")
            }
            Self::DescriptionTaken => f.write_str("took their signed description"),
            Self::DescriptionRefused(why) => write!(f, "refused a description: {why}"),
            Self::RelayFailed { url, reason } => write!(f, "no help from {url}: {reason}"),
            Self::CheckSent { local, remote } => write!(f, "checked {local} to {remote}"),
            Self::CheckAnswered { local, remote } => write!(f, "{remote} answered {local}"),
            Self::Chosen(path) => write!(f, "chose {path}"),
            Self::Connected => f.write_str("session open"),
            Self::Died { path, silent } => {
                write!(f, "left {path}: silent for {} ms", silent.as_millis())
            }
            Self::TriedAgain { remote } => write!(f, "trying {remote} again"),
        }
    }
}

/// Everything that was tried on the way to a player, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathDiary {
    /// The lines, at most [`MAX_DIARY`].
    pub entries: Vec<DiaryEntry>,
    /// Lines that found no room.
    pub dropped: usize,
}

impl PathDiary {
    pub(crate) fn write(&mut self, at: Duration, what: DiaryEvent) -> Option<DiaryEntry> {
        if self.entries.len() >= MAX_DIARY {
            self.dropped += 1;
            return None;
        }
        let entry = DiaryEntry { at, what };
        self.entries.push(entry.clone());
        Some(entry)
    }

    /// One sentence that a player's support can act on.
    #[must_use]
    pub fn summary(&self) -> String {
        let has =
            |test: fn(&DiaryEvent) -> bool| self.entries.iter().any(|entry| test(&entry.what));
        let chosen = |entry: &&DiaryEntry| matches!(entry.what, DiaryEvent::Chosen(_));
        if let Some(DiaryEntry {
            what: DiaryEvent::Chosen(path),
            ..
        }) = self.entries.iter().rev().find(chosen)
        {
            return format!("The path in use was {path}.");
        }
        if !has(|event| matches!(event, DiaryEvent::DescriptionTaken)) {
            return "The other player never answered through the signaling server.".to_owned();
        }
        if !has(|event| matches!(event, DiaryEvent::RemoteCandidate { .. })) {
            return "The other player told no address.".to_owned();
        }
        let relayed = has(
            |event| matches!(event, DiaryEvent::LocalCandidate(own) if own.kind == CandidateKind::Relayed),
        );
        if !relayed {
            return "No relay gave us an address, and no direct path was possible.".to_owned();
        }
        "Neither a direct path nor the relay carried an answer.".to_owned()
    }
}

/// Whether the path in use still carries our data both ways.
///
/// While the game sends, a probe rides along ten times a second and its answer is waited for; whoever sends nothing probes
/// nothing. QUIC's own acknowledgements do not tell: the same one is repeated in many packets.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    wanted: bool,
    last_probe: Option<Instant>,
    sequence: u8,
    unanswered_since: Option<Instant>,
    last_heard: Option<Instant>,
    heard_here: Option<Instant>,
    resting: Vec<Resting>,
}

#[derive(Debug, Clone, Copy)]
struct Resting {
    remote: SocketAddr,
    local: SocketAddr,
    until: Option<Instant>,
    rest: Duration,
}

impl Liveness {
    /// The game sends something over the session.
    pub(crate) fn sent(&mut self) {
        self.wanted = true;
    }

    /// When the next probe is due, if one is wanted.
    pub(crate) fn next_probe(&self, now: Instant) -> Option<Instant> {
        let wanted = self.wanted || self.unanswered_since.is_some();
        wanted.then(|| self.last_probe.map_or(now, |last| last + PROBE_PACE))
    }

    /// The number of the probe to send, when one is due.
    pub(crate) fn probe(&mut self, now: Instant) -> Option<u8> {
        if self.next_probe(now)? > now {
            return None;
        }
        self.wanted = false;
        self.last_probe = Some(now);
        self.unanswered_since.get_or_insert(now);
        self.sequence = self.sequence.wrapping_add(1);
        Some(self.sequence)
    }

    /// A datagram of the session came; `here`: over the path in use. The other side may have left it already.
    pub(crate) fn heard(&mut self, now: Instant, here: bool) {
        self.last_heard = Some(now);
        if here {
            self.heard_here = Some(now);
        }
    }

    /// A probe was answered. Answers to earlier paths' probes prove nothing of this one, but cannot be told apart; the
    /// next unanswered probe corrects them.
    pub(crate) fn answered(&mut self) {
        self.unanswered_since = None;
    }

    /// Starts judging a new path.
    pub(crate) fn new_path(&mut self) {
        self.unanswered_since = None;
        self.heard_here = None;
    }

    /// When the path counts as dead unless something comes.
    pub(crate) fn deadline(&self, rtt: Duration) -> Option<Instant> {
        let since = self.unanswered_since?;
        let quiet_since = self.heard_here.map_or(since, |heard| heard.max(since));
        let silence = quiet_since + SILENCE.max(rtt * SILENCE_TRIPS);
        Some(silence.min(since + UNANSWERED.max(rtt * UNANSWERED_TRIPS)))
    }

    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        self.last_heard
            .map_or(Duration::ZERO, |heard| now.saturating_duration_since(heard))
    }

    /// Remembers a pair that was given up, to be tried again after a rest that doubles each time.
    pub(crate) fn rest(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let known = self
            .resting
            .iter_mut()
            .find(|r| r.remote == remote && r.local == local);
        if let Some(resting) = known {
            resting.rest = (resting.rest * 2).min(LONGEST_REST);
            resting.until = Some(now + resting.rest);
        } else {
            let until = Some(now + FIRST_REST);
            self.resting.push(Resting {
                remote,
                local,
                until,
                rest: FIRST_REST,
            });
        }
    }

    /// Whether the pair rests.
    pub(crate) fn is_resting(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.resting
            .iter()
            .any(|r| r.remote == remote && r.local == local && r.until.is_some())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.resting
            .iter()
            .filter_map(|resting| resting.until)
            .min()
    }

    /// The next pair that has rested enough.
    pub(crate) fn rested(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr)> {
        let ready = |resting: &&mut Resting| resting.until.is_some_and(|until| until <= now);
        let resting = self.resting.iter_mut().find(ready)?;
        resting.until = None;
        Some((resting.local, resting.remote))
    }
}

/// How a pair would rank as a path: higher is better.
pub(crate) fn rank(local: CandidateKind, remote: CandidateKind, by: Option<RelayTransport>) -> u8 {
    let relayed = |kind| kind == CandidateKind::Relayed;
    match (relayed(local), relayed(remote)) {
        (false, false) => 4,
        (false, true) => 3,
        (true, false) if by == Some(RelayTransport::Udp) => 2,
        (true, true) if by == Some(RelayTransport::Udp) => 1,
        (true, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_path_dies_of_an_unanswered_probe_in_silence() {
        let start = net_start();
        let mut liveness = Liveness::default();
        assert_eq!(
            (liveness.probe(start), liveness.deadline(ms(20))),
            (None, None)
        );
        liveness.sent();
        assert_eq!(liveness.probe(start), Some(1));
        assert_eq!(liveness.deadline(ms(20)), Some(start + ms(350)));
        // Their data proves only their direction: more time, not life.
        liveness.heard(start + ms(300), true);
        assert_eq!(liveness.deadline(ms(20)), Some(start + ms(650)));
        liveness.heard(start + ms(900), true);
        assert_eq!(liveness.deadline(ms(20)), Some(start + ms(1000)));
        liveness.answered();
        assert_eq!(liveness.deadline(ms(20)), None);
    }

    #[test]
    fn probes_are_paced_and_repeated_until_answered() {
        let start = net_start();
        let mut liveness = Liveness::default();
        liveness.sent();
        assert_eq!(liveness.probe(start), Some(1));
        assert_eq!(liveness.next_probe(start), Some(start + ms(100)));
        assert_eq!(liveness.probe(start + ms(99)), None);
        assert_eq!(liveness.probe(start + ms(100)), Some(2));
        liveness.answered();
        assert_eq!(liveness.next_probe(start), None);
        liveness.sent();
        assert_eq!(liveness.next_probe(start), Some(start + ms(200)));
    }

    #[test]
    fn a_long_path_is_given_more_time() {
        let start = net_start();
        let mut liveness = Liveness::default();
        liveness.sent();
        liveness.probe(start);
        assert_eq!(liveness.deadline(ms(200)), Some(start + ms(1200)));
    }

    #[test]
    fn a_pair_rests_longer_each_time() {
        let start = net_start();
        let (local, remote) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let mut liveness = Liveness::default();
        liveness.rest(start, local, remote);
        assert!(liveness.is_resting(local, remote));
        assert_eq!(liveness.rested(start + ms(4999)), None);
        assert_eq!(liveness.rested(start + ms(5000)), Some((local, remote)));
        assert!(!liveness.is_resting(local, remote));
        liveness.rest(start, local, remote);
        assert_eq!(liveness.poll_timeout(), Some(start + ms(10_000)));
    }

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn net_start() -> Instant {
        Instant::now()
    }
}
