//! What the health page tells: how many are here, since when, and what happened last. Nothing in it
//! names a player, an address or a passphrase.

use net_io::clock;
use signaling_lobby::{Census, Door, Event};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many happenings are remembered.
const RECENT: usize = 10;

#[derive(Debug)]
pub(crate) struct Status {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    census: Census,
    lobbies_opened: u64,
    recent: VecDeque<(Instant, &'static str)>,
}

/// The state at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) uptime: Duration,
    pub(crate) census: Census,
    pub(crate) lobbies_opened: u64,
    /// What happened how long ago, newest first.
    pub(crate) recent: Vec<(Duration, &'static str)>,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            started: clock::mono(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn census(&self, census: Census) {
        self.lock().census = census;
    }

    pub(crate) fn event(&self, event: Event) {
        let what = match event {
            Event::LobbyOpened(Door::Native) => "a lobby was opened",
            Event::LobbyOpened(Door::Tank) => "a lobby was opened at the passphrase door",
            Event::LobbyReady(_) => "a lobby became ready",
            Event::LobbyClosed(_) => "a lobby ended",
            Event::Resume(_) => "a player came back",
            Event::NotAdmitted(_)
            | Event::Refused(_)
            | Event::RateLimited(_)
            | Event::Dropped(_) => return,
        };
        let now = clock::mono();
        let mut state = self.lock();
        state.lobbies_opened += u64::from(matches!(event, Event::LobbyOpened(_)));
        state.recent.push_front((now, what));
        state.recent.truncate(RECENT);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = clock::mono();
        let state = self.lock();
        let ago =
            |(at, what): &(Instant, &'static str)| (now.saturating_duration_since(*at), *what);
        Snapshot {
            uptime: now.saturating_duration_since(self.started),
            census: state.census,
            lobbies_opened: state.lobbies_opened,
            recent: state.recent.iter().map(ago).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
