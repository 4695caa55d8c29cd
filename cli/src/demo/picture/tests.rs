//! The picture of a made-up run: complete, well-formed, and honest about failures.

use super::*;
use crate::demo::record::{Candidate, Line, LineKind, Tally};

/// A pair that connected at `connect` and played for four seconds.
fn pair(nats: [(&'static str, &'static str); 2], path: Path, connect: f64, rtt: f64) -> Pair {
    let span = Span {
        path,
        from_ms: connect,
        to_ms: connect + 4200.0,
    };
    Pair {
        name: format!("{} x {}", nats[0].1, nats[1].1),
        expected: Some(path),
        path: Some(path),
        connect_ms: Some(connect),
        rtt_ms: Some(rtt),
        loss: 0.01,
        sides: [
            side("anna", nats[0], connect, 0.0, rtt),
            side("ben", nats[1], connect, 6.0, rtt),
        ],
        spans: vec![span],
        ended_ms: span.to_ms,
        ..Pair::default()
    }
}

/// One side of it, `shift` milliseconds behind the other.
fn side(
    name: &str,
    (nat, nat_name): (&'static str, &'static str),
    connect: f64,
    shift: f64,
    rtt: f64,
) -> Side {
    let every_20_ms = || {
        std::iter::successors(Some(connect + 5.0 + shift), |at| Some(at + 20.0))
            .take_while(move |at| *at < connect + 4200.0)
    };
    let kinds = [
        CandidateKind::Host,
        CandidateKind::Reflexive,
        CandidateKind::Relayed,
    ];
    let candidate = |(kind, share): (CandidateKind, f64)| Candidate {
        at_ms: connect * share + shift,
        kind,
        address: "192.168.1.11:50000".to_owned(),
        transport: None,
    };
    let line = |share: f64| Line {
        at_ms: connect * share,
        kind: if share > 0.8 {
            LineKind::Answer
        } else {
            LineKind::Check
        },
        text: "checked".to_owned(),
    };
    let wave = |at: f64| rtt * (1.0 + 0.25 * (at / 130.0).sin() + 0.15 * (at / 37.0).cos());
    let tally = |received| Tally {
        sent: 200,
        received,
        in_order: true,
    };
    Side {
        name: name.to_owned(),
        nat,
        nat_name,
        joined_ms: Some(connect * 0.2 + shift),
        candidates: kinds
            .into_iter()
            .zip([0.25, 0.34, 0.5])
            .map(candidate)
            .collect(),
        gathered_ms: Some(connect * 0.55 + shift),
        diary: [0.6, 0.64, 0.7, 0.9].map(line).into(),
        connected_ms: Some(connect - shift),
        reliable: tally(200),
        unreliable: tally(198),
        arrivals_ms: every_20_ms().collect(),
        rtt: every_20_ms().map(|at| (at, wave(at))).collect(),
    }
}

fn record() -> Record {
    const PORT: (&str, &str) = ("portres", "port-restricted");
    const SYMMETRIC: (&str, &str) = ("symrand", "symmetric");
    let mut first = pair([PORT, PORT], Path::Direct, 143.0, 0.42);
    let (cut, moved) = (143.0 + 1600.0, 143.0 + 2060.0);
    first.path = Some(Path::Relay);
    first.cut = Some(Cut {
        at_ms: cut,
        moved_ms: Some(moved),
        gap_ms: Some(461.0),
    });
    first.spans = vec![
        Span {
            path: Path::Direct,
            from_ms: 143.0,
            to_ms: moved,
        },
        Span {
            path: Path::Relay,
            from_ms: moved,
            to_ms: first.ended_ms,
        },
    ];
    for side in &mut first.sides {
        side.arrivals_ms.retain(|at| !(cut..moved).contains(at));
        side.rtt.retain(|(at, _)| !(cut..moved).contains(at));
        for (_, rtt) in side.rtt.iter_mut().filter(|(at, _)| *at > moved) {
            *rtt *= 1.8;
        }
    }
    Record {
        version: "0.0.0",
        network: "loopback",
        elapsed_ms: 6230.0,
        ok: true,
        failures: Vec::new(),
        pairs: vec![
            first,
            pair(
                [("fullcone", "full cone"), SYMMETRIC],
                Path::Direct,
                168.0,
                0.4,
            ),
            pair([SYMMETRIC, SYMMETRIC], Path::Relay, 236.0, 0.7),
            pair(
                [("udpblock", "UDP blocked"), PORT],
                Path::RelayOverTcp,
                962.0,
                0.9,
            ),
        ],
    }
}

/// Set `RALLYPOINT_PICTURE=FILE` to look at it.
#[test]
fn picture_shows_every_pair_its_figures_and_the_cut() {
    let picture = draw(&record());
    if let Some(file) = std::env::var_os("RALLYPOINT_PICTURE") {
        std::fs::write(file, &picture).expect("the picture can be written");
    }
    for text in [
        "port-restricted",
        "symmetric",
        "UDP blocked",
        "143 ms",
        "962 ms",
        "400/400",
        "461 ms of silence",
        "1,600 of 1,600 reliable messages in order",
        "relay over tcp",
    ] {
        assert!(picture.contains(text), "{text} is missing");
    }
    assert_well_formed(&picture);
}

#[test]
fn picture_of_a_failure_says_so() {
    let mut record = record();
    record.ok = false;
    record.failures = vec!["a <pair> failed".to_owned()];
    record.pairs[2] = Pair {
        name: "symmetric x symmetric".to_owned(),
        ended_ms: 9000.0,
        ..Pair::default()
    };
    let picture = draw(&record);
    assert!(picture.contains("1 expectations failed") && picture.contains("never connected"));
    assert_well_formed(&picture);
}

/// Every element that is opened is closed, in order; no attribute holds what is no number.
fn assert_well_formed(picture: &str) {
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
    let mut open = Vec::new();
    for tag in picture.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().expect("a name"));
        }
    }
    assert_eq!(open, [""; 0]);
}
