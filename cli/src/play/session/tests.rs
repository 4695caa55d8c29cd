//! Two sessions, joined by channels of which the unreliable one loses what it is told to.

use std::fs;
use std::path::Path;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn plan(count: u32) -> Plan {
    Plan {
        count,
        size: 100,
        interval: 20 * MILLISECOND,
        ..Plan::default()
    }
}

/// Lets two players talk until both are over; `lost` says which unreliable datagrams vanish. Answers how long it took.
fn converse(
    a: Plan,
    b: Plan,
    mut lost: impl FnMut(u32) -> bool,
) -> Result<([Figures; 2], Duration), Broken> {
    let start = start();
    let mut sessions = [Session::new(a, start), Session::new(b, start)];
    let mut datagrams = 0;
    for step in 0..20_000 {
        let now = start + step * MILLISECOND;
        for (here, there) in [(0, 1), (1, 0)] {
            let mut travels = |message: Vec<u8>| {
                datagrams += 1;
                (!lost(datagrams)).then_some(message)
            };
            let ping = sessions[here].next_unreliable(now).and_then(&mut travels);
            let echo = ping.and_then(|ping| sessions[there].handle_unreliable(now, &ping));
            if let Some(echo) = echo.and_then(travels) {
                sessions[here].handle_unreliable(now, &echo);
            }
            while let Some(message) = sessions[here].next_reliable(now)?.map(<[u8]>::to_vec) {
                sessions[here].reliable_sent();
                sessions[there].handle_reliable(&message)?;
            }
        }
        if sessions.iter().all(Session::is_over) {
            return Ok((sessions.map(|session| session.figures()), now - start));
        }
    }
    panic!("the conversation does not end: {sessions:?}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary origin for virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn all_messages_are_counted_on_both_sides() {
    let ([a, b], took) = converse(plan(10), plan(25), |_| false).expect("complete");
    assert_eq!((a.sent, a.echoed, a.received, a.expected), (10, 10, 25, 25));
    assert_eq!((b.sent, b.echoed, b.received, b.expected), (25, 25, 10, 10));
    assert!(
        took >= 480 * MILLISECOND && took < 600 * MILLISECOND,
        "{took:?}"
    );
}

#[test]
fn lost_datagrams_are_waited_for_and_then_reported() {
    let ([a, b], took) =
        converse(plan(30), plan(30), |number| number * 7919 % 10 < 3).expect("complete");
    assert!(a.echoed < 30 && a.echoed > 0 && b.received < 30);
    assert!(took >= 580 * MILLISECOND + ECHO_WAIT, "{took:?}");
}

#[test]
fn nothing_coming_back_is_a_failure() {
    let failed = converse(plan(5), plan(5), |_| true);
    assert!(matches!(failed, Err(Broken::Deaf(5))), "{failed:?}");
}

#[test]
fn players_without_messages_end_at_once_or_after_the_hold() {
    let (_, took) = converse(plan(0), plan(0), |_| false).expect("complete");
    assert!(took < 10 * MILLISECOND);
    let holding = Plan {
        hold: Duration::from_secs(3),
        ..plan(2)
    };
    let (_, took) = converse(holding, plan(0), |_| false).expect("complete");
    assert!(
        took >= Duration::from_secs(3),
        "the other waits too: {took:?}"
    );
}

#[test]
fn files_go_both_ways_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let long: Vec<u8> = (0..300_000u32)
        .map(|i| (i % 241).to_le_bytes()[0])
        .collect();
    fs::write(place("long"), &long).expect("written");
    fs::write(place("empty"), b"").expect("written");
    let carrying = |input: &Path, output: &Path| Plan {
        input: Some(Outgoing::open(input).expect("opened")),
        output: Some(Incoming::create(output).expect("created")),
        ..plan(3)
    };
    let a = carrying(&place("long"), &place("empty-copy"));
    let b = carrying(&place("empty"), &place("long-copy"));
    let ([a, b], _) = converse(a, b, |_| false).expect("complete");
    assert_eq!(a.file_sent, b.file_received);
    assert_eq!(b.file_sent.map(|file| file.bytes), Some(0));
    assert_eq!(fs::read(place("long-copy")).expect("there"), long);
    assert_eq!(fs::read(place("empty-copy")).expect("there"), b"");
}

#[test]
fn file_without_a_taker_or_a_sender_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, b"abc").expect("written");
    let sending = Plan {
        input: Some(Outgoing::open(&file).expect("opened")),
        ..plan(1)
    };
    let failed = converse(sending, plan(1), |_| false);
    assert!(matches!(failed, Err(Broken::NotTaken)), "{failed:?}");

    let copy = folder.path().join("copy");
    let taking = Plan {
        output: Some(Incoming::create(&copy).expect("created")),
        ..plan(1)
    };
    let failed = converse(taking, plan(1), |_| false);
    assert!(matches!(failed, Err(Broken::NotSent)), "{failed:?}");
    assert!(!copy.exists());
}

#[test]
fn message_that_is_too_long_goes_in_smaller_pieces() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, vec![7; 40_000]).expect("written");
    let sending = Plan {
        input: Some(Outgoing::open(&file).expect("opened")),
        ..plan(0)
    };
    let now = start();
    let mut session = Session::new(sending, now);
    assert!(
        !session.shorten_pieces(1),
        "the hello is no piece of the file"
    );
    session.next_reliable(now).expect("the hello");
    let hello = Word::Hello {
        count: 0,
        file_bytes: None,
        takes_file: true,
    };
    session
        .handle_reliable(&talk::word(&hello))
        .expect("understood");
    session.reliable_sent();
    let mut sizes = Vec::new();
    while let Some(length) = session
        .next_reliable(now)
        .expect("readable")
        .map(<[u8]>::len)
    {
        if length > 5_001 {
            assert!(session.shorten_pieces(5_001));
            continue;
        }
        sizes.push(length);
        session.reliable_sent();
    }
    let end = sizes.pop().expect("the end");
    assert!(end < 200);
    let data: usize = sizes.iter().map(|size| size - 1).sum();
    assert_eq!(data, 40_000);
    assert!(sizes.iter().all(|size| *size <= 5_001));
}

#[test]
fn strangers_numbers_and_words_cost_nothing() {
    let now = start();
    let mut session = Session::new(plan(2), now);
    session.handle_unreliable(now, &talk::ping(u32::MAX, 100));
    session.handle_unreliable(now, &talk::echo_of(&talk::ping(7, 100)));
    assert_eq!(
        (session.figures().received, session.figures().echoed),
        (0, 0)
    );
    assert!(session.heard.len() <= 1_000);
    assert!(matches!(
        session.handle_reliable(b"?"),
        Err(Broken::Language)
    ));
    assert!(matches!(
        session.handle_reliable(b"dabc"),
        Err(Broken::Language)
    ));
}
