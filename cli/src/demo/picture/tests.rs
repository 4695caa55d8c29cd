//! The picture of a made-up run: complete, well-formed, and honest about failures.

use super::*;
use crate::demo::record::{Candidate, Line, LineKind, Tally};

/// A pair that connected at `connect` and played for four seconds.
fn pair(nats: [(&'static str, &'static str); 2], path: Path, connect: f64, rtt: f64) -> Pair {
    let side = |name: &str, (nat, nat_name): (&'static str, &'static str), shift: f64| {
        let end = connect + 4200.0;
        let steps = |every: f64| {
            std::iter::successors(Some(connect + 5.0 + shift), move |at| Some(at + every))
                .take_while(move |at| *at < end)
        };
        Side {
            name: name.to_owned(),
            nat,
            nat_name,
            joined_ms: Some(connect * 0.2 + shift),
            candidates: [
                CandidateKind::Host,
                CandidateKind::Reflexive,
                CandidateKind::Relayed,
            ]
            .into_iter()
            .zip([0.25, 0.34, 0.5])
            .map(|(kind, share)| Candidate {
                at_ms: connect * share + shift,
                kind,
                text: "192.168.1.11:50000".to_owned(),
            })
            .collect(),
            gathered_ms: Some(connect * 0.55 + shift),
            diary: [0.6, 0.64, 0.7, 0.9]
                .map(|share| Line {
                    at_ms: connect * share,
                    kind: if share > 0.8 {
                        LineKind::Answer
                    } else {
                        LineKind::Check
                    },
                    text: "checked".to_owned(),
                })
                .into(),
            connected_ms: Some(connect - shift),
            reliable: Tally {
                sent: 200,
                received: 200,
                in_order: true,
            },
            unreliable: Tally {
                sent: 200,
                received: 198,
                in_order: true,
            },
            arrivals_ms: steps(20.0).collect(),
            rtt: steps(20.0)
                .map(|at| {
                    (
                        at,
                        rtt * (1.0 + 0.25 * (at / 130.0).sin() + 0.15 * (at / 37.0).cos()),
                    )
                })
                .collect(),
        }
    };
    Pair {
        name: format!("{} x {}", nats[0].1, nats[1].1),
        expected: Some(path),
        path: Some(path),
        connect_ms: Some(connect),
        rtt_ms: Some(rtt),
        loss: 0.01,
        sides: [side("anna", nats[0], 0.0), side("ben", nats[1], 6.0)],
        spans: vec![Span {
            path,
            from_ms: connect,
            to_ms: connect + 4200.0,
        }],
        to_be_cut: false,
        cut: None,
        ended_ms: connect + 4200.0,
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
