//! Which peers may be reached: security.md 5.1, through every door there is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use stun_wire::attribute::AddressFamily;
use turn_relay_proto::{
    DropReason, LivePorts, PeerDenial, PeerPolicy, Prefix, RelayAddress, RelayConfig,
};

use crate::harness::{
    Got, Indication, PEER, Player, World, addr, allocate, channel_bind, config, create_permission,
};

use PeerDenial::{EmbeddedIpv4, Listener, LowPort, NeverAPeer, NotListed, OwnAddress, PortZero};

/// Every special form, and what is said to it by default.
const FORMS: &[(&str, PeerDenial)] = &[
    // This host, this network, nobody, everybody.
    ("0.0.0.0", NeverAPeer), // CVE-2020-26262: unspecified is loopback on Linux
    ("0.1.2.3", NeverAPeer),
    ("127.0.0.1", NeverAPeer),
    ("127.255.255.254", NeverAPeer),
    ("169.254.0.1", NeverAPeer),
    ("224.0.0.1", NeverAPeer),
    ("239.255.255.250", NeverAPeer),
    ("240.0.0.1", NeverAPeer),
    ("255.255.255.255", NeverAPeer),
    ("::", NeverAPeer),
    ("::1", NeverAPeer),
    ("fe80::1", NeverAPeer),
    ("febf::1", NeverAPeer),
    ("ff02::1", NeverAPeer),
    ("ff0e::1", NeverAPeer),
    // Metadata services of clouds.
    ("169.254.169.254", NeverAPeer),
    ("169.254.170.2", NeverAPeer),
    ("100.100.100.200", NeverAPeer),
    ("168.63.129.16", NeverAPeer),
    ("192.0.0.192", NeverAPeer),
    ("fd00:ec2::254", NeverAPeer),
    ("fd20:ce::254", NeverAPeer),
    // IPv4 inside IPv6: CVE-2026-27624 and its followers. A harmless inner address rescues none.
    ("::ffff:127.0.0.1", EmbeddedIpv4),
    ("::ffff:20.30.40.50", EmbeddedIpv4),
    ("::127.0.0.1", EmbeddedIpv4),
    ("::20.30.40.50", EmbeddedIpv4),
    ("::2", EmbeddedIpv4),
    ("::ffff:0:127.0.0.1", EmbeddedIpv4),
    ("::ffff:0:20.30.40.50", EmbeddedIpv4),
    ("64:ff9b::127.0.0.1", EmbeddedIpv4),
    ("64:ff9b::20.30.40.50", EmbeddedIpv4),
    ("64:ff9b:1::7f00:1", EmbeddedIpv4),
    ("64:ff9b:1:ffff::1", EmbeddedIpv4),
    ("2002:7f00:1::", EmbeddedIpv4),
    ("2002:141e:2832::1", EmbeddedIpv4),
    ("2001::1", EmbeddedIpv4),
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", EmbeddedIpv4),
    ("2a00:1:2:3:0:5efe:127.0.0.1", EmbeddedIpv4),
    ("2a00:1:2:3:200:5efe:20.30.40.50", EmbeddedIpv4),
    // Special ranges that an operator may list.
    ("10.0.0.1", NotListed),
    ("10.255.255.255", NotListed),
    ("100.64.0.1", NotListed),
    ("100.127.255.255", NotListed),
    ("172.16.0.1", NotListed),
    ("172.31.255.255", NotListed),
    ("192.0.0.1", NotListed),
    ("192.0.2.200", NotListed),
    ("192.88.99.1", NotListed),
    ("192.168.1.1", NotListed),
    ("198.18.0.1", NotListed),
    ("198.19.255.255", NotListed),
    ("198.51.100.1", NotListed),
    ("203.0.113.1", NotListed),
    ("2001:1::1", NotListed),
    ("2001:2::1", NotListed),
    ("2001:1ff::1", NotListed),
    ("2001:db8::99", NotListed),
    ("3fff::1", NotListed),
    ("100::1", NotListed),
    ("5f00::1", NotListed),
    ("fc00::1", NotListed),
    ("fdff::1", NotListed),
    ("fec0::1", NotListed),
    ("1::1", NotListed),
    ("4000::1", NotListed),
    ("a000::1", NotListed),
    ("::1:0:0:1", NotListed),
    // The rims of the ranges above, and more encodings of what hides in them.
    ("0.255.255.255", NeverAPeer),
    ("169.254.255.255", NeverAPeer),
    ("239.255.255.255", NeverAPeer),
    ("247.1.2.3", NeverAPeer),
    ("ff01::1", NeverAPeer),
    ("ff05::1:3", NeverAPeer),
    ("feb0::a9fe:a9fe", NeverAPeer),
    ("::ffff:0.0.0.0", EmbeddedIpv4),
    ("::ffff:10.0.0.1", EmbeddedIpv4),
    ("::ffff:169.254.169.254", EmbeddedIpv4),
    ("::ffff:192.168.1.1", EmbeddedIpv4),
    ("::10.0.0.1", EmbeddedIpv4),
    ("::169.254.169.254", EmbeddedIpv4),
    ("::ffff:0:169.254.169.254", EmbeddedIpv4),
    ("64:ff9b::10.0.0.1", EmbeddedIpv4),
    ("64:ff9b::169.254.169.254", EmbeddedIpv4),
    ("64:ff9b:1::a9fe:a9fe", EmbeddedIpv4),
    ("2002:a00:1::1", EmbeddedIpv4),
    ("2002:a9fe:a9fe::1", EmbeddedIpv4),
    ("2001:0:a00:1::f5ff:fffe", EmbeddedIpv4),
    ("2a00:1:2:3:0:5efe:169.254.169.254", EmbeddedIpv4),
    ("2a00:1:2:3:200:5efe:10.0.0.1", EmbeddedIpv4),
    ("192.0.0.8", NotListed),
    ("192.168.255.255", NotListed),
    ("203.0.113.255", NotListed),
    ("fd12:3456:789a::1", NotListed),
];

/// Ordinary addresses beside the special ranges.
const ORDINARY: &[&str] = &[
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "126.0.0.1",
    "128.0.0.1",
    "169.253.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "192.0.3.1",
    "192.167.0.1",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.254",
    "2001:200::1",
    "2003::1",
    "2606:4700::1111",
    "2a00:1:2::3",
    "3ffe::1",
    "2001:db9::1",
];

fn policy(change: impl FnOnce(&mut RelayConfig)) -> PeerPolicy {
    let mut config = config();
    change(&mut config);
    PeerPolicy::new(&config)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn peer(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 6_000)
}

#[test]
fn every_special_form_is_refused_and_ordinary_addresses_are_not() {
    let policy = policy(|_| {});
    for (form, denial) in FORMS {
        assert_eq!(policy.judge(peer(form)), Err(*denial), "{form}");
        assert_eq!(policy.judge_ip(ip(form)), Err(*denial), "{form}");
    }
    for form in ORDINARY {
        assert_eq!(policy.judge(peer(form)), Ok(()), "{form}");
    }
}

#[test]
fn every_door_refuses_every_special_form() {
    // security.md B1: 92 forms and one more, four ways each: a permission, a permission beside an ordinary one, a
    // channel, a Send indication.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(
        &mut world,
        allocate().additional_family(AddressFamily::Ipv6),
    );
    let mut refused = 0;
    for (form, _) in FORMS {
        let peer = peer(form).to_string();
        for ask in [
            create_permission(&[&peer]),
            create_permission(&[PEER, &peer]),
            channel_bind(0x4000, &peer),
        ] {
            assert_eq!(alice.ask(&mut world, ask).code, Some(403), "{form}");
            refused += 1;
        }
        let got = alice.send(&mut world, &peer, b"?");
        assert_eq!(got, Got::Dropped(DropReason::NoPermission), "{form}");
        refused += 1;
    }
    assert!(refused >= 368 && refused == 4 * FORMS.len());
    assert_eq!(world.tally.forwarded, 0);
    assert_eq!(world.relay.gauges().permissions, 0);
}

#[test]
fn listed_ranges_are_allowed_but_never_the_impossible() {
    let everything = policy(|config| {
        config.peers.allow = ["0.0.0.0/0", "::/0"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec();
    });
    for (form, denial) in FORMS {
        let expected = if *denial == NotListed {
            Ok(())
        } else {
            Err(*denial)
        };
        assert_eq!(everything.judge(peer(form)), expected, "{form}");
    }
    let one = policy(|config| config.peers.allow = vec!["10.9.0.0/16".parse().expect("a prefix")]);
    assert_eq!(one.judge(peer("10.9.255.1")), Ok(()));
    assert_eq!(one.judge(peer("10.10.0.1")), Err(NotListed));
}

#[test]
fn allow_only_reaches_nothing_else() {
    let hosts = policy(|config| {
        config.peers.allow = vec!["20.30.40.0/24".parse().expect("a prefix")];
        config.peers.allow_only = true;
    });
    assert_eq!(hosts.judge(peer("20.30.40.1")), Ok(()));
    for form in ORDINARY {
        assert_eq!(hosts.judge(peer(form)), Err(NotListed), "{form}");
    }
}

#[test]
fn ports_of_reflectors_are_refused() {
    let policy = policy(|_| {});
    for (port, expected) in [
        (0, Err(PortZero)),
        (1, Err(LowPort)),
        (53, Err(LowPort)),
        (1_023, Err(LowPort)),
        (1_024, Ok(())),
    ] {
        assert_eq!(
            policy.judge(SocketAddr::new(ip("20.30.40.50"), port)),
            expected
        );
    }
}

#[test]
fn own_addresses_are_refused_except_live_relay_ports() {
    let live = Arc::new(LivePorts::new(["10.0.0.5", "2001:db8::1"].map(ip)));
    let policy = policy(|config| {
        config.relay_addresses = vec![
            RelayAddress {
                bind: ip("10.0.0.5"),
                external: Some(ip("20.0.0.5")),
            },
            RelayAddress::new(ip("2001:db8::1")),
        ];
        config.live_ports = live;
        // Not even the operator can list his own relay.
        config.peers.allow = ["0.0.0.0/0", "::/0"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec();
    });
    for own in ["10.0.0.5", "20.0.0.5", "2001:db8::1"] {
        for port in [22, 3_478, 5_432, 9_479, 50_000] {
            assert_eq!(
                policy.judge(SocketAddr::new(ip(own), port)),
                Err(OwnAddress),
                "{own}:{port}"
            );
        }
        assert_eq!(
            policy.judge_ip(ip(own)),
            Ok(()),
            "a permission; each datagram is judged again"
        );
    }
}

#[test]
fn listeners_of_this_host_are_no_peers() {
    let policy = policy(|config| {
        config.listeners = vec![addr("20.0.0.9:8765"), addr("[::]:9478")];
        config.peers.allow_loopback_for_tests = true;
    });
    assert_eq!(policy.judge(addr("20.0.0.9:8765")), Err(Listener));
    assert_eq!(policy.judge(addr("20.0.0.9:8766")), Ok(()));
    assert_eq!(
        policy.judge(addr("127.0.0.1:9478")),
        Err(Listener),
        "a wildcard listens there too"
    );
    assert_eq!(
        policy.judge(addr("127.0.0.1:9477")),
        Ok(()),
        "loopback, for tests"
    );
    assert_eq!(policy.judge(addr("[::1]:9477")), Ok(()));
    assert_eq!(
        policy.judge(addr("[::ffff:127.0.0.1]:9477")),
        Err(EmbeddedIpv4)
    );
}

#[test]
fn other_addresses_of_this_host_are_no_peers_unless_listed_one_by_one() {
    let with = |allow: &[(&str, u8)]| {
        let allow: Vec<Prefix> = allow
            .iter()
            .map(|(network, len)| Prefix::new(ip(network), *len).unwrap())
            .collect();
        policy(|config| {
            config.host_addresses = vec![ip("20.0.0.9"), ip("10.1.2.3"), ip("2600::9")];
            config.listeners = vec![addr("0.0.0.0:8765")];
            config.peers.allow = allow;
        })
    };
    // A firewall that lets nobody at a service lets the host itself at it.
    let policy = with(&[("10.0.0.0", 8)]);
    for own in ["20.0.0.9", "10.1.2.3", "2600::9"] {
        assert_eq!(policy.judge(peer(own)), Err(OwnAddress), "{own}");
        assert_eq!(policy.judge_ip(ip(own)), Err(OwnAddress), "{own}");
    }
    for other in ["20.0.0.8", "10.1.2.4", "2600::8"] {
        assert_eq!(policy.judge(peer(other)), Ok(()), "{other}");
    }
    let policy = with(&[("10.1.2.3", 32), ("20.0.0.9", 32), ("2600::9", 128)]);
    for own in ["20.0.0.9", "10.1.2.3", "2600::9"] {
        assert_eq!(policy.judge(peer(own)), Ok(()), "{own}");
    }
    assert_eq!(policy.judge(addr("20.0.0.9:8765")), Err(Listener));
}

#[test]
fn two_players_on_one_relay_reach_each_other() {
    // coturn#584: denying one's own address breaks relay-to-relay.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let mut bob = Player::bob("198.51.100.8:5000");
    let (hers, his) = (alice.allocate(&mut world), bob.allocate(&mut world));
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&[&his.to_string()]))
            .code,
        None
    );
    assert_eq!(
        bob.ask(&mut world, channel_bind(0x4000, &hers.to_string()))
            .code,
        None
    );

    // Behind a relay port stands a player with permissions of his own: the bound on packets to
    // silent peers is not for him.
    for _ in 0..100 {
        alice.send(&mut world, &his.to_string(), b"hi").forwarded();
    }
    let Got::Forwarded {
        path,
        bytes,
        forward,
    } = alice.send(&mut world, &his.to_string(), b"hi")
    else {
        panic!("not forwarded")
    };
    assert_eq!(
        (path.local, path.remote, forward.hairpin),
        (hers, his, true)
    );
    let (path, bytes) = world.peer_sends_from(hers, his, &bytes).forwarded();
    assert_eq!((path, &bytes[..]), (bob.path, &b"\x40\x00\x00\x02hi"[..]));

    // The permission is for the address, and the address is the relay's: other ports stay shut.
    for port in [3_478, 9_479, 1_024] {
        let own = SocketAddr::new(his.ip(), port).to_string();
        assert_eq!(
            alice.send(&mut world, &own, b"?"),
            Got::Dropped(DropReason::PeerDenied)
        );
    }
    // When the other is gone, its port is no peer any more.
    world.relay.kick_client(world.now, bob.path);
    world.drain();
    assert_eq!(
        alice.send(&mut world, &his.to_string(), b"?"),
        Got::Dropped(DropReason::PeerDenied)
    );
}

#[test]
fn players_behind_one_nat_of_the_relay_reach_each_other() {
    // 1:1 NAT: clients know external addresses, sockets inner ones; no datagram has to leave and
    // come back through the NAT.
    let mut world = World::with(|config| {
        config.relay_addresses = vec![RelayAddress {
            bind: ip("10.0.0.5"),
            external: Some(ip("20.0.0.5")),
        }];
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    let mut bob = Player::bob("198.51.100.8:5000");
    let (hers, his) = (alice.allocate(&mut world), bob.allocate(&mut world));
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&[&his.to_string()]))
            .code,
        None
    );
    assert_eq!(
        bob.ask(&mut world, create_permission(&[&hers.to_string()]))
            .code,
        None
    );
    let inner = |external: SocketAddr| SocketAddr::new(ip("10.0.0.5"), external.port());
    let (path, _) = alice.send(&mut world, &his.to_string(), b"hi").forwarded();
    assert_eq!((path.local, path.remote), (inner(hers), inner(his)));
    let (_, bytes) = world
        .peer_sends_from(inner(hers), inner(his), b"hi")
        .forwarded();
    assert_eq!(
        Indication::parse(&bytes).peer,
        hers,
        "known by what was told"
    );
}

#[test]
fn players_on_two_shards_reach_each_other() {
    let live = Arc::new(LivePorts::new([ip("192.0.2.1"), ip("2001:db8::1")]));
    let shard = |ports| {
        let live = Arc::clone(&live);
        World::with(move |config| (config.ports, config.live_ports) = (ports, live))
    };
    let (mut one, mut two) = (shard(50_000..=50_999), shard(51_000..=51_999));
    let mut alice = Player::alice("198.51.100.7:5000");
    let mut bob = Player::bob("198.51.100.8:5000");
    let (hers, his) = (alice.allocate(&mut one), bob.allocate(&mut two));
    alice.ask(&mut one, create_permission(&[&his.to_string()]));
    bob.ask(&mut two, create_permission(&[&hers.to_string()]));
    let (path, bytes) = alice.send(&mut one, &his.to_string(), b"hi").forwarded();
    assert_eq!(path.remote, his);
    two.peer_sends_from(hers, his, &bytes).forwarded();
    two.relay.end_all(two.now);
    two.drain();
    assert_eq!(
        alice.send(&mut one, &his.to_string(), b"hi"),
        Got::Dropped(DropReason::PeerDenied)
    );
}

#[test]
fn every_datagram_is_judged_again() {
    // A permission has no port, so the port is judged when there is one.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    assert_eq!(
        alice.send(&mut world, "20.30.40.50:53", b"?"),
        Got::Dropped(DropReason::PeerDenied)
    );
    assert_eq!(
        alice.send(&mut world, "20.30.40.50:0", b"?"),
        Got::Dropped(DropReason::PeerDenied)
    );
    alice.send(&mut world, PEER, b"?").forwarded();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// CVE 6c13608c: ranges compared byte by byte under-block. The oracle is arithmetic on one big
    /// number.
    #[test]
    fn ipv6_agrees_with_a_big_integer_oracle(
        bits in prop_oneof![
            any::<u128>(),
            // Near the edges of what is special.
            (prop::sample::select(EDGES.to_vec()), -3_i128..=3)
                .prop_map(|(edge, off)| edge.wrapping_add_signed(off)),
            (prop::sample::select(EDGES.to_vec()), any::<u64>())
                .prop_map(|(edge, low)| edge | u128::from(low)),
        ]
    ) {
        let expected = oracle_v6(bits);
        let judged = policy(|_| {}).judge(SocketAddr::new(Ipv6Addr::from_bits(bits).into(), 6_000));
        let own = bits == 0x2001_0db8_0000_0000_0000_0000_0000_0001;
        prop_assert_eq!(judged.is_ok(), expected && !own, "{}", Ipv6Addr::from_bits(bits));
    }

    #[test]
    fn ipv4_agrees_with_the_standard_library(bits in any::<u32>()) {
        let ip = Ipv4Addr::from_bits(bits);
        let o = ip.octets();
        let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
            || ip.is_broadcast() || ip.is_documentation() || o[0] == 0 || o[0] >= 240
            || (o[0] == 100 && o[1] & 0xC0 == 64) || (o[0] == 198 && o[1] & 0xFE == 18)
            || (o[0] == 192 && o[1] == 0 && o[2] == 0) || (o[0] == 192 && o[1] == 88 && o[2] == 99)
            || o == [168, 63, 129, 16];
        let judged = policy(|_| {}).judge(SocketAddr::new(ip.into(), 6_000));
        prop_assert_eq!(judged.is_ok(), !special, "{}", ip);
    }
}

/// First addresses of blocks, as numbers.
const EDGES: &[u128] = &[
    0,
    0xffff_0000_0000,
    0xffff_0000_0000_0000,
    0x0064_ff9b << 96,
    0x0064_ff9b_0001 << 80,
    0x0100 << 112,
    0x2000 << 112,
    0x2001 << 112,
    0x2001_0001 << 96,
    0x2001_0200 << 96,
    0x2001_0db8 << 96,
    0x2001_0db9 << 96,
    0x2002 << 112,
    0x2003 << 112,
    0x3fff << 112,
    0x3fff_1000 << 96,
    0x4000 << 112,
    0x5f00 << 112,
    0xfc00 << 112,
    0xfe80 << 112,
    0xfec0 << 112,
    0xff00 << 112,
    (0x2a00 << 112) | (0x5efe << 32),
    (0x2a00 << 112) | (0x0200_5efe << 32),
];

/// Global unicast, outside every block that is not: prefix arithmetic on 128 bits.
fn oracle_v6(bits: u128) -> bool {
    let within = |network: u128, len: u32| (bits ^ network) >> (128 - len) == 0;
    let isatap = (bits >> 32) & 0xfdff_ffff == 0x5efe;
    within(0x2000 << 112, 3)
        && !within(0x2001 << 112, 23)
        && !within(0x2001_0db8 << 96, 32)
        && !within(0x2002 << 112, 16)
        && !within(0x3fff << 112, 20)
        && !isatap
}
