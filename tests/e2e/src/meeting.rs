//! Two players, each behind an access of their own, meeting in the deployment while the core counts and records.
//!
//! The path is judged by what crossed the core. What the players say about it is compared with that, never believed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::capture::Recording;
use crate::core::{Count, Protocol, Traffic};
use crate::deployment::Deployment;
use crate::lab::{Home, Lab};
use crate::nat::Access;
use crate::player::Player;
use crate::requirements::{self, Need};
use crate::wait;

/// How many messages each player sends in [`Meeting::play`], of how many bytes, how often a second.
pub const COUNT: u64 = 800;
/// Bytes a message.
pub const SIZE: u64 = 600;
const HERTZ: u64 = 100;

/// The world of a test with two players. Fields are dropped in this order: processes before the machines they run on.
#[derive(Debug)]
pub struct Meeting {
    /// The three servers.
    pub deployment: Deployment,
    /// The first player's home.
    pub anna: Home,
    /// The second player's home.
    pub ben: Home,
    /// The internet.
    pub lab: Lab,
}

/// How two players' data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// From router to router.
    Direct,
    /// Through the relay.
    Relayed,
}

/// What was seen of one session from its beginning to its end.
#[derive(Debug)]
pub struct Session {
    /// What crossed the core.
    pub traffic: Traffic,
    /// Every byte of it.
    pub recording: Recording,
    /// The text that was in everything the first player sent as a file.
    pub marker: String,
}

impl Meeting {
    /// Homes with these accesses, and the deployment. `None` when the machine cannot do it and may skip.
    ///
    /// # Errors
    /// When something does not come up, or may not be skipped.
    pub fn new(anna: Access, ben: Access) -> Result<Option<Self>> {
        if !requirements::met(&[Need::Lab, Need::Tool("tcpdump")])? {
            return Ok(None);
        }
        let mut lab = Lab::new()?;
        Ok(Some(Self {
            deployment: Deployment::start(&mut lab)?,
            anna: lab.home(anna)?,
            ben: lab.home(ben)?,
            lab,
        }))
    }

    /// Starts both players in one room.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn players(&self, room: &str, anna: &[&str], ben: &[&str]) -> Result<(Player, Player)> {
        let anna =
            self.deployment
                .player(&self.anna, room, &[&["--name", "anna"], anna].concat())?;
        let ben = self
            .deployment
            .player(&self.ben, room, &[&["--name", "ben"], ben].concat())?;
        Ok((anna, ben))
    }

    /// A whole session: both send messages and echo the other's; Anna sends a file that repeats a marker, Ben stores it.
    /// While they play, waits for a stretch of time in which the data goes by `expected` and by nothing else.
    ///
    /// # Errors
    /// When a player fails, the file arrives altered, or the data never settles on that path.
    pub fn play(&self, expected: Path, arguments: &[&str]) -> Result<Session> {
        let (marker, input) = self.marked_file(128 * 1024)?;
        let output = self.deployment.directory().join("output");
        let capture = self
            .lab
            .core()
            .capture(&self.deployment.directory().join("core.pcap"))?;
        let (count, size, hertz) = (COUNT.to_string(), SIZE.to_string(), HERTZ.to_string());
        let common = [
            &[
                "--count",
                &count,
                "--size",
                &size,
                "--hz",
                &hertz,
                "--timeout",
                "60",
            ],
            arguments,
        ]
        .concat();
        let (input_path, output_path) = (input.to_string_lossy(), output.to_string_lossy());

        let before = self.lab.core().traffic()?;
        let (anna, ben) = self.players(
            "jump-rocket",
            &[common.as_slice(), &["--input", &input_path]].concat(),
            &[common.as_slice(), &["--output", &output_path]].concat(),
        )?;
        anna.connected()?;
        ben.connected()?;
        self.settles_on(expected)
            .with_context(|| format!("{}\n{}", anna.process().report(), ben.process().report()))?;
        anna.done()?;
        ben.done()?;

        let traffic = self.lab.core().traffic()?.since(&before);
        ensure!(
            std::fs::read(&input)? == std::fs::read(&output)?,
            "the file arrived altered"
        );
        let word = if expected == Path::Direct {
            "direct"
        } else {
            "relay"
        };
        for player in [&anna, &ben] {
            let said = player.paths();
            ensure!(
                said.iter().any(|path| path == word),
                "it says {said:?}:\n{traffic}"
            );
        }
        let sink = SocketAddr::new(self.deployment.servers.stun.address4(), 9);
        let recording = capture.finish(self.deployment.servers.turn.host(), sink)?;
        Ok(Session {
            traffic,
            recording,
            marker,
        })
    }

    /// Waits for a window in which a hundred messages went each way by one path while the other carried next to nothing:
    /// ICE checks and consent, but no data.
    ///
    /// # Errors
    /// When there is no such window before patience is over.
    pub fn settles_on(&self, expected: Path) -> Result<()> {
        const WINDOW: u64 = 100 * SIZE;
        let mut from = self.lab.core().traffic()?;
        wait::until(
            &format!("a stretch of {expected:?} data"),
            wait::PATIENCE,
            || {
                let window = self.lab.core().traffic()?.since(&from);
                let (direct, relayed) = (self.direct(&window), self.relayed(&window));
                let (on, off) = match expected {
                    Path::Direct => (direct, relayed),
                    Path::Relayed => (relayed, direct),
                };
                if off.bytes > WINDOW / 10 {
                    from = self.lab.core().traffic()?;
                }
                Ok((on.bytes >= WINDOW && off.bytes <= WINDOW / 10).then_some(()))
            },
        )
        .with_context(|| self.diagnosis())
    }

    /// What the core and the relay know, for the message of a failure.
    fn diagnosis(&self) -> String {
        let traffic = match self.lab.core().traffic() {
            Ok(traffic) => traffic.to_string(),
            Err(error) => error.to_string(),
        };
        let metrics = self
            .deployment
            .turn
            .metrics()
            .unwrap_or_else(|error| error.to_string());
        let moved = metrics.lines().filter(|line| {
            line.starts_with("rallypoint_turn")
                && !line.ends_with(" 0")
                && !line.contains("_bucket")
        });
        let moved: Vec<_> = moved.collect();
        format!("at the core:\n{traffic}at the relay:\n{}", moved.join("\n"))
    }

    /// What went from home to home in the direction that carried less.
    #[must_use]
    pub fn direct(&self, traffic: &Traffic) -> Count {
        let there = between(traffic, &self.anna.outside(), &self.ben.outside());
        let back = between(traffic, &self.ben.outside(), &self.anna.outside());
        smaller(there, back)
    }

    /// What went from a home to the relay, and from the relay to the other home, over any transport: the leg and
    /// direction that carried least.
    #[must_use]
    pub fn relayed(&self, traffic: &Traffic) -> Count {
        let relay = self.relay();
        [self.anna.outside(), self.ben.outside()]
            .iter()
            .flat_map(|home| {
                [
                    between(traffic, home, &relay),
                    between(traffic, &relay, home),
                ]
            })
            .reduce(smaller)
            .unwrap_or_default()
    }

    /// What a home sent to the relay over one transport.
    #[must_use]
    pub fn to_relay(&self, traffic: &Traffic, home: &Home, protocol: Protocol) -> Count {
        let relay = self.relay();
        let pairs = home
            .outside()
            .into_iter()
            .flat_map(|from| relay.map(|to| (from, to)));
        pairs
            .map(|(from, to)| traffic.sent_over(protocol, from, to))
            .fold(Count::default(), add)
    }

    fn relay(&self) -> [IpAddr; 2] {
        let server = &self.deployment.servers.turn;
        [server.address4(), server.address6()]
    }

    /// A file in which one unmistakable line is repeated: wherever a packet is cut, whole copies are in it.
    fn marked_file(&self, size: usize) -> Result<(String, PathBuf)> {
        let marker = format!(
            "the treasure of {} lies under the third oak",
            std::process::id()
        );
        let path = self.deployment.directory().join("input");
        std::fs::write(&path, format!("{marker}\n").repeat(size / marker.len()))?;
        Ok((marker, path))
    }
}

impl Session {
    /// Fails if the file was readable for anyone on the way.
    ///
    /// # Errors
    /// When it was.
    pub fn ensure_unreadable(&self) -> Result<()> {
        let moved = self.recording.len() as u64;
        ensure!(moved > COUNT * SIZE, "only {moved} bytes were recorded");
        ensure!(
            !self.recording.contains(self.marker.as_bytes()),
            "{:?} in clear",
            self.marker
        );
        Ok(())
    }
}

fn between(traffic: &Traffic, sources: &[IpAddr], destinations: &[IpAddr]) -> Count {
    let pairs = sources
        .iter()
        .flat_map(|from| destinations.iter().map(move |to| (*from, *to)));
    pairs
        .map(|(from, to)| traffic.sent(from, to))
        .fold(Count::default(), add)
}

fn add(one: Count, other: Count) -> Count {
    Count {
        packets: one.packets + other.packets,
        bytes: one.bytes + other.bytes,
    }
}

fn smaller(one: Count, other: Count) -> Count {
    if one.bytes <= other.bytes { one } else { other }
}
