//! RFC 4787's requirements, one by one, and the properties that hold for every NAT whatever is sent through it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Dependence, Kind, Ports};

const SECOND: Duration = Duration::from_secs(1);

#[expect(
    clippy::disallowed_methods,
    reason = "an arbitrary origin for virtual time"
)]
fn start() -> Instant {
    Instant::now()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

fn external() -> IpAddr {
    addr("203.0.113.7:1").ip()
}

fn nat(behaviour: Behaviour) -> Nat {
    Nat::new(behaviour, external(), [3; 32])
}

fn nat_of(mapping: Dependence, filtering: Dependence) -> Nat {
    nat(Behaviour {
        mapping,
        filtering,
        ..Behaviour::default()
    })
}

const DEPENDENCES: [Dependence; 3] = [
    Dependence::Endpoint,
    Dependence::Address,
    Dependence::AddressAndPort,
];

#[test]
fn mapping_is_shared_exactly_as_far_as_its_dependence_says() {
    // RFC 4787 §4.1: X1':x1' = X2':x2' for all, for the same address, for the same address and port.
    let home = addr("192.168.1.2:5000");
    let remote = addr("198.51.100.1:1000");
    let same_address = addr("198.51.100.1:2000");
    let other_address = addr("198.51.100.2:1000");
    for (mapping, shares_address, shares_any) in [
        (Dependence::Endpoint, true, true),
        (Dependence::Address, true, false),
        (Dependence::AddressAndPort, false, false),
    ] {
        let mut nat = nat_of(mapping, Dependence::Endpoint);
        let now = start();
        let first = nat.outbound(now, home, remote);
        assert_eq!(nat.outbound(now, home, remote), first, "{mapping:?}");
        assert_eq!(
            nat.outbound(now, home, same_address) == first,
            shares_address,
            "{mapping:?}"
        );
        assert_eq!(
            nat.outbound(now, home, other_address) == first,
            shares_any,
            "{mapping:?}"
        );
    }
}

#[test]
fn filter_admits_exactly_as_far_as_its_dependence_says() {
    // RFC 4787 §5.
    let home = addr("192.168.1.2:5000");
    let remote = addr("198.51.100.1:1000");
    let same_address = addr("198.51.100.1:2000");
    let other_address = addr("198.51.100.2:1000");
    for (filtering, same_address_passes, any_passes) in [
        (Dependence::Endpoint, true, true),
        (Dependence::Address, true, false),
        (Dependence::AddressAndPort, false, false),
    ] {
        let mut nat = nat_of(Dependence::Endpoint, filtering);
        let now = start();
        let outside = nat.outbound(now, home, remote).expect("sent").from();
        assert_eq!(nat.inbound(now, outside, remote), Ok(home));
        let verdict = |passes| {
            if passes {
                Ok(home)
            } else {
                Err(DropReason::Filtered)
            }
        };
        assert_eq!(
            nat.inbound(now, outside, same_address),
            verdict(same_address_passes)
        );
        assert_eq!(
            nat.inbound(now, outside, other_address),
            verdict(any_passes)
        );
    }
}

#[test]
fn two_hosts_never_share_an_external_port() {
    // RFC 4787 REQ-3: no port overloading, whatever the assignment.
    for ports in [Ports::Random, Ports::Preserving, Ports::Sequential] {
        let mut nat = nat(Behaviour {
            ports,
            port_range: 40_000..=40_255,
            ..Behaviour::default()
        });
        let now = start();
        let mut owners = BTreeMap::new();
        for host in 0..=255u8 {
            let home = SocketAddr::from(([192, 168, 1, host], 40_000));
            let from = nat
                .outbound(now, home, addr("198.51.100.1:1"))
                .expect("256 ports")
                .from();
            assert_eq!(owners.insert(from, home), None, "{ports:?}");
        }
        let one_too_many = nat.outbound(now, addr("192.168.2.1:40000"), addr("198.51.100.1:1"));
        assert_eq!(one_too_many, Err(DropReason::PortsExhausted));
        assert_eq!(nat.counters().dropped(DropReason::PortsExhausted), 1);
    }
}

#[test]
fn mapping_ends_after_its_lifetime_and_its_address_is_reported() {
    // RFC 4787 §4.3, REQ-5.
    let mut nat = nat(Behaviour::default());
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let outside = nat.outbound(now, home, remote).expect("sent").from();
    assert_eq!(nat.poll_timeout(), Some(now + Duration::from_secs(300)));

    assert_eq!(
        nat.inbound(now + Duration::from_secs(299), outside, remote),
        Ok(home)
    );
    assert_eq!(nat.poll_closed(), None);
    assert_eq!(
        nat.inbound(now + Duration::from_secs(300), outside, remote),
        Err(DropReason::NoMapping)
    );
    assert_eq!(nat.poll_closed(), Some(outside));
    assert_eq!((nat.mappings(), nat.sessions()), (0, 0));
}

#[test]
fn outbound_refreshes_always_and_inbound_where_the_behaviour_says() {
    // RFC 4787 REQ-6.
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    for (refresh, lives) in [(Refresh::Outbound, false), (Refresh::Both, true)] {
        let mut nat = nat(Behaviour {
            refresh,
            lifetime: 20 * SECOND,
            ..Behaviour::default()
        });
        let now = start();
        let outside = nat.outbound(now, home, remote).expect("sent").from();
        assert_eq!(
            nat.outbound(now + 15 * SECOND, home, remote)
                .map(Outbound::from),
            Ok(outside),
            "outbound refreshes"
        );
        assert_eq!(nat.inbound(now + 30 * SECOND, outside, remote), Ok(home));
        assert_eq!(
            nat.inbound(now + 40 * SECOND, outside, remote).is_ok(),
            lives,
            "{refresh:?}"
        );
    }
}

#[test]
fn refused_datagrams_refresh_nothing() {
    // RFC 4787 §4.3: otherwise a stranger could hold any mapping open.
    let mut nat = nat(Behaviour {
        refresh: Refresh::Both,
        lifetime: 20 * SECOND,
        ..Behaviour::default()
    });
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let outside = nat.outbound(now, home, remote).expect("sent").from();
    let stranger = addr("198.51.100.66:666");
    assert_eq!(
        nat.inbound(now + 19 * SECOND, outside, stranger),
        Err(DropReason::Filtered)
    );
    assert_eq!(
        nat.inbound(now + 20 * SECOND, outside, remote),
        Err(DropReason::NoMapping)
    );
}

#[test]
fn each_remote_has_its_own_time_to_send_in() {
    let mut nat = nat(Behaviour {
        lifetime: 20 * SECOND,
        ..Behaviour::default()
    });
    let home = addr("192.168.1.2:5000");
    let (early, late) = (addr("198.51.100.1:1000"), addr("198.51.100.2:1000"));
    let now = start();
    let outside = nat.outbound(now, home, early).expect("sent").from();
    nat.outbound(now + 15 * SECOND, home, late).expect("sent");
    assert_eq!(
        nat.inbound(now + 25 * SECOND, outside, early),
        Err(DropReason::Filtered)
    );
    assert_eq!(nat.inbound(now + 25 * SECOND, outside, late), Ok(home));
}

#[test]
fn hairpinned_datagram_comes_from_the_external_address() {
    // RFC 4787 REQ-9a. The filter of the other host's mapping holds inside as outside.
    let mut nat = nat_of(Dependence::Endpoint, Dependence::AddressAndPort);
    let (anna, ben) = (addr("192.168.1.2:5000"), addr("192.168.1.3:5000"));
    let server = addr("198.51.100.1:3478");
    let now = start();
    let anna_outside = nat.outbound(now, anna, server).expect("sent").from();
    let ben_outside = nat.outbound(now, ben, server).expect("sent").from();

    assert_eq!(
        nat.outbound(now, anna, ben_outside),
        Err(DropReason::Filtered)
    );
    assert_eq!(
        nat.outbound(now, ben, anna_outside),
        Ok(Outbound::Hairpinned {
            from: ben_outside,
            to: anna
        })
    );
    assert_eq!(
        nat.outbound(now, anna, ben_outside),
        Ok(Outbound::Hairpinned {
            from: anna_outside,
            to: ben
        })
    );
}

#[test]
fn without_hairpinning_own_addresses_are_unreachable_from_inside() {
    let mut nat = nat(Kind::FullCone.behaviour());
    let now = start();
    let outside = nat
        .outbound(now, addr("192.168.1.2:5000"), addr("198.51.100.1:1"))
        .expect("sent")
        .from();
    assert_eq!(
        nat.outbound(now, addr("192.168.1.3:5000"), outside),
        Err(DropReason::NoHairpin)
    );
    assert_eq!(nat.mappings(), 1, "a refused datagram opens nothing");
}

#[test]
fn ports_of_a_shared_address_outside_the_range_are_somebody_elses() {
    let mut nat = nat(Behaviour {
        port_range: 20_000..=20_999,
        ..Kind::PortRestricted.behaviour()
    });
    let home = addr("192.168.1.2:5000");
    let neighbour = SocketAddr::new(external(), 21_000);
    let now = start();
    let sent = nat.outbound(now, home, neighbour);
    assert!(matches!(sent, Ok(Outbound::Sent { .. })), "{sent:?}");
    let outside = sent.expect("sent").from();
    assert_eq!(nat.inbound(now, outside, neighbour), Ok(home));
    assert_eq!(
        nat.inbound(now, neighbour, outside),
        Err(DropReason::NoMapping)
    );
}

#[test]
fn blocked_udp_passes_nothing_in_either_direction() {
    let mut nat = nat(Kind::FullCone.behaviour());
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let outside = nat.outbound(now, home, remote).expect("sent").from();
    nat.set_udp(false);
    assert_eq!(nat.outbound(now, home, remote), Err(DropReason::UdpBlocked));
    assert_eq!(
        nat.inbound(now, outside, remote),
        Err(DropReason::UdpBlocked)
    );
    nat.set_udp(true);
    assert_eq!(nat.inbound(now, outside, remote), Ok(home));
}

#[test]
fn cut_holds_in_both_directions_and_for_nobody_else() {
    let home = addr("192.168.1.2:5000");
    let (remote, relay) = (addr("198.51.100.1:1000"), addr("198.51.100.9:3478"));
    for cut in [Remote::Address(remote.ip()), Remote::Endpoint(remote)] {
        let mut nat = nat(Kind::PortRestricted.behaviour());
        let now = start();
        let outside = nat.outbound(now, home, remote).expect("sent").from();
        assert!(nat.cut(cut));
        assert_eq!(nat.outbound(now, home, remote), Err(DropReason::Cut));
        assert_eq!(nat.inbound(now, outside, remote), Err(DropReason::Cut));
        assert!(nat.outbound(now, home, relay).is_ok());
        let other_port = addr("198.51.100.1:1001");
        assert_eq!(
            nat.outbound(now, home, other_port).is_ok(),
            cut == Remote::Endpoint(remote)
        );
        nat.mend(cut);
        assert_eq!(nat.inbound(now, outside, remote), Ok(home));
    }
}

#[test]
fn cuts_are_bounded() {
    let mut nat = nat(Kind::FullCone.behaviour());
    for port in 1..=u16::try_from(MAX_CUTS).expect("small") {
        assert!(nat.cut(Remote::Endpoint(SocketAddr::from((
            [198, 51, 100, 1],
            port
        )))));
    }
    assert!(!nat.cut(Remote::Address(external())));
    assert!(
        nat.cut(Remote::Endpoint(addr("198.51.100.1:1"))),
        "an old one costs nothing"
    );
}

#[test]
fn reboot_forgets_every_mapping_and_takes_other_ports() {
    let mut nat = nat(Kind::FullCone.behaviour());
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let before = nat.outbound(now, home, remote).expect("sent").from();
    nat.reboot();
    assert_eq!(nat.poll_closed(), Some(before));
    assert_eq!(nat.inbound(now, before, remote), Err(DropReason::NoMapping));
    let after = nat.outbound(now, home, remote).expect("sent").from();
    assert_ne!(after, before);
    assert_eq!(nat.inbound(now, after, remote), Ok(home));
}

#[test]
fn renumbering_moves_every_mapping_to_the_other_address() {
    let mut nat = nat(Kind::Masquerade.behaviour());
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let before = nat.outbound(now, home, remote).expect("sent").from();
    nat.renumber(addr("203.0.113.8:1").ip());
    assert_eq!(nat.poll_closed(), Some(before));
    let after = nat.outbound(now, home, remote).expect("sent").from();
    assert_eq!(after, addr("203.0.113.8:5000"), "masquerade keeps the port");
    assert_eq!(nat.inbound(now, before, remote), Err(DropReason::NoMapping));
}

#[test]
fn reserved_port_is_given_to_nobody() {
    let mut nat = nat(Kind::Masquerade.behaviour());
    let (home, remote) = (addr("192.168.1.2:5000"), addr("198.51.100.1:1000"));
    let now = start();
    let first = nat.outbound(now, home, remote).expect("sent").from();
    nat.reserve_port(first.port());
    assert_eq!(nat.poll_closed(), Some(first));
    let second = nat.outbound(now, home, remote).expect("sent").from();
    assert_ne!(second.port(), 5000);
}

#[test]
fn other_address_family_does_not_pass() {
    let mut nat = nat(Behaviour::default());
    assert_eq!(
        nat.outbound(start(), addr("192.168.1.2:5000"), addr("[2001:db8::1]:1")),
        Err(DropReason::WrongFamily)
    );
}

#[test]
fn full_table_refuses_strangers_and_keeps_what_it_has() {
    let mut nat = nat(Behaviour {
        sessions: 4,
        lifetime: 20 * SECOND,
        ..Kind::PortRestricted.behaviour()
    });
    let now = start();
    let remote = addr("198.51.100.1:1000");
    let (anna, ben, carl) = (
        addr("192.168.1.2:1"),
        addr("192.168.1.3:1"),
        addr("192.168.1.4:1"),
    );
    assert!(nat.outbound(now, anna, remote).is_ok());
    assert!(nat.outbound(now + SECOND, ben, remote).is_ok());
    assert_eq!(
        nat.outbound(now + SECOND, carl, remote),
        Err(DropReason::TableFull)
    );
    assert_eq!(
        nat.outbound(now + SECOND, anna, addr("198.51.100.2:1")),
        Err(DropReason::TableFull),
        "a further remote needs room too"
    );
    assert!(nat.outbound(now + SECOND, ben, remote).is_ok());
    assert_eq!(nat.counters().dropped(DropReason::TableFull), 2);
    // Both of anna's entries end at 20 s.
    assert!(nat.outbound(now + 20 * SECOND, carl, remote).is_ok());
}

#[derive(Debug, Clone)]
enum Step {
    Out { host: u8, remote: u8 },
    In { outside: usize, remote: u8 },
    Wait(u8),
    Reboot,
    Reserve(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, 0..12u8).prop_map(|(host, remote)| Step::Out { host, remote }),
        6 => (0..64usize, 0..12u8).prop_map(|(outside, remote)| Step::In { outside, remote }),
        2 => (0..30u8).prop_map(Step::Wait),
        1 => Just(Step::Reboot),
        1 => (40_000..40_032u16).prop_map(Step::Reserve),
    ]
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    (
        0..3usize,
        0..3usize,
        prop_oneof![
            Just(Ports::Random),
            Just(Ports::Preserving),
            Just(Ports::Sequential)
        ],
        prop_oneof![Just(Refresh::Outbound), Just(Refresh::Both)],
        1..24usize,
    )
        .prop_map(|(mapping, filtering, ports, refresh, sessions)| Behaviour {
            mapping: DEPENDENCES[mapping],
            filtering: DEPENDENCES[filtering],
            ports,
            port_range: 40_000..=40_015,
            lifetime: 20 * SECOND,
            refresh,
            hairpinning: Hairpinning::ExternalSource,
            udp: true,
            sessions,
        })
}

fn home(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, host], 40_000 + u16::from(host)))
}

/// Four ports at each of three addresses.
fn remote(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number / 4], 1000 + u16::from(number % 4)))
}

proptest! {
    /// An independent, slow judge: remembers every datagram that left, and says who may send in by looking through them.
    #[test]
    fn whatever_is_sent_the_filter_agrees_with_the_history(
        behaviour in behaviour(),
        seed in any::<[u8; 32]>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut nat = Nat::new(behaviour.clone(), external(), seed);
        let mut now = start();
        // (when, host, remote, external): refreshed by inbound datagrams too, where the behaviour says so.
        let mut history: Vec<(Instant, SocketAddr, SocketAddr, SocketAddr)> = Vec::new();
        let mut told = 0u64;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += u32::from(seconds) * SECOND,
                Step::Reboot => {
                    nat.reboot();
                    history.clear();
                }
                Step::Reserve(port) => {
                    nat.reserve_port(port);
                    history.retain(|(_, _, _, outside)| outside.port() != port);
                }
                Step::Out { host, remote: number } => {
                    told += 1;
                    if let Ok(sent) = nat.outbound(now, home(host), remote(number)) {
                        prop_assert!((40_000..=40_015).contains(&sent.from().port()));
                        history.push((now, home(host), remote(number), sent.from()));
                    }
                }
                Step::In { outside, remote: number } => {
                    if history.is_empty() {
                        continue;
                    }
                    told += 1;
                    let (_, owner, _, outside) = history[outside % history.len()];
                    let verdict = nat.inbound(now, outside, remote(number));
                    let lives = |when: Instant| now < when + behaviour.lifetime;
                    let mapped = history.iter().any(|(when, host, _, used)| {
                        lives(*when) && *host == owner && *used == outside
                    });
                    let admits = |to: SocketAddr| match behaviour.filtering {
                        Dependence::Endpoint => true,
                        Dependence::Address => to.ip() == remote(number).ip(),
                        Dependence::AddressAndPort => to == remote(number),
                    };
                    let permitted = history.iter().any(|(when, host, to, used)| {
                        lives(*when) && *host == owner && *used == outside && admits(*to)
                    });
                    // A port may have gone to another host since; then only the machine's own word counts.
                    let current = history.iter().rev().find(|(_, _, _, used)| *used == outside);
                    if current.is_some_and(|(_, host, _, _)| *host == owner) {
                        prop_assert_eq!(verdict.is_ok(), mapped && permitted, "{:?}", verdict);
                        if verdict.is_ok() && behaviour.refresh == Refresh::Both {
                            history.push((now, owner, remote(number), outside));
                        }
                    } else if let Ok(to) = verdict {
                        prop_assert_ne!(to, owner);
                        if behaviour.refresh == Refresh::Both {
                            history.push((now, to, remote(number), outside));
                        }
                    }
                }
            }
            nat.table.assert_consistent();
            prop_assert!(nat.sessions() <= behaviour.sessions);
            prop_assert_eq!(nat.counters().total(), told);
        }
        nat.handle_timeout(now + behaviour.lifetime);
        prop_assert_eq!(nat.sessions(), 0, "everything ends");
        prop_assert_eq!(nat.poll_timeout(), None);
    }

    /// The same seed and the same datagrams give the same ports: a failing world can be run again.
    #[test]
    fn same_seed_same_ports(seed in any::<[u8; 32]>(), hosts in proptest::collection::vec(0..4u8, 1..40)) {
        let now = start();
        let run = || {
            let mut nat = Nat::new(Kind::SymmetricRandom.behaviour(), external(), seed);
            hosts.iter().map(|host| nat.outbound(now, home(*host), remote(*host))).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}
