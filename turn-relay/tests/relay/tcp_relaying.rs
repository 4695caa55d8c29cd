//! TCP allocations (RFC 6062) with real connections: bytes both ways, ends, bounds, and every metric
//! of connections with peers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use turn_relay::{Config, Scheme};

use crate::client::{Client, connect};
use crate::harness::{PATIENCE, TestRelay, V4, V6, config, start};
use crate::tls::{tls, tls_config};

const MIB: usize = 1024 * 1024;

#[test]
fn bytes_cross_both_ways_and_each_end_is_passed_on_alone() {
    let relay = start(relaying());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, relayed) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    assert_eq!(answer.error, None);
    let (mut at_peer, from) = accept(&peer);
    assert_eq!(from, relayed, "RFC 6062 §5.2: from the relayed address");
    let (mut data, early) = data_connection(&relay, answer.connection());
    assert_eq!(early, b"");

    let question = pattern(3 * MIB, 1);
    let writer = {
        let (mut data, question) = (data.try_clone().unwrap(), question.clone());
        thread::spawn(move || {
            data.write_all(&question).unwrap();
            data.shutdown(Shutdown::Write).unwrap();
        })
    };
    // The peer answers after it has read the end: that end was passed on and the other half lives.
    assert_eq!(read_to_end(&mut at_peer), question);
    writer.join().unwrap();
    let answer = pattern(2 * MIB, 2);
    let writer = {
        let answer = answer.clone();
        thread::spawn(move || at_peer.write_all(&answer).unwrap())
    };
    assert_eq!(read_to_end(&mut data), answer);
    writer.join().unwrap();

    relay.expect(&ended("finished"), 1.0);
    relay.expect("rallypoint_turn_peer_connections", 0.0);
    assert_eq!(relay.metric(&connects("connected")), 1.0);
    assert_eq!(relay.metric(&opened("connect")), 1.0);
    let bytes = "rallypoint_turn_relayed_bytes_total";
    let of = |direction| format!("{bytes}{{direction=\"{direction}\",framing=\"connection\"}}");
    assert_eq!(relay.metric(&of("to_peer")), 3.0 * 1024.0 * 1024.0);
    assert_eq!(relay.metric(&of("to_client")), 2.0 * 1024.0 * 1024.0);
    // The control connection is as it was.
    assert_eq!(control.refresh(600).error, None);
}

#[test]
fn a_peer_that_comes_by_itself_is_announced_and_its_first_bytes_wait() {
    let relay = start(relaying());
    let (mut control, relayed) = allocated(&relay);
    // RFC 6062 §5.3: without a permission it is closed at once.
    let mut stranger = connect(relayed);
    assert_eq!(read_to_end(&mut stranger), b"");
    relay.expect(&refused("no_permission"), 1.0);

    control.permit(SocketAddr::new(V4, 9));
    let mut at_peer = connect(relayed);
    at_peer.write_all(b"first words").unwrap();
    let (peer, connection) = control.connection_attempt();
    assert_eq!(peer, at_peer.local_addr().unwrap());
    relay.expect("rallypoint_turn_peer_connections", 1.0);
    let (mut data, early) = data_connection(&relay, connection);
    let mut heard = early;
    while heard.len() < 11 {
        let mut buffer = [0; 64];
        let len = data.read(&mut buffer).unwrap();
        heard.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(heard, b"first words");
    data.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    at_peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    assert_eq!(relay.metric(&opened("peer")), 1.0);

    // RFC 6062 §5.5: with the allocation everything ends.
    assert_eq!(control.refresh(0).error, None);
    assert_eq!(read_to_end(&mut at_peer), b"");
    assert_eq!(read_to_end(&mut data), b"");
    relay.expect(&ended("allocation_ended"), 1.0);
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"peer_ended\"}",
        1.0,
    );
    let nobody = TcpStream::connect(relayed).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn pion_connect_to_a_closed_port_does_not_hang_later_allocations() {
    let relay = start(relaying());
    let (mut control, _) = allocated(&relay);
    let closed = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    assert_eq!(control.connect_peer(closed).error, Some(447));
    assert_eq!(relay.metric(&connects("failed")), 1.0);
    for _ in 0..3 {
        allocated(&relay);
    }
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = control.connect_peer(peer.local_addr().unwrap());
    assert_eq!(answer.error, None);
}

#[test]
fn off_by_default() {
    let relay = start(config());
    assert_eq!(Client::tcp(relay.tcp()).try_allocate_tcp().error, Some(442));
}

#[test]
fn two_players_meet_on_their_relayed_addresses() {
    for ip in [V4, V6] {
        let relay = start(relaying());
        let listener = relay.addr(Scheme::Tcp, ip);
        let (mut alice, mut bob) = (Client::tcp(listener), Client::tcp(listener));
        let (from, to) = if ip == V4 {
            (alice.allocate_tcp(), bob.allocate_tcp())
        } else {
            (alice.allocate_tcp_v6(), bob.allocate_tcp_v6())
        };
        bob.permit(from);
        let answer = alice.connect_peer(to);
        assert_eq!(answer.error, None);
        let (peer, connection) = bob.connection_attempt();
        assert_eq!(peer, from);
        let data = |connection| {
            let socket = connect(listener);
            Client::stream(socket.try_clone().unwrap()).bind_connection(connection);
            socket
        };
        let (mut of_alice, mut of_bob) = (data(answer.connection()), data(connection));
        of_alice.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        of_bob.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        drop(of_bob);
        assert_eq!(read_to_end(&mut of_alice), b"");
    }
}

/// Sources meet a shard each, and a listener of one shard is a peer for the others.
#[test]
fn players_on_different_shards_meet() {
    let mut config = relaying();
    config.threads = 4;
    let relay = start(config);
    let from = |n: u8| connect_from([127, 0, 0, n].into(), relay.tcp());
    let mut alice = Client::stream(from(1));
    alice.allocate_tcp();
    for n in 2..10 {
        let mut bob = Client::stream(from(n));
        let to = bob.allocate_tcp();
        bob.permit(SocketAddr::new(V4, 9));
        let answer = alice.connect_peer(to);
        assert_eq!(answer.error, None);
        let (_, connection) = bob.connection_attempt();
        let (mut of_alice, mut of_bob) = (from(1), from(n));
        Client::stream(of_alice.try_clone().unwrap()).bind_connection(answer.connection());
        Client::stream(of_bob.try_clone().unwrap()).bind_connection(connection);
        of_alice.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        of_bob.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
    }
}

#[test]
fn bytes_right_behind_the_request_are_the_peers() {
    let relay = start(relaying());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (mut at_peer, _) = accept(&peer);
    let socket = connect(relay.tcp());
    let mut client = Client::stream(socket.try_clone().unwrap());
    client.greet();
    client.send_behind_next(b"hasty");
    assert_eq!(client.try_bind_connection(answer.connection()).error, None);
    let mut hasty = [0; 5];
    at_peer.read_exact(&mut hasty).unwrap();
    assert_eq!(&hasty, b"hasty");
}

#[test]
fn data_connections_may_be_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, certificate) = tls_config(folder.path());
    unbound(&mut config);
    let relay = start(config);
    let addr = relay.addr(Scheme::Tls, V4);
    let connect_tls = || Client::stream(tls(addr, &certificate, b"stun.turn"));
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut control = connect_tls();
    control.allocate_tcp();
    let answer = control.connect_peer(peer.local_addr().unwrap());
    assert_eq!(answer.error, None);
    let (mut at_peer, _) = accept(&peer);
    let (mut data, early) = connect_tls().bind_connection(answer.connection());
    assert_eq!(early, b"");
    let sent = pattern(MIB, 3);
    let echo = thread::spawn(move || {
        let mut heard = vec![0; MIB];
        at_peer.read_exact(&mut heard).unwrap();
        at_peer.write_all(&heard).unwrap();
    });
    let mut back = Vec::new();
    for chunk in sent.chunks(16 * 1024) {
        data.write_all(chunk).unwrap();
        data.flush().unwrap();
    }
    // The echo closes behind its last byte; TLS says so with close_notify, or this were an error.
    data.read_to_end(&mut back).unwrap();
    assert_eq!(back, sent);
    echo.join().unwrap();
    drop(data);
    relay.expect("rallypoint_turn_peer_connections", 0.0);
}

#[test]
fn a_slow_peer_slows_its_client_down_and_loses_nothing() {
    let relay = start(relaying());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (mut at_peer, _) = accept(&peer);
    let (mut data, _) = data_connection(&relay, answer.connection());
    let sent = fill(&mut data);
    // The queues of two sockets, twice, and our own; not what the client would like to send.
    assert!(sent < 16 * MIB, "{sent} bytes were taken");
    // Others are served meanwhile.
    allocated(&relay);
    data.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut at_peer).len(), sent);
    drop((at_peer, data));
    relay.expect(&ended("finished"), 1.0);
}

#[test]
fn a_connection_that_stands_still_is_cut_off() {
    let mut config = relaying();
    config.streams.stalled = Duration::from_secs(1);
    let relay = start(config);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (deaf, _) = accept(&peer);
    let (mut data, _) = data_connection(&relay, answer.connection());
    fill(&mut data);
    relay.expect(&ended("stalled"), 1.0);
    assert!(data.write_all(&[0; 100]).is_err() || data.read(&mut [0]).is_ok());
    drop(deaf);
    assert_eq!(control.refresh(600).error, None);
}

#[test]
fn nobody_waits_for_ever() {
    let mut config = relaying();
    config.lifetime.connect = Duration::from_secs(1);
    config.lifetime.unclaimed = Duration::from_secs(1);
    let relay = start(config);
    let (mut control, _) = allocated(&relay);
    // A connection that no ConnectionBind claims.
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = control.connect_peer(peer.local_addr().unwrap());
    assert_eq!(answer.error, None);
    let (mut at_peer, _) = accept(&peer);
    assert_eq!(read_to_end(&mut at_peer), b"");
    relay.expect(&ended("unclaimed"), 1.0);
    // A peer that does not answer: its queue is full.
    let Some((mute, _full)) = mute_listener() else {
        eprintln!("SKIPPED nobody_waits_for_ever (its half): this system has no full queues");
        return;
    };
    assert_eq!(control.connect_peer(mute).error, Some(447));
    relay.expect(&connects("timed_out"), 1.0);
    // And one whose client gives up first.
    control.ask_to_connect(mute);
    relay.expect("rallypoint_turn_peer_connections", 1.0);
    drop(control);
    relay.expect(&connects("abandoned"), 1.0);
    relay.expect("rallypoint_turn_peer_connections", 0.0);
}

#[test]
fn an_end_that_breaks_ends_the_other() {
    let relay = start(relaying());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    for (who, counted) in [("peer", "peer_lost"), ("client", "client_lost")] {
        let answer = control.connect_peer(peer.local_addr().unwrap());
        assert_eq!(answer.error, None);
        let (at_peer, _) = accept(&peer);
        let (data, _) = data_connection(&relay, answer.connection());
        let (breaks, mut stays) = if who == "peer" {
            (at_peer, data)
        } else {
            (data, at_peer)
        };
        socket2::SockRef::from(&breaks)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(breaks);
        relay.expect(&ended(counted), 1.0);
        let mut rest = Vec::new();
        let over = stays.read_to_end(&mut rest);
        assert!(over.is_ok() || over.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    }
    assert_eq!(control.refresh(600).error, None);
}

#[test]
fn new_rules_end_connections_they_refuse() {
    let config = relaying();
    let mut relay = start(config.clone());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (mut at_peer, _) = accept(&peer);
    let (mut data, _) = data_connection(&relay, answer.connection());
    let mut stricter = config;
    stricter.peers.min_port = u16::MAX;
    relay.server().reload(stricter).unwrap();
    relay.expect(&ended("peer_denied"), 1.0);
    assert_eq!(read_to_end(&mut at_peer), b"");
    assert_eq!(read_to_end(&mut data), b"");
}

#[test]
fn peers_who_are_too_many_or_refused_are_closed_at_once() {
    let mut config = relaying();
    config.quota.peer_connections_per_allocation = 1;
    let mut relay = start(config.clone());
    let (mut control, relayed) = allocated(&relay);
    control.permit(SocketAddr::new(V4, 9));
    let _first = connect(relayed);
    control.connection_attempt();
    assert_eq!(read_to_end(&mut connect(relayed)), b"");
    relay.expect(&refused("full"), 1.0);
    let quota = "rallypoint_turn_quota_rejections_total{quota=\"peer_connections\"}";
    relay.expect(quota, 1.0);
    config.peers.min_port = u16::MAX;
    relay.server().reload(config).unwrap();
    relay.expect(&ended("peer_denied"), 1.0);
    assert_eq!(read_to_end(&mut connect(relayed)), b"");
    relay.expect(&refused("peer_denied"), 1.0);
}

#[test]
fn bandwidth_holds_connections_back() {
    let mut config = relaying();
    config.quota.bandwidth_per_allocation = Some(100_000);
    let relay = start(config);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (mut at_peer, _) = accept(&peer);
    let (mut data, _) = data_connection(&relay, answer.connection());
    let sent = pattern(250_000, 4);
    let writer = thread::spawn({
        let sent = sent.clone();
        move || data.write_all(&sent).unwrap()
    });
    // All of it arrives, and it had to wait on the way.
    assert_eq!(read_to_end(&mut at_peer), sent);
    writer.join().unwrap();
    let held_back = "rallypoint_turn_quota_rejections_total{quota=\"bandwidth\"}";
    relay.wait_until(held_back, |n| n > 0.0);
}

#[test]
fn data_connections_count_among_those_of_their_address() {
    let mut config = relaying();
    config.streams.connections_per_address = 2;
    let relay = start(config);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let _data = data_connection(&relay, answer.connection());
    Client::tcp(relay.tcp()).expect_closed();
    relay.expect(
        "rallypoint_turn_connections_refused_total{reason=\"address_limit\"}",
        1.0,
    );
}

#[test]
fn control_and_data_meet_on_one_of_several_shards() {
    let mut config = relaying();
    config.threads = 4;
    let relay = start(config);
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..12 {
        let (mut control, _) = allocated(&relay);
        let answer = control.connect_peer(peer.local_addr().unwrap());
        assert_eq!(answer.error, None);
        let (mut at_peer, _) = accept(&peer);
        let (mut data, _) = data_connection(&relay, answer.connection());
        data.write_all(b"x").unwrap();
        at_peer.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn stopping_ends_every_connection() {
    let mut relay = start(relaying());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut control, _) = allocated(&relay);
    let answer = control.connect_peer(peer.local_addr().unwrap());
    let (mut at_peer, _) = accept(&peer);
    let (mut data, _) = data_connection(&relay, answer.connection());
    relay.shutdown();
    assert_eq!(read_to_end(&mut at_peer), b"");
    assert_eq!(read_to_end(&mut data), b"");
}

fn relaying() -> Config {
    let mut config = config();
    unbound(&mut config);
    config
}

/// TCP allocations, as fast as they go.
fn unbound(config: &mut Config) {
    config.protocol.tcp_relaying = true;
    config.quota.bandwidth_per_allocation = None;
    config.quota.bandwidth_per_user = None;
}

fn allocated(relay: &TestRelay) -> (Client, SocketAddr) {
    let mut control = Client::tcp(relay.tcp());
    let relayed = control.allocate_tcp();
    (control, relayed)
}

/// A client connection that carries the data of `connection`, and what came behind the answer.
fn data_connection(relay: &TestRelay, connection: u32) -> (TcpStream, Vec<u8>) {
    let socket = connect(relay.tcp());
    let client = Client::stream(socket.try_clone().unwrap());
    let (_, early) = client.bind_connection(connection);
    (socket, early)
}

fn connect_from(source: IpAddr, relay: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};

    let socket = Socket::new(Domain::for_address(relay), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&relay.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

fn accept(peer: &TcpListener) -> (TcpStream, SocketAddr) {
    let (socket, from) = peer.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    (socket, from)
}

fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Writes until nothing more is taken for a while.
fn fill(socket: &mut TcpStream) -> usize {
    socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    loop {
        match socket.write(&[7; 16 * 1024]) {
            Ok(len) if sent < 64 * MIB => sent += len,
            Ok(_) => panic!("nothing holds the client back"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return sent;
            }
        }
    }
}

/// A listener whose queue is full, so that it answers nobody, and what fills it.
fn mute_listener() -> Option<(SocketAddr, Vec<socket2::Socket>)> {
    use socket2::{Domain, Socket, Type};

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let mut kept = vec![listener];
    for _ in 0..8 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let full = socket.connect_timeout(&addr.into(), Duration::from_millis(300));
        kept.push(socket);
        if full.is_err() {
            return Some((addr, kept));
        }
    }
    None
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..=250_u8).cycle().skip(seed).take(len).collect()
}

fn ended(reason: &str) -> String {
    format!("rallypoint_turn_peer_connections_ended_total{{reason=\"{reason}\"}}")
}

fn connects(outcome: &str) -> String {
    format!("rallypoint_turn_peer_connects_total{{outcome=\"{outcome}\"}}")
}

fn opened(origin: &str) -> String {
    format!("rallypoint_turn_peer_connections_total{{origin=\"{origin}\"}}")
}

fn refused(reason: &str) -> String {
    format!("rallypoint_turn_peer_connections_refused_total{{reason=\"{reason}\"}}")
}
