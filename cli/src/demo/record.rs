//! The record of a demo: what happened to each pair and when, and the judgement over it. `demo.json` is this, written out.
//!
//! All times are milliseconds since the pair's two players set out, so that pairs can be laid side by side.

use std::fmt;

use serde::Serialize;

/// How datagrams travel between two players, seen from both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Path {
    /// From NAT to NAT.
    #[serde(rename = "direct")]
    Direct,
    /// Over the relay.
    #[serde(rename = "relay")]
    Relay,
    /// Over the relay, which one player at least reaches by TCP.
    #[serde(rename = "relay over tcp")]
    RelayOverTcp,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::RelayOverTcp => "relay over tcp",
        })
    }
}

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    /// The version of this program.
    pub version: &'static str,
    /// Where it ran: real sockets on loopback.
    pub network: &'static str,
    /// From the first service to the last goodbye.
    pub elapsed_ms: f64,
    /// Whether every expectation held.
    pub ok: bool,
    /// The expectations that did not hold, in words.
    pub failures: Vec<String>,
    /// One entry a pair, in the order of the table.
    pub pairs: Vec<Pair>,
}

/// Two players and all that happened between them.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Pair {
    /// "port-restricted x symmetric".
    pub name: String,
    /// The path that theory promises.
    pub expected: Option<Path>,
    /// The path at the end, or none when they never connected.
    pub path: Option<Path>,
    /// From setting out to encrypted messages, on the slower side.
    pub connect_ms: Option<f64>,
    /// Median round trip of the unreliable messages that came back.
    pub rtt_ms: Option<f64>,
    /// Share of unreliable messages that never arrived, 0 to 1.
    pub loss: f64,
    /// The two ends.
    pub sides: [Side; 2],
    /// Which path was in use from when to when.
    pub spans: Vec<Span>,
    /// Whether the direct path is to be cut during play.
    pub to_be_cut: bool,
    /// The cut of the direct path, in the pair that has one.
    pub cut: Option<Cut>,
    /// When the last goodbye was said.
    pub ended_ms: f64,
}

/// One player.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Side {
    /// The player's name.
    pub name: String,
    /// The kind of NAT, by the nat-lab's name.
    pub nat: &'static str,
    /// The same in plain words.
    pub nat_name: &'static str,
    /// When the room was joined.
    pub joined_ms: Option<f64>,
    /// Addresses found, in order.
    pub candidates: Vec<Candidate>,
    /// When no more were to come.
    pub gathered_ms: Option<f64>,
    /// The path diary: what was tried, in order.
    pub diary: Vec<Line>,
    /// When the encrypted session was open.
    pub connected_ms: Option<f64>,
    /// Numbered messages on the reliable channel.
    pub reliable: Tally,
    /// Numbered messages on the unreliable channel.
    pub unreliable: Tally,
    /// When each reliable message of the other player arrived.
    pub arrivals_ms: Vec<f64>,
    /// When an unreliable message came back, and how long it had been under way.
    pub rtt: Vec<(f64, f64)>,
}

/// What kind of address a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CandidateKind {
    /// The player's own, private address.
    Host,
    /// The outside of a NAT.
    Reflexive,
    /// An address on the relay.
    Relayed,
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Reflexive => "reflexive",
            Self::Relayed => "relayed",
        })
    }
}

/// An address found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Candidate {
    /// When.
    pub at_ms: f64,
    /// What it is.
    pub kind: CandidateKind,
    /// Its address and port.
    pub address: String,
    /// How the relay is reached, of a relayed one.
    pub transport: Option<String>,
}

/// A line of the path diary.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// When.
    pub at_ms: f64,
    /// What kind of line it is.
    pub kind: LineKind,
    /// What happened.
    pub text: String,
}

/// What a line of the diary tells of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LineKind {
    /// Anything else.
    #[default]
    Note,
    /// A pair of addresses was checked.
    Check,
    /// A check was answered: that path works.
    Answer,
}

/// How many messages were sent to the other player, and how many of the other's arrived here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Sent.
    pub sent: u32,
    /// Received.
    pub received: u32,
    /// Whether the numbers only went up (always so on a reliable channel), without a gap.
    pub in_order: bool,
}

/// A stretch of time on one path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Span {
    /// The path in use.
    pub path: Path,
    /// From when.
    pub from_ms: f64,
    /// Until when.
    pub to_ms: f64,
}

/// The direct path was cut at the NAT while the players talked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cut {
    /// When.
    pub at_ms: f64,
    /// When both sides were on another path, or none.
    pub moved_ms: Option<f64>,
    /// The longest silence that either player heard around it.
    pub gap_ms: Option<f64>,
}

impl Pair {
    /// Messages that arrived, of those sent, both directions together.
    pub(crate) fn delivered(&self, of: impl Fn(&Side) -> Tally) -> (u32, u32) {
        let [a, b] = &self.sides;
        let (a, b) = (of(a), of(b));
        (a.received + b.received, a.sent + b.sent)
    }

    /// What did not go as it should have, in words; empty when all did.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut fail = |what: String| failures.push(format!("{}: {what}", self.name));
        match (self.path, self.main_path(), self.expected) {
            (None, ..) => return vec![format!("{}: never connected", self.name)],
            (_, main, expected) if main != expected => fail(format!(
                "took the path {}, expected {}",
                named(main),
                named(expected)
            )),
            (Some(last), ..) if self.cut.is_some() && last == Path::Direct => {
                fail("is still direct after its direct path was cut".to_owned());
            }
            _ => {}
        }
        if self.to_be_cut && self.cut.is_none() {
            fail("had no direct path to cut".to_owned());
        }
        if self.cut.is_some_and(|cut| cut.moved_ms.is_none()) {
            fail("did not leave the path that was cut".to_owned());
        }
        for (here, there) in [(0, 1), (1, 0)] {
            let (sent, arrived) = (self.sides[there].reliable.sent, self.sides[here].reliable);
            if arrived.received != sent {
                fail(format!(
                    "{} received {} of {sent} reliable messages",
                    self.sides[here].name, arrived.received
                ));
            } else if !arrived.in_order {
                fail(format!(
                    "{} received reliable messages out of order",
                    self.sides[here].name
                ));
            }
        }
        failures
    }

    /// The path that was in use for the longest time, before the cut where there is one. A relayed path may come first, until
    /// a better one is proven, and a machine that stands still for a moment may look like a dead path.
    pub(crate) fn main_path(&self) -> Option<Path> {
        let until = self.cut.map_or(f64::INFINITY, |cut| cut.at_ms);
        let time_on = |path: Path| -> f64 {
            let spans = self.spans.iter().filter(|span| span.path == path);
            spans
                .map(|span| (span.to_ms.min(until) - span.from_ms).max(0.0))
                .sum()
        };
        self.spans
            .iter()
            .filter(|span| span.from_ms < until)
            .map(|span| span.path)
            .max_by(|a, b| time_on(*a).total_cmp(&time_on(*b)))
    }
}

fn named(path: Option<Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u32, received: u32) -> Tally {
        Tally {
            sent,
            received,
            in_order: true,
        }
    }

    fn pair() -> Pair {
        let mut pair = Pair {
            name: "a x b".to_owned(),
            expected: Some(Path::Direct),
            path: Some(Path::Direct),
            spans: vec![
                Span {
                    path: Path::Relay,
                    from_ms: 90.0,
                    to_ms: 120.0,
                },
                Span {
                    path: Path::Direct,
                    from_ms: 120.0,
                    to_ms: 3000.0,
                },
            ],
            ..Pair::default()
        };
        for (side, name) in pair.sides.iter_mut().zip(["anna", "ben"]) {
            side.name = name.to_owned();
            side.reliable = tally(10, 10);
        }
        pair
    }

    #[test]
    fn pair_on_its_path_with_all_messages_is_right() {
        assert_eq!(pair().failures(), [""; 0]);
    }

    #[test]
    fn each_broken_expectation_is_named() {
        let mut never = pair();
        never.path = None;
        assert_eq!(never.failures(), ["a x b: never connected"]);

        let mut wrong = pair();
        wrong.expected = Some(Path::RelayOverTcp);
        assert_eq!(
            wrong.failures(),
            ["a x b: took the path direct, expected relay over tcp"]
        );

        let mut lost = pair();
        lost.sides[1].reliable.received = 9;
        assert_eq!(
            lost.failures(),
            ["a x b: ben received 9 of 10 reliable messages"]
        );

        let mut disordered = pair();
        disordered.sides[0].reliable.in_order = false;
        assert_eq!(
            disordered.failures(),
            ["a x b: anna received reliable messages out of order"]
        );

        let mut uncut = pair();
        uncut.to_be_cut = true;
        assert_eq!(uncut.failures(), ["a x b: had no direct path to cut"]);

        let mut stuck = pair();
        stuck.cut = Some(Cut {
            at_ms: 1000.0,
            moved_ms: None,
            gap_ms: None,
        });
        assert_eq!(
            stuck.failures(),
            [
                "a x b: is still direct after its direct path was cut",
                "a x b: did not leave the path that was cut"
            ]
        );
    }
}
