//! The run's arithmetic and its judgement of what arrives; whole runs are in `cli/tests/load.rs`.

use clap::Parser as _;

use super::*;
use crate::args::{Cli, Command};
use crate::load::args::Target;

fn args(options: &str) -> TurnArgs {
    let line = format!(
        "rallypoint load turn --server 127.0.0.1:3478 --user u --password p --peer-bind 127.0.0.1 {options}"
    );
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("it parses");
    let Command::Load(load) = cli.command else {
        panic!("not load");
    };
    let Target::Turn(args) = load.target else {
        panic!("not turn");
    };
    args
}

/// Two clients with the relayed ports 50,000 and 50,001, peer at 6000, each flow with one packet on its way.
fn traffic(options: &str) -> Traffic {
    let args = args(options);
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut routes = routes(&args);
    for route in &mut routes {
        route.flow.take_number();
    }
    let client = |number: u16| Client {
        relayed: local(50_000 + number),
        peer: if args.pairs {
            local(50_000 + (number ^ 1))
        } else {
            local(6000)
        },
    };
    Traffic {
        run: 7,
        server: args.server,
        echo: args.direction == Direction::Echo,
        clients: vec![client(0), client(1)],
        routes,
        returns: Vec::new(),
        arrived: 0,
        foreign: 0,
        latency: Sample::new(),
    }
}

fn stamp(flow: u32) -> Stamp {
    Stamp {
        run: 7,
        flow,
        number: 0,
        sent: Duration::ZERO,
    }
}

fn framed(stamp: Stamp) -> Vec<u8> {
    let header = ChannelData::header(CHANNEL, STAMP_LEN).expect("short");
    [&header[..], &stamp.bytes()].concat()
}

fn deliver(traffic: &mut Traffic, socket: usize, from: SocketAddr, bytes: &[u8]) -> (u64, u64) {
    let local = SocketAddr::from(([127, 0, 0, 1], 1));
    traffic.take(socket, Datagram { from, local, bytes });
    (traffic.arrived, traffic.foreign)
}

#[test]
fn peer_takes_a_flow_from_its_own_relayed_address_alone() {
    let mut up = traffic("--clients 2");
    let (own, other) = (up.clients[0].relayed, up.clients[1].relayed);
    assert_eq!(deliver(&mut up, 2, other, &stamp(0).bytes()), (0, 1));
    assert_eq!(deliver(&mut up, 2, own, &stamp(0).bytes()), (1, 1));
    assert_eq!(deliver(&mut up, 2, own, b"noise"), (1, 2));
    let earlier = Stamp { run: 6, ..stamp(0) };
    assert_eq!(deliver(&mut up, 2, own, &earlier.bytes()), (1, 3));
}

#[test]
fn client_takes_its_own_flow_alone() {
    let mut down = traffic("--clients 2 --direction down");
    let server = down.server;
    assert_eq!(deliver(&mut down, 0, server, &framed(stamp(1))), (0, 1));
    assert_eq!(deliver(&mut down, 1, server, &framed(stamp(1))), (1, 1));
    let stranger = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(deliver(&mut down, 0, stranger, &framed(stamp(0))), (1, 2));
}

#[test]
fn echo_is_sent_back_once_and_counted_where_it_began() {
    let mut echo = traffic("--clients 2 --direction echo");
    let relayed = echo.clients[0].relayed;
    assert_eq!(deliver(&mut echo, 2, relayed, &stamp(0).bytes()), (0, 0));
    assert_eq!(echo.returns, [stamp(0)]);
    let server = echo.server;
    assert_eq!(deliver(&mut echo, 0, server, &framed(stamp(0))), (1, 0));
}

#[test]
fn a_pair_has_one_flow_from_one_to_the_other() {
    let mut pair = traffic("--clients 2 --pairs");
    assert_eq!(pair.routes.len(), 1);
    let server = pair.server;
    assert_eq!(deliver(&mut pair, 0, server, &framed(stamp(0))), (0, 1));
    assert_eq!(deliver(&mut pair, 1, server, &framed(stamp(0))), (1, 1));
}

#[test]
fn window_is_shared_and_holds_a_burst() {
    let room = |options| routes(&args(options))[0].flow.room();
    assert_eq!(room("--clients 16 --window 128"), 8);
    assert_eq!(room("--clients 16 --window 128 --burst 16"), 16);
    assert_eq!(room("--clients 16 --window 1"), 1);
    assert_eq!(room("--clients 16 --pairs --window 128"), 16);
    assert_eq!(room("--clients 16 --rate 100"), u64::MAX);
}

#[test]
fn an_even_rate_is_due_when_it_is() {
    let second = Duration::from_secs(1);
    assert_eq!(due_by(second, 100_000), 100_000);
    assert_eq!(due_by(second / 3, 3), 0);
    assert_eq!(due_by(120 * second, 1_000_000), 120_000_000);
    assert_eq!(time_of(3, 3), second);
    assert!(due_by(time_of(1, 3), 3) >= 1);
}

#[test]
fn both_directions_take_turns_and_share_the_window() {
    let ends = |options| {
        let routes = routes(&args(options)).into_iter();
        routes
            .map(|route| (route.from, route.to))
            .collect::<Vec<_>>()
    };
    let client = End::Client;
    assert_eq!(
        ends("--clients 2 --direction both"),
        [
            (client(0), End::Peer),
            (End::Peer, client(0)),
            (client(1), End::Peer),
            (End::Peer, client(1)),
        ]
    );
    assert_eq!(
        ends("--clients 2 --pairs --direction both"),
        [(client(0), client(1)), (client(1), client(0))]
    );
    let shared = routes(&args("--clients 16 --window 128 --direction both"));
    assert_eq!(shared[0].flow.room(), 4);
}

#[test]
fn a_flood_has_no_window() {
    assert!(args("--wire").is_flood());
    assert!(!args("--wire --rate 5").is_flood());
    assert_eq!(routes(&args("--wire"))[0].flow.room(), u64::MAX);
}

#[test]
fn the_stamp_is_where_a_frame_has_its_payload() {
    for (options, from) in [
        ("--clients 2", End::Client(1)),
        ("--clients 2 --framing send --size 101", End::Client(1)),
        ("--clients 2 --direction down", End::Peer),
    ] {
        let args = args(options);
        let mut run = Run::new(&args).expect("nothing is sent yet");
        run.traffic = traffic(options);
        run.payload[..STAMP_LEN].copy_from_slice(&stamp(1).bytes());
        let mut datagram = Vec::new();
        let at = run.frame_into(&mut datagram, from);
        assert_eq!(Stamp::parse(&datagram[at..]), Some(stamp(1)), "{options}");
    }
}

#[test]
fn what_cannot_be_flooded_is_refused_before_anything_is_sent() {
    let refusal = |options| check(&args(options)).expect_err("refused").to_string();
    assert!(refusal("--wire --direction echo").contains("--direction echo"));
    assert!(refusal("--pairs --clients 3").contains("--pairs"));
    let mut six = args("--wire");
    six.server = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 3478));
    let error = check(&six).expect_err("refused").to_string();
    assert!(error.contains("IPv4"), "{error}");
}
