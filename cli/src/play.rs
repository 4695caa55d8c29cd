//! `rallypoint play`: one player as a process.
//!
//! The loop polls the SDK's events, hands messages to the [`session`], and sends what the session has to say as far as the
//! channels take it. It ends when both players are complete, when something cannot be, or when nothing comes any more.

mod files;
mod report;
mod session;
mod talk;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use net_io::clock;
use rallypoint_client::{
    Channel, ChannelId, Endpoint, Event, Join, Mode, PathInfo, PlayerId, Privacy, SendError,
    SignalState,
};

use crate::args::PlayArgs;
use files::{Incoming, Outgoing};
use report::Report;
use session::{Broken, Plan, Session};

const UNRELIABLE: ChannelId = 0;
const RELIABLE: ChannelId = 1;
/// How long the loop sleeps at most, and how long when a channel was full.
const NAP: Duration = Duration::from_millis(50);
const FULL_NAP: Duration = Duration::from_millis(2);
/// Messages handed to the reliable channel before events are looked at again.
const BURST: usize = 64;
/// How long a player who lacks nothing waits for the other's goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a player did not connect, or not complete.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The file to send cannot be opened.
    #[error("{}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file to write cannot be created.
    #[error("{}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The SDK refused to start, or the room cannot be joined.
    #[error("{0}")]
    Join(String),
    /// Nothing came of what was awaited.
    #[error("{waiting} after {after:?}{hint}")]
    Timeout {
        /// What was awaited.
        waiting: &'static str,
        /// For how long.
        after: Duration,
        /// What may explain it.
        hint: String,
    },
    /// The other player is gone, or was never reached.
    #[error("{name} was lost: {reason}{diary}")]
    Lost {
        /// The other player.
        name: String,
        /// Why.
        reason: String,
        /// What was tried.
        diary: String,
    },
    /// The conversation cannot be completed.
    #[error("{0}")]
    Broken(String),
}

impl From<Broken> for PlayError {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken.to_string())
    }
}

/// Plays until both players are complete.
///
/// # Errors
/// Why it did not come to that.
pub fn run(args: &PlayArgs) -> Result<(), PlayError> {
    let report = Report::new(args.json);
    let outcome = Player::start(args, report).and_then(Player::play);
    if let Err(error) = &outcome {
        report.failed(&error.to_string());
    }
    outcome
}

struct Player {
    args: PlayArgs,
    report: Report,
    endpoint: Endpoint,
    reliable: Channel,
    unreliable: Channel,
    /// What the session will be given once there is somebody to talk to.
    plan: Option<Plan>,
    other: Option<(PlayerId, String)>,
    session: Option<Session>,
    /// The path in use, or the last one.
    path: Option<PathInfo>,
    /// The last trouble with signaling: the likely reason when nothing comes.
    trouble: Option<String>,
    /// When something last came of what is due.
    last_progress: (u64, Instant),
}

enum Step {
    GoOn,
    Over,
}

impl Player {
    fn start(args: &PlayArgs, report: Report) -> Result<Self, PlayError> {
        let plan = plan(args)?;
        let name = args
            .name
            .clone()
            .unwrap_or_else(|| format!("player-{}", std::process::id()));
        let privacy = if args.relay_only {
            Privacy::RelayOnly
        } else {
            Privacy::Default
        };
        let endpoint = Endpoint::builder(&args.signal)
            .game(&args.game)
            .name(&name)
            .privacy(privacy)
            .start()
            .map_err(|error| PlayError::Join(error.to_string()))?;
        let unreliable = endpoint.channel(UNRELIABLE, Mode::Unreliable);
        let reliable = endpoint.channel(RELIABLE, Mode::ReliableOrdered);
        endpoint.join(Join::passphrase(&args.room).create(2));
        Ok(Self {
            args: args.clone(),
            report,
            endpoint,
            reliable,
            unreliable,
            plan: Some(plan),
            other: None,
            session: None,
            path: None,
            trouble: None,
            last_progress: (0, clock::mono()),
        })
    }

    fn play(mut self) -> Result<(), PlayError> {
        let mut nap = NAP;
        loop {
            for event in self.endpoint.wait(nap) {
                if let Step::Over = self.handle(event)? {
                    self.finish();
                    return Ok(());
                }
            }
            let was_full = self.pump()?;
            if self.session.as_ref().is_some_and(Session::is_over) {
                self.finish();
                return Ok(());
            }
            if let Step::Over = self.check_progress()? {
                self.finish();
                return Ok(());
            }
            nap = if was_full {
                FULL_NAP
            } else {
                self.time_to_sleep()
            };
        }
    }

    fn finish(self) {
        if let Some(session) = &self.session {
            self.report.done(&session.figures(), self.path.as_ref());
        }
        self.endpoint.shutdown();
    }

    fn handle(&mut self, event: Event) -> Result<Step, PlayError> {
        match event {
            Event::Signaling(SignalState::Lost { reason, retry_in }) => {
                self.report.signaling_lost(&reason, retry_in);
                self.trouble = Some(reason);
            }
            Event::Signaling(SignalState::Connected { .. }) => self.trouble = None,
            Event::RoomJoined { room, you, players } => {
                let names: Vec<_> = players.iter().map(|(_, name)| name.clone()).collect();
                self.report.joined(&room, you.0, &names);
                self.other = players.into_iter().next();
                self.touch();
            }
            Event::PlayerJoined { player, name } => {
                self.report.player_joined(player.0, &name);
                self.other = Some((player, name));
                self.touch();
            }
            Event::CandidateGathered(candidate) => self.report.candidate(&candidate),
            Event::Gathered { candidates, took } => self.report.gathered(candidates, took),
            Event::Diary { entry, .. } => self.report.diary(entry.at, &entry.what.to_string()),
            Event::PlayerConnected {
                player,
                path,
                trust,
                took,
            } => {
                let name = self.name_of(player);
                self.report
                    .connected(&name, &path, &trust.to_string(), took);
                self.path = Some(path);
                let plan = self.plan.take().unwrap_or_default();
                self.session = Some(Session::new(plan, clock::mono()));
                self.touch();
            }
            Event::PathChanged { from, to, gap, .. } => {
                self.report.path_changed(&from, &to, gap);
                self.path = Some(to);
            }
            Event::Message {
                player,
                channel,
                data,
            } => self.take(player, channel, &data)?,
            Event::PlayerLost {
                player,
                reason,
                diary,
            } => {
                if self.session.as_ref().is_some_and(Session::may_end_here) {
                    return Ok(Step::Over);
                }
                return Err(PlayError::Lost {
                    name: self.name_of(player),
                    reason: reason.to_string(),
                    diary: indented(&diary.summary()),
                });
            }
            Event::Failed(error) => return Err(PlayError::Join(error.to_string())),
            Event::Signaling(_) | Event::RoomReady => {}
            _ => {}
        }
        Ok(Step::GoOn)
    }

    fn take(&mut self, player: PlayerId, channel: ChannelId, data: &[u8]) -> Result<(), PlayError> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if channel == RELIABLE {
            session.handle_reliable(data)?;
        } else if let Some(echo) = session.handle_unreliable(clock::mono(), data) {
            // An echo that finds no room is a lost datagram.
            let _ = self.unreliable.send(player, &echo);
        }
        Ok(())
    }

    /// Sends what is due; answers whether the reliable channel was full.
    fn pump(&mut self) -> Result<bool, PlayError> {
        let (Some(session), Some((other, _))) = (&mut self.session, &self.other) else {
            return Ok(false);
        };
        while let Some(message) = session.next_unreliable(clock::mono()) {
            let _ = self.unreliable.send(*other, &message);
        }
        for _ in 0..BURST {
            let Some(message) = session.next_reliable(clock::mono())? else {
                return Ok(false);
            };
            match self.reliable.send(*other, message) {
                Ok(()) => session.reliable_sent(),
                Err(SendError::Full { .. }) => return Ok(true),
                Err(SendError::TooLarge { max }) if session.shorten_pieces(max) => {}
                // The event that says why is on its way.
                Err(SendError::NotConnected | SendError::Closed) => return Ok(false),
                Err(error) => return Err(PlayError::Broken(error.to_string())),
            }
        }
        Ok(true)
    }

    fn time_to_sleep(&self) -> Duration {
        let due = self.session.as_ref().and_then(Session::poll_timeout);
        due.map_or(NAP, |due| {
            due.saturating_duration_since(clock::mono()).min(NAP)
        })
    }

    fn check_progress(&mut self) -> Result<Step, PlayError> {
        let now = clock::mono();
        let progress = self.session.as_ref().map_or(0, Session::progress);
        if progress != self.last_progress.0 {
            self.last_progress = (progress, now);
        }
        let idle = now.saturating_duration_since(self.last_progress.1);
        let Some(session) = &self.session else {
            let waiting = match self.other {
                Some(_) => "no connection to the other player",
                None if self.trouble.is_some() => "no room joined",
                None => "no other player came",
            };
            return self.patience(idle, self.args.timeout, waiting);
        };
        if session.may_end_here() && idle > FAREWELL {
            return Ok(Step::Over);
        }
        self.patience(idle, self.args.timeout + self.args.hold, session.lacking())
    }

    fn patience(
        &self,
        idle: Duration,
        limit: Duration,
        waiting: &'static str,
    ) -> Result<Step, PlayError> {
        if idle < limit {
            return Ok(Step::GoOn);
        }
        let hint = match (&self.trouble, &self.other) {
            (Some(trouble), _) => format!(" (signaling {}: {trouble})", self.args.signal),
            (None, Some((other, _))) => self
                .endpoint
                .diary(*other)
                .map(|diary| indented(&diary.summary()))
                .unwrap_or_default(),
            (None, None) => String::new(),
        };
        Err(PlayError::Timeout {
            waiting,
            after: limit,
            hint,
        })
    }

    fn touch(&mut self) {
        self.last_progress.1 = clock::mono();
    }

    fn name_of(&self, player: PlayerId) -> String {
        match &self.other {
            Some((known, name)) if *known == player => name.clone(),
            _ => player.to_string(),
        }
    }
}

fn plan(args: &PlayArgs) -> Result<Plan, PlayError> {
    let input = args.input.as_ref().map(|path| {
        Outgoing::open(path).map_err(|source| PlayError::Input {
            path: path.clone(),
            source,
        })
    });
    let output = args.output.as_ref().map(|path| {
        Incoming::create(path).map_err(|source| PlayError::Output {
            path: path.clone(),
            source,
        })
    });
    Ok(Plan {
        count: args.count,
        size: usize::from(args.size),
        interval: Duration::from_secs(1) / args.hz,
        hold: args.hold,
        input: input.transpose()?,
        output: output.transpose()?,
    })
}

/// A diary below the line that it explains.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("\n  {line}")).collect()
}
