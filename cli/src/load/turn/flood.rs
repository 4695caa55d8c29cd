//! A flood: more is offered than the server takes, and what comes through is counted where it arrives.
//!
//! Nothing waits for anything: packets leave as frames, a batch of them every 200 microseconds, and this process sleeps in
//! between. A sixteenth more is offered than came through of late, so that the server never waits for work. The sockets
//! that packets come to have room for a few alone. Each round one socket is read, which checks a sample of every flow;
//! the others are dropped there by the system, which counts them, so that every arrival is counted and few cost
//! anything. What came to a socket without belonging there would be counted too; the sample says whether there is such.

use std::time::Duration;

use super::{DRAIN, Outcome, Run};
use crate::load::LoadError;
use crate::load::args::Direction;
use crate::load::stopwatch::{Figures, Stopwatch};

/// How often something is sent.
const ROUND: Duration = Duration::from_micros(200);
/// Packets of one round at most: what a server that stands still gets no more of.
const MOST_IN_A_ROUND: u64 = 1024;
/// How often it is asked what came through.
const LOOK: Duration = Duration::from_millis(10);
/// Packets a second to begin with, and at least.
const LEAST: u64 = 50_000;
/// And at most; more than a core can send.
const MOST: u64 = 5_000_000;
/// How long nothing must arrive for the flood to be over.
const QUIET: Duration = Duration::from_millis(20);

/// What came of a whole flood.
#[derive(Debug)]
pub(super) struct Tally {
    arrived: u64,
    checked: u64,
    down_share: Option<f64>,
}

impl Tally {
    pub(super) fn outcome(&self, offered: u64) -> Outcome {
        Outcome::Flood {
            offered,
            arrived: self.arrived,
            not_relayed: offered.saturating_sub(self.arrived),
            checked: self.checked,
            down_share: self.down_share,
        }
    }
}

/// How much to offer.
#[derive(Debug)]
struct Overload {
    per_second: u64,
    /// Since when at this pace, and what was sent and had arrived then.
    since: Duration,
    sent: u64,
    arrived: u64,
}

impl Overload {
    fn new(since: Duration, arrived: u64) -> Self {
        Self {
            per_second: LEAST,
            since,
            sent: 0,
            arrived,
        }
    }

    /// Packets to send at this moment.
    fn due(&self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.since).as_nanos();
        let due = passed * u128::from(self.per_second) / 1_000_000_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        due.saturating_sub(self.sent).min(MOST_IN_A_ROUND)
    }

    fn is_time_to_look(&self, now: Duration) -> bool {
        now >= self.since + LOOK
    }

    /// A sixteenth more than came through, but a quarter while all does: the limit is further up then. Slower by little when
    /// nothing did, since a server may pause.
    fn adapt(&mut self, now: Duration, arrived: u64) {
        let passed = now.saturating_sub(self.since).as_nanos().max(1);
        let came = arrived.saturating_sub(self.arrived);
        let is_all = came >= self.sent - self.sent / 32;
        let came = u128::from(came) * 1_000_000_000 / passed;
        let came = u64::try_from(came).unwrap_or(u64::MAX);
        let more = came / if is_all { 4 } else { 16 };
        let lower = self.per_second - self.per_second / 20;
        *self = Self {
            per_second: came.saturating_add(more).max(lower).clamp(LEAST, MOST),
            since: now,
            sent: 0,
            arrived,
        };
    }
}

impl Run<'_> {
    /// Floods for as long as wanted.
    pub(super) fn flood(&mut self) -> Result<Figures, LoadError> {
        let before = (self.arrived_at_clients()?, self.arrived()?);
        let mut watch = Stopwatch::start(&self.args.run);
        let mut overload = Overload::new(watch.elapsed(), before.1);
        let (mut next_route, mut next_socket, mut checked) = (0, 0, 0);
        let figures = loop {
            let began = watch.elapsed();
            let burst = u64::from(self.args.burst);
            for _ in 0..overload.due(began) / burst {
                self.send_burst(next_route, &watch);
                next_route = (next_route + 1) % self.traffic.routes.len().max(1);
                overload.sent += burst;
            }
            self.flush();
            checked += self.check(next_socket);
            next_socket = (next_socket + 1) % self.sockets();
            if overload.is_time_to_look(watch.elapsed()) {
                overload.adapt(watch.elapsed(), self.arrived()?);
            }
            if let Some(figures) = watch.lap(|| self.arrived())? {
                break figures;
            }
            std::thread::sleep(ROUND.saturating_sub(watch.elapsed() - began));
        };
        checked += self.wait_for_quiet(&watch)?;
        let at_clients = self.arrived_at_clients()? - before.0;
        let arrived = self.arrived()? - before.1;
        let is_both = self.args.direction == Direction::Both && !self.args.pairs;
        #[expect(clippy::cast_precision_loss, reason = "no run does 2^53 of anything")]
        let share = (at_clients as f64) / (arrived.max(1) as f64);
        self.flood = Some(Tally {
            arrived,
            checked,
            down_share: is_both.then_some(share),
        });
        Ok(figures)
    }

    /// Reads the few packets that wait on a socket; how many they were.
    fn check(&mut self, number: usize) -> u64 {
        let traffic = &mut self.traffic;
        let read = self.net.sample(number, |number, datagram| {
            traffic.take(number, datagram);
        });
        u64::try_from(read).unwrap_or(u64::MAX)
    }

    /// Until the server has sent what it still held, and every socket is empty and can take answers again.
    fn wait_for_quiet(&mut self, watch: &Stopwatch) -> Result<u64, LoadError> {
        let until = watch.elapsed() + DRAIN;
        let mut checked = 0;
        let mut arrived = self.arrived()?;
        loop {
            std::thread::sleep(QUIET);
            checked += (0..self.sockets())
                .map(|number| self.check(number))
                .sum::<u64>();
            let before = std::mem::replace(&mut arrived, self.arrived()?);
            if arrived == before || watch.elapsed() >= until {
                return Ok(checked);
            }
        }
    }

    /// The clients' sockets, and the peer's behind them unless there are pairs alone.
    fn sockets(&self) -> usize {
        self.traffic.clients.len() + usize::from(!self.args.pairs)
    }

    fn arrived(&self) -> Result<u64, LoadError> {
        self.net.arrived(0..self.sockets())
    }

    fn arrived_at_clients(&self) -> Result<u64, LoadError> {
        self.net.arrived(0..self.traffic.clients.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After one look at what came of 4000 packets.
    fn after_a_look(came: u64) -> Overload {
        let mut overload = Overload::new(SECOND, 7);
        overload.sent = 4000;
        overload.adapt(SECOND + LOOK, 7 + came);
        overload
    }

    #[test]
    fn a_little_more_is_offered_than_came_through() {
        let mut overload = Overload::new(SECOND, 7);
        assert_eq!(overload.due(SECOND + LOOK), LEAST / 100);
        overload = after_a_look(3200);
        assert_eq!(overload.per_second, 340_000);
        assert_eq!(overload.due(SECOND + LOOK + ROUND), 68);
        overload.sent = 60;
        assert_eq!(overload.due(SECOND + LOOK + ROUND), 8);
    }

    #[test]
    fn while_everything_comes_through_the_limit_is_further_up() {
        assert_eq!(after_a_look(4000).per_second, 500_000);
        assert_eq!(after_a_look(3876).per_second, 484_500);
        assert_eq!(after_a_look(1_000_000).per_second, MOST);
    }

    #[test]
    fn a_server_that_pauses_is_still_flooded_but_never_ever_more() {
        let mut overload = after_a_look(4000);
        overload.adapt(SECOND + 2 * LOOK, 4007);
        assert_eq!(overload.per_second, 475_000);
        assert_eq!(overload.due(5 * SECOND), MOST_IN_A_ROUND);
        for look in 3..200 {
            overload.adapt(SECOND + look * LOOK, 4007);
        }
        assert_eq!(overload.per_second, LEAST);
    }

    #[test]
    fn what_did_not_arrive_is_not_relayed() {
        let tally = Tally {
            arrived: 80,
            checked: 5,
            down_share: None,
        };
        let told = serde_json::to_value(tally.outcome(100)).expect("JSON");
        let expected = serde_json::json!({
            "offered": 100, "arrived": 80, "not_relayed": 20, "checked": 5, "down_share": null
        });
        assert_eq!(told, expected);
    }
}
