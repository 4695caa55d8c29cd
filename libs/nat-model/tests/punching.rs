//! Hole punching through pairs of NATs, against the table "What is possible" of the nat-lab: **D** pairs punch by plain ICE,
//! all others do not; **P** pairs give in to port prediction and **B** pairs to the birthday trick; **R** pairs to nothing.
//!
//! The world is packets in flight between two players, each behind a chain of NATs, and a STUN server. Time is virtual.

#[path = "punching/world.rs"]
mod world;

use nat_model::Kind;
use world::{Site, World};

/// The rows and columns of the nat-lab's table that IPv4 NATs can express.
const SITES: [Site; 11] = [
    Site::Public,
    Site::Home(Kind::FullCone),
    Site::Home(Kind::AddressRestricted),
    Site::Home(Kind::PortRestricted),
    Site::Home(Kind::Masquerade),
    Site::Home(Kind::SymmetricAddress),
    Site::Home(Kind::SymmetricRandom),
    Site::Home(Kind::SymmetricSequential),
    Site::Carrier(Kind::FullCone),
    Site::Carrier(Kind::SymmetricRandom),
    Site::Home(Kind::UdpBlocked),
];

/// The upper triangle of nat-lab.md, "What is possible", in the order of [`SITES`]. T (TCP tricks) is no UDP.
const TABLE: [&str; 11] = [
    "DDDDDDDDDDT",
    " DDDDDDDDDT",
    "  DDDDDDDDT",
    "   DDBBPDBT",
    "    DBBPDBT",
    "     BBBBBR",
    "      RRBRR",
    "       PPRR",
    "        DBT",
    "         RR",
    "          T",
];

fn pairs() -> impl Iterator<Item = (Site, Site, char)> {
    TABLE.iter().zip(SITES).flat_map(|(row, a)| {
        row.chars()
            .zip(SITES)
            .filter(|(possible, _)| *possible != ' ')
            .map(move |(possible, b)| (a, b, possible))
    })
}

#[test]
fn exactly_the_direct_pairs_of_the_table_punch_by_plain_ice() {
    let mut seen = 0;
    for (a, b, possible) in pairs() {
        for seed in 0..4 {
            let punched = World::new(a, b, seed).punch();
            assert_eq!(punched, possible == 'D', "{a:?} x {b:?}, seed {seed}");
            let mirrored = World::new(b, a, seed).punch();
            assert_eq!(mirrored, possible == 'D', "{b:?} x {a:?}, seed {seed}");
        }
        seen += 1;
    }
    assert_eq!(seen, 66);
}

#[test]
fn theory_says_the_same_as_the_world() {
    for a in Kind::ALL {
        for b in Kind::ALL {
            let theory = a.behaviour().punches(&b.behaviour());
            assert_eq!(theory, b.behaviour().punches(&a.behaviour()), "{a} x {b}");
            let world = World::new(Site::Home(a), Site::Home(b), 9).punch();
            assert_eq!(world, theory, "{a} x {b}");
        }
    }
}

#[test]
fn consecutive_ports_can_be_predicted_and_random_ones_cannot() {
    for (a, b, possible) in pairs() {
        if possible == 'P' {
            assert!(World::new(a, b, 1).predict(), "{a:?} x {b:?}");
        }
    }
    let random = Site::Home(Kind::SymmetricRandom);
    let hits = (0..8)
        .filter(|seed| World::new(random, Site::Home(Kind::PortRestricted), *seed).predict())
        .count();
    assert_eq!(hits, 0);
}

#[test]
fn birthday_pairs_meet_by_many_sockets_against_many_probes() {
    // 256 sockets against 1024 probes miss with probability (1 - 256/64512)^1024 = 1.7 %: over five seeds three hits at
    // least are certain enough (the seeds are fixed, so this holds in every run or in none).
    for (a, b, possible) in pairs() {
        if possible == 'B' {
            let hits = (0..5)
                .filter(|seed| World::new(a, b, *seed).birthday())
                .count();
            assert!(hits >= 3, "{a:?} x {b:?}: {hits} of 5");
        }
    }
}

#[test]
fn relay_pairs_give_in_to_no_trick() {
    for (a, b, possible) in pairs() {
        if possible == 'R' {
            let mut world = World::new(a, b, 2);
            assert!(!world.predict() && !world.birthday(), "{a:?} x {b:?}");
        }
    }
}
