//! The board: everything the players report, in the order it happened, gathered into the record.
//!
//! Players only report; what a pair's path is, how long a silence was, whether messages came in order is worked out here.

use std::time::Instant;

use crate::demo::pairs::PairPlan;
use crate::demo::record::{
    Candidate, CandidateKind, Cut, Line, LineKind, Pair, Path, Side, Span, Tally,
};
use crate::output::median;

/// How long after the move a silence still belongs to the cut: messages that queued up arrive within it.
const AFTER_MOVE_MS: f64 = 500.0;

/// Something a player saw or did.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    pub(crate) at: Instant,
    pub(crate) pair: usize,
    /// 0 or 1.
    pub(crate) side: usize,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The player's endpoint set out.
    Started,
    Joined,
    Candidate {
        kind: CandidateKind,
        address: String,
        transport: Option<String>,
    },
    Gathered,
    Diary(LineKind, String),
    Connected(Path, String),
    Moved(Path, String),
    /// This player's NAT lets nothing more through to the other.
    Cut,
    ReliableSent,
    /// The number it carried.
    ReliableArrived(u32),
    UnreliableSent,
    UnreliableArrived(u32),
    /// An own unreliable message came back after so many milliseconds.
    Echoed(f64),
    Failed(String),
    Left,
}

/// All pairs, as far as they are.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) pairs: Vec<Pair>,
    started: Vec<Option<Instant>>,
    paths: Vec<[Option<Path>; 2]>,
    left: Vec<[bool; 2]>,
}

impl Board {
    pub(crate) fn new(plans: &[PairPlan]) -> Self {
        Self {
            pairs: plans.iter().map(pair_of).collect(),
            started: vec![None; plans.len()],
            paths: vec![[None; 2]; plans.len()],
            left: vec![[false; 2]; plans.len()],
        }
    }

    /// Milliseconds since the pair's first player set out.
    pub(crate) fn time_of(&self, pair: usize, at: Instant) -> f64 {
        let started = self.started.get(pair).copied().flatten().unwrap_or(at);
        at.saturating_duration_since(started).as_secs_f64() * 1000.0
    }

    /// Whether every player has left.
    pub(crate) fn is_over(&self) -> bool {
        self.left.iter().flatten().all(|left| *left)
    }

    pub(crate) fn apply(&mut self, happening: &Happening) {
        let &Happening { at, pair, side, .. } = happening;
        if let Some(started) = self.started.get_mut(pair) {
            started.get_or_insert(at);
        }
        let at_ms = self.time_of(pair, at);
        if let What::Connected(path, _) | What::Moved(path, _) = &happening.what {
            self.take_path(pair, side, *path, at_ms);
        }
        if let What::Left = happening.what {
            self.leave(pair, side, at_ms);
        }
        let Some(record) = self.pairs.get_mut(pair) else {
            return;
        };
        if let What::Cut = happening.what {
            record.cut = Some(Cut {
                at_ms,
                moved_ms: None,
                gap_ms: None,
            });
        }
        if let Some(side) = record.sides.get_mut(side) {
            note(side, &happening.what, at_ms);
        }
    }

    /// A pair's path is what both its sides say, the longer way round where they differ.
    fn take_path(&mut self, pair: usize, side: usize, path: Path, at_ms: f64) {
        let Some(paths) = self.paths.get_mut(pair) else {
            return;
        };
        if let Some(known) = paths.get_mut(side) {
            *known = Some(path);
        }
        let [Some(a), Some(b)] = *paths else {
            return;
        };
        let path = a.max(b);
        let Some(record) = self.pairs.get_mut(pair) else {
            return;
        };
        record.connect_ms.get_or_insert(at_ms);
        if record.path != Some(path) {
            close_span(record, at_ms);
            record.path = Some(path);
            record.spans.push(Span {
                path,
                from_ms: at_ms,
                to_ms: f64::INFINITY,
            });
        }
        if let Some(cut) = &mut record.cut
            && a != Path::Direct
            && b != Path::Direct
        {
            cut.moved_ms.get_or_insert(at_ms);
        }
    }

    fn leave(&mut self, pair: usize, side: usize, at_ms: f64) {
        if let Some(left) = self.left.get_mut(pair).and_then(|left| left.get_mut(side)) {
            *left = true;
        }
        if let Some(record) = self.pairs.get_mut(pair) {
            record.ended_ms = record.ended_ms.max(at_ms);
        }
    }

    /// The figures that need everything to be in.
    pub(crate) fn finish(mut self) -> Vec<Pair> {
        for pair in &mut self.pairs {
            let ended_ms = pair.ended_ms;
            close_span(pair, ended_ms);
            summarise(pair);
        }
        self.pairs
    }
}

/// Works out what the table shows of a pair, as far as it has come.
pub(crate) fn summarise(pair: &mut Pair) {
    let echoes = pair.sides.iter().flat_map(|side| &side.rtt);
    pair.rtt_ms = median(echoes.map(|(_, rtt)| *rtt));
    let (arrived, sent) = pair.delivered(|side| side.unreliable);
    pair.loss = if sent == 0 {
        0.0
    } else {
        1.0 - f64::from(arrived) / f64::from(sent)
    };
    let Some(Cut {
        at_ms,
        moved_ms: Some(moved),
        ..
    }) = pair.cut
    else {
        return;
    };
    let silences = pair
        .sides
        .iter()
        .filter_map(|side| longest_silence(&side.arrivals_ms, at_ms, moved + AFTER_MOVE_MS));
    if let Some(cut) = &mut pair.cut {
        cut.gap_ms = silences.reduce(f64::max);
    }
}

/// The longest time between two arrivals, of those that touch the stretch.
fn longest_silence(arrivals_ms: &[f64], from_ms: f64, to_ms: f64) -> Option<f64> {
    arrivals_ms
        .windows(2)
        .filter_map(|two| match two {
            [before, after] if *after > from_ms && *before < to_ms => Some(after - before),
            _ => None,
        })
        .reduce(f64::max)
}

fn pair_of(plan: &PairPlan) -> Pair {
    let side = |index: usize| -> Side {
        let (Some(name), Some(kind)) = (plan.names.get(index), plan.nats.get(index)) else {
            return Side::default();
        };
        let none_yet = Tally {
            in_order: true,
            ..Tally::default()
        };
        Side {
            name: (*name).to_owned(),
            nat: kind.id(),
            nat_name: kind.name(),
            reliable: none_yet,
            unreliable: none_yet,
            ..Side::default()
        }
    };
    let [a, b] = plan.nats;
    Pair {
        name: format!("{a} x {b}"),
        expected: Some(plan.expected),
        to_be_cut: plan.cut,
        sides: [side(0), side(1)],
        ..Pair::default()
    }
}

fn close_span(pair: &mut Pair, at_ms: f64) {
    if let Some(span) = pair
        .spans
        .last_mut()
        .filter(|span| span.to_ms.is_infinite())
    {
        span.to_ms = at_ms;
    }
}

fn note(side: &mut Side, what: &What, at_ms: f64) {
    match what {
        What::Joined => side.joined_ms = Some(at_ms),
        What::Candidate {
            kind,
            address,
            transport,
        } => side.candidates.push(Candidate {
            at_ms,
            kind: *kind,
            address: address.clone(),
            transport: transport.clone(),
        }),
        What::Gathered => side.gathered_ms = Some(at_ms),
        What::Diary(kind, text) => side.diary.push(Line {
            at_ms,
            kind: *kind,
            text: text.clone(),
        }),
        What::Failed(text) => side.diary.push(Line {
            at_ms,
            kind: LineKind::Note,
            text: format!("failed: {text}"),
        }),
        What::Connected(..) => side.connected_ms = Some(at_ms),
        What::ReliableSent => side.reliable.sent += 1,
        What::ReliableArrived(number) => {
            side.reliable.in_order &= *number == side.reliable.received;
            side.reliable.received += 1;
            side.arrivals_ms.push(at_ms);
        }
        What::UnreliableSent => side.unreliable.sent += 1,
        What::UnreliableArrived(number) => {
            side.unreliable.in_order &= *number == side.unreliable.received;
            side.unreliable.received += 1;
        }
        What::Echoed(rtt_ms) => side.rtt.push((at_ms, *rtt_ms)),
        What::Started | What::Moved(..) | What::Cut | What::Left => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::pairs::PAIRS;

    struct Story {
        board: Board,
        start: Instant,
    }

    impl Story {
        #[expect(
            clippy::disallowed_methods,
            reason = "an arbitrary origin for virtual time"
        )]
        fn new() -> Self {
            let mut story = Self {
                board: Board::new(&PAIRS[..1]),
                start: Instant::now(),
            };
            story.at(0, 0, What::Started);
            story
        }

        fn at(&mut self, millis: u64, side: usize, what: What) {
            let at = self.start + Duration::from_millis(millis);
            self.board.apply(&Happening {
                at,
                pair: 0,
                side,
                what,
            });
        }

        fn path(&mut self, millis: u64, side: usize, path: Path) {
            self.at(millis, side, What::Moved(path, String::new()));
        }

        fn finish(mut self) -> Pair {
            self.at(4000, 0, What::Left);
            assert!(!self.board.is_over());
            self.at(4010, 1, What::Left);
            assert!(self.board.is_over());
            self.board.finish().remove(0)
        }
    }

    #[test]
    fn pair_is_connected_when_both_sides_are() {
        let mut story = Story::new();
        story.path(100, 0, Path::Direct);
        story.path(140, 1, Path::Direct);
        let pair = story.finish();
        assert_eq!(pair.connect_ms, Some(140.0));
        assert_eq!(
            pair.spans,
            [Span {
                path: Path::Direct,
                from_ms: 140.0,
                to_ms: 4010.0
            }]
        );
    }

    #[test]
    fn cut_is_over_when_both_sides_have_left_the_direct_path() {
        let mut story = Story::new();
        for side in [0, 1] {
            story.path(100, side, Path::Direct);
        }
        for number in 0..40 {
            let at = u64::from(number) * 20 + 100;
            // Nothing arrives from 500 to 1000.
            let at = if at > 500 { at + 500 } else { at };
            story.at(at, 1, What::ReliableArrived(number));
            if at == 500 {
                story.at(510, 0, What::Cut);
                story.path(900, 0, Path::Relay);
                story.path(950, 1, Path::RelayOverTcp);
            }
        }
        let pair = story.finish();
        assert_eq!(
            pair.cut,
            Some(Cut {
                at_ms: 510.0,
                moved_ms: Some(950.0),
                gap_ms: Some(520.0)
            })
        );
        assert_eq!(pair.path, Some(Path::RelayOverTcp));
        assert_eq!(pair.main_path(), Some(Path::Direct));
        assert!(pair.sides[1].reliable.in_order);
    }

    #[test]
    fn missing_and_swapped_messages_are_out_of_order() {
        for numbers in [[0, 2], [1, 0]] {
            let mut story = Story::new();
            for number in numbers {
                story.at(200, 0, What::ReliableArrived(number));
            }
            assert!(!story.finish().sides[0].reliable.in_order);
        }
    }

    #[test]
    fn loss_counts_what_never_arrived() {
        let mut story = Story::new();
        for number in 0..10 {
            story.at(200, 0, What::UnreliableSent);
            if number != 3 {
                story.at(201, 1, What::UnreliableArrived(number));
                story.at(202, 0, What::Echoed(f64::from(number)));
            }
        }
        let pair = story.finish();
        assert!((pair.loss - 0.1).abs() < 1e-9);
        assert_eq!(pair.rtt_ms, Some(5.0));
    }
}
