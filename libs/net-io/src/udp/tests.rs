//! The same claims for both back ends, over loopback, in both families.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::{Backend, BindOptions, UdpSocket};
use crate::batch::{MAX_BATCH, MAX_DATAGRAM, RecvBatch, SendBatch};

const BACKENDS: [Backend; 2] = [Backend::Native, Backend::Portable];
const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Long enough for the slowest machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_batch_arrives_whole_and_in_order() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        let mut batch = SendBatch::new();
        for number in 0..20_u8 {
            let payload = vec![number; usize::from(number) * 50];
            assert!(batch.push(b.local_addr(), ANY, &[&[number], &payload]));
        }
        let report = a.send_batch(&mut batch);
        assert_eq!((report.sent, report.dropped()), (20, 0));
        assert_eq!(report.sent_bytes, 20 + (0..20).sum::<usize>() * 50);
        assert!(batch.is_empty());

        let received = receive(&mut b, 20);
        for (number, (from, local, bytes)) in (0_u8..).zip(&received) {
            assert_eq!(*from, a.local_addr());
            assert_eq!(*local, b.local_addr());
            assert_eq!(bytes.len(), 1 + usize::from(number) * 50);
            assert!(bytes.iter().all(|byte| *byte == number));
        }
    }
}

#[test]
fn empty_and_largest_datagrams_arrive() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        // 65,507 bytes is the most that IPv4 takes.
        let large = vec![0xA5; 65_507];
        let mut batch = SendBatch::new();
        assert!(batch.push(b.local_addr(), ANY, &[]));
        assert!(batch.push(b.local_addr(), ANY, &[&large]));
        assert_eq!(a.send_batch(&mut batch).sent, 2);
        let received = receive(&mut b, 2);
        assert_eq!(received[0].2, b"");
        assert_eq!(received[1].2, large);
    }
}

#[test]
fn datagrams_longer_than_a_slot_are_counted_and_not_shown() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        let mut batch = SendBatch::new();
        for bytes in [&[1_u8; 100][..], &[2; 101], &[3; 1000], &[4; 99]] {
            assert!(batch.push(b.local_addr(), ANY, &[bytes]));
        }
        assert_eq!(a.send_batch(&mut batch).sent, 4);
        wait_readable(&mut b);
        let mut into = RecvBatch::new(MAX_BATCH, 100);
        let mut shown = Vec::new();
        let (mut taken, mut truncated) = (0, 0);
        while taken < 4 {
            taken += b.recv_batch(&mut into).unwrap();
            truncated += into.truncated();
            shown.extend(into.iter().map(|datagram| datagram.bytes.to_vec()));
        }
        assert_eq!(shown, [vec![1; 100], vec![4; 99]]);
        assert_eq!(truncated, 2);
    }
}

#[test]
fn nothing_waiting_is_zero_and_not_an_error() {
    for (backend, addr) in every_combination() {
        let socket = socket(addr, backend);
        let mut into = RecvBatch::new(4, 1500);
        assert_eq!(socket.recv_batch(&mut into).unwrap(), 0);
        assert_eq!(into.iter().count(), 0);
    }
}

#[test]
fn a_full_batch_leaves_the_rest_for_the_next() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        let mut batch = SendBatch::new();
        for number in 0..10_u8 {
            assert!(batch.push(b.local_addr(), ANY, &[&[number]]));
        }
        assert_eq!(a.send_batch(&mut batch).sent, 10);
        wait_readable(&mut b);
        let mut into = RecvBatch::new(4, 1500);
        assert_eq!(into.capacity(), 4);
        assert_eq!(b.recv_batch(&mut into).unwrap(), 4);
        assert_eq!(b.recv_batch(&mut into).unwrap(), 4);
        assert_eq!(b.recv_batch(&mut into).unwrap(), 2);
        assert_eq!(
            into.iter()
                .map(|datagram| datagram.bytes[0])
                .collect::<Vec<_>>(),
            [8, 9]
        );
    }
}

#[test]
fn one_refused_datagram_does_not_keep_back_the_others() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        let mut batch = SendBatch::new();
        let port_zero = SocketAddr::new(b.local_addr().ip(), 0);
        let impossible = vec![0; MAX_DATAGRAM + 1];
        assert!(batch.push(b.local_addr(), ANY, &[b"first"]));
        assert!(batch.push(port_zero, ANY, &[b"nowhere"]));
        assert!(batch.push(b.local_addr(), ANY, &[&impossible]));
        assert!(batch.push(b.local_addr(), ANY, &[b"last"]));
        let report = a.send_batch(&mut batch);
        assert_eq!(report.sent, 2, "{backend:?} {addr}");
        assert_eq!(report.refused, 1);
        assert_eq!(report.too_large, 1);
        let received = receive(&mut b, 2);
        assert_eq!(received[0].2, b"first");
        assert_eq!(received[1].2, b"last");
    }
}

#[test]
fn an_unreachable_port_ends_nothing() {
    for (backend, addr) in every_combination() {
        let (mut a, b) = (socket(addr, backend), socket(addr, backend));
        let closed = b.local_addr();
        drop(b);
        let mut batch = SendBatch::new();
        for _ in 0..3 {
            assert!(batch.push(closed, ANY, &[b"anyone?"]));
            a.send_batch(&mut batch);
        }
        let b = socket(addr, backend);
        assert!(batch.push(a.local_addr(), ANY, &[b"still here"]));
        assert_eq!(b.send_batch(&mut batch).sent, 1);
        assert_eq!(receive(&mut a, 1)[0].2, b"still here");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn errors_of_the_network_are_told_of_and_cost_no_datagram() {
    for addr in LOOPBACKS {
        let options = BindOptions {
            send_trains: true,
            ..BindOptions::default()
        };
        let mut a = UdpSocket::bind(addr.parse().unwrap(), &options).unwrap();
        a.expect_errors().unwrap();
        let mut b = socket(addr, Backend::Native);
        let closed = {
            let gone = socket(addr, Backend::Native);
            gone.local_addr()
        };
        let mut batch = SendBatch::new();
        for number in 0..10_u8 {
            // On loopback the error is there before the call returns: one for each.
            for to in [closed, b.local_addr()] {
                assert!(batch.push(to, ANY, &[&[number; 8]]));
                let report = a.send_batch(&mut batch);
                assert_eq!((report.sent, report.dropped()), (1, 0), "{addr} {number}");
            }
        }
        let received = receive(&mut b, 10);
        assert!(
            (0..10_u8)
                .zip(&received)
                .all(|(number, (.., bytes))| *bytes == [number; 8])
        );
        // Receiving is not hindered either, by the errors that wait.
        assert!(batch.push(a.local_addr(), ANY, &[b"back"]));
        assert_eq!(b.send_batch(&mut batch).sent, 1);
        assert_eq!(receive(&mut a, 1)[0].2, b"back");

        let port_unreachable = if closed.is_ipv4() { (3, 3) } else { (1, 4) };
        for _ in 0..10 {
            let error = a.next_icmp_error().unwrap();
            assert_eq!(error.to, closed);
            assert_eq!((error.icmp_type, error.code), port_unreachable);
        }
        assert_eq!(a.next_icmp_error(), None);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_keeps_errors_once_it_is_told_to() {
    for addr in LOOPBACKS {
        let a = socket(addr, Backend::Native);
        let closed = socket(addr, Backend::Native).local_addr();
        let mut batch = SendBatch::new();
        let mut send = || {
            assert!(batch.push(closed, ANY, &[b"x"]));
            assert_eq!(a.send_batch(&mut batch).sent, 1, "{addr}");
        };
        send();
        assert_eq!(a.next_icmp_error(), None);
        a.expect_errors().unwrap();
        send();
        send();
        assert_eq!(a.next_icmp_error().unwrap().to, closed);
        assert_eq!(a.next_icmp_error().unwrap().to, closed);
        assert_eq!(a.next_icmp_error(), None);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_system_itself_refuses_is_no_error_of_the_network() {
    for addr in LOOPBACKS {
        let a = socket(addr, Backend::Native);
        a.expect_errors().unwrap();
        a.set_dont_fragment(true).unwrap();
        let mut batch = SendBatch::new();
        assert!(batch.push(a.local_addr(), ANY, &[&[0; MAX_DATAGRAM]]));
        assert_eq!(a.send_batch(&mut batch).too_large, 1, "{addr}");
        assert_eq!(a.next_icmp_error(), None);
    }
}

#[test]
fn six_and_four_share_a_port_because_six_is_six_only() {
    for backend in BACKENDS {
        let six = socket("[::]:0", backend);
        let port = six.local_addr().port();
        let options = BindOptions {
            backend,
            ..BindOptions::default()
        };
        UdpSocket::bind(SocketAddr::new(ANY, port), &options).unwrap();
    }
}

#[test]
fn a_port_in_use_is_an_error_unless_shared() {
    for backend in BACKENDS {
        let first = socket("127.0.0.1:0", backend);
        let options = BindOptions {
            backend,
            ..BindOptions::default()
        };
        let error = UdpSocket::bind(first.local_addr(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);

        let shared = BindOptions {
            backend,
            reuse_port: true,
            ..BindOptions::default()
        };
        let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
        UdpSocket::bind(first.local_addr(), &shared).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn shared_ports_keep_a_five_tuple_on_one_socket() {
    let shared = BindOptions {
        reuse_port: true,
        ..BindOptions::default()
    };
    let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
    let addr = first.local_addr();
    let mut shards = vec![first];
    for _ in 0..3 {
        shards.push(UdpSocket::bind(addr, &shared).unwrap());
    }
    let clients: Vec<_> = (0..32)
        .map(|_| socket("127.0.0.1:0", Backend::Native))
        .collect();
    let mut batch = SendBatch::new();
    for client in &clients {
        for _ in 0..5 {
            assert!(batch.push(addr, ANY, &[b"x"]));
        }
        assert_eq!(client.send_batch(&mut batch).sent, 5);
    }
    let mut into = RecvBatch::new(MAX_BATCH, 1500);
    let mut seen = std::collections::BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        while shard.recv_batch(&mut into).unwrap() > 0 {
            for datagram in into.iter() {
                let entry = seen.entry(datagram.from).or_insert((index, 0));
                assert_eq!(entry.0, index, "a 5-tuple moved between sockets");
                entry.1 += 1;
            }
        }
    }
    assert_eq!(seen.len(), 32);
    assert!(seen.values().all(|(_, count)| *count == 5));
}

#[test]
#[cfg(target_os = "linux")]
fn a_wildcard_socket_answers_from_the_address_asked() {
    let mut server = socket("0.0.0.0:0", Backend::Native);
    let port = server.local_addr().port();
    for asked in ["127.0.0.1", "127.0.0.2", "127.200.1.9"] {
        let mut client = socket("127.0.0.1:0", Backend::Native);
        echo_once(
            &mut server,
            &mut client,
            SocketAddr::new(asked.parse().unwrap(), port),
        );
    }
    let mut server = socket("[::]:0", Backend::Native);
    let port = server.local_addr().port();
    let mut client = socket("[::1]:0", Backend::Native);
    echo_once(
        &mut server,
        &mut client,
        SocketAddr::new("::1".parse().unwrap(), port),
    );
}

#[test]
#[cfg(target_os = "linux")]
fn overflow_of_the_receive_queue_is_counted_also_by_who_asks_later() {
    for lazy in [false, true] {
        let small = BindOptions {
            recv_buffer: Some(4096),
            lazy,
            ..BindOptions::default()
        };
        let server = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &small).unwrap();
        overflow_is_counted(&server, lazy);
    }
}

#[cfg(target_os = "linux")]
fn overflow_is_counted(server: &UdpSocket, lazy: bool) {
    let client = socket("127.0.0.1:0", Backend::Native);
    assert_eq!(server.overflow_drops(), 0);
    assert_eq!(server.drops_now().unwrap(), 0);
    let payload = [0; 1000];
    let mut batch = SendBatch::new();
    for _ in 0..2 {
        for _ in 0..MAX_BATCH {
            assert!(batch.push(server.local_addr(), ANY, &[&payload]));
        }
        assert_eq!(client.send_batch(&mut batch).sent, MAX_BATCH);
    }
    if lazy {
        server.expect_queue().unwrap();
    }
    // The count travels with datagrams queued after the loss: drain, and ask with one more.
    let mut into = RecvBatch::new(MAX_BATCH, 1500);
    let mut taken = 0;
    loop {
        let count = server.recv_batch(&mut into).unwrap();
        if count == 0 {
            break;
        }
        taken += count;
    }
    let dropped = 2 * MAX_BATCH - taken;
    assert_eq!(usize::try_from(server.drops_now().unwrap()), Ok(dropped));
    assert!(batch.push(server.local_addr(), ANY, &[b"after"]));
    assert_eq!(client.send_batch(&mut batch).sent, 1);
    assert_eq!(server.recv_batch(&mut into).unwrap(), 1);
    assert_eq!(server.overflow_drops(), (2 * MAX_BATCH - taken) as u64);
    assert!(server.overflow_drops() > 0);
}

#[test]
fn a_full_send_queue_drops_and_says_so() {
    // A queue smaller than the datagram has room for none: the system takes it or would block.
    let options = BindOptions {
        send_buffer: Some(1),
        ..BindOptions::default()
    };
    let a = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let sink = socket("127.0.0.1:0", Backend::Native);
    let payload = vec![0; 60_000];
    let mut batch = SendBatch::new();
    while batch.push(sink.local_addr(), ANY, &[&payload]) {}
    let pushed = batch.len();
    let report = a.send_batch(&mut batch);
    assert_eq!(report.sent + report.dropped(), pushed);
    assert_eq!(report.refused, 0);
}

#[test]
#[cfg(target_os = "linux")]
fn the_dont_fragment_bit_makes_an_oversized_datagram_too_large() {
    for addr in LOOPBACKS {
        let (a, mut b) = (socket(addr, Backend::Native), socket(addr, Backend::Native));
        // Loopback takes 65,536 bytes with all headers, so 65,507 fits IPv4 and with IPv6 too.
        a.set_dont_fragment(true).unwrap();
        let mut batch = SendBatch::new();
        assert!(batch.push(b.local_addr(), ANY, &[&[0; 1200]]));
        let large = vec![0; MAX_DATAGRAM];
        assert!(batch.push(b.local_addr(), ANY, &[&large]));
        let report = a.send_batch(&mut batch);
        assert_eq!((report.sent, report.too_large), (1, 1), "{addr}");
        a.set_dont_fragment(false).unwrap();
        assert!(batch.push(b.local_addr(), ANY, &[b"x"]));
        assert_eq!(a.send_batch(&mut batch).sent, 1);
        assert_eq!(receive(&mut b, 2)[1].2, b"x");
    }
}

#[test]
fn a_registered_socket_tells_of_datagrams() {
    for (backend, addr) in every_combination() {
        let (a, mut b) = (socket(addr, backend), socket(addr, backend));
        let mut poll = Poll::new().unwrap();
        poll.registry()
            .register(&mut b, Token(7), Interest::READABLE)
            .unwrap();
        let mut batch = SendBatch::new();
        assert!(batch.push(b.local_addr(), ANY, &[b"hello"]));
        assert_eq!(a.send_batch(&mut batch).sent, 1);
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(
            events
                .iter()
                .any(|event| event.token() == Token(7) && event.is_readable())
        );
    }
}

#[test]
fn trains_arrive_as_the_datagrams_they_are_made_of() {
    for addr in LOOPBACKS {
        let (a, mut b) = train_sockets(addr.parse().unwrap());
        let mut batch = SendBatch::new();
        // Two trains through one another, each with a shorter end, and what can be in no train.
        let other = socket(addr, Backend::Native);
        for number in 0..40_u8 {
            assert!(batch.push(b.local_addr(), ANY, &[&[number], &[1; 99]]));
            assert!(batch.push(other.local_addr(), ANY, &[&[number], &[2; 49]]));
        }
        for bytes in [&[40_u8; 7][..], &[41; 3000], &[], &[42; 1]] {
            assert!(batch.push(b.local_addr(), ANY, &[bytes]));
        }
        let report = a.send_batch(&mut batch);
        assert_eq!((report.sent, report.dropped()), (84, 0), "{addr}");
        assert_eq!(report.sent_bytes, 40 * 150 + 7 + 3000 + 1);

        let received = receive(&mut b, 44);
        let lengths: Vec<usize> = received.iter().map(|(.., bytes)| bytes.len()).collect();
        assert_eq!(lengths, [vec![100; 40], vec![7, 3000, 0, 1]].concat());
        let ends = (a.local_addr(), b.local_addr());
        assert!(
            received
                .iter()
                .all(|(from, local, _)| (*from, *local) == ends)
        );
        let numbers: Vec<u8> = received
            .iter()
            .filter_map(|(.., bytes)| bytes.first().copied())
            .collect();
        assert_eq!(numbers, (0..=42).collect::<Vec<_>>());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_connected_socket_is_for_its_peer_and_the_first_for_everybody_else() {
    for addr in LOOPBACKS {
        let (mut first, mut peer) = train_sockets(addr.parse().unwrap());
        let mut other = socket(addr, Backend::Native);
        let ours = first.local_addr();
        let mut connected = first.connected(peer.local_addr()).unwrap();
        assert_eq!(connected.local_addr(), ours);

        // One datagram, and trains and others by one call.
        let mut batch = SendBatch::new();
        assert!(batch.push(peer.local_addr(), ANY, &[b"one"]));
        assert_eq!(connected.send_batch(&mut batch).sent, 1);
        for number in 0..20 {
            assert!(batch.push(peer.local_addr(), ANY, &[&[number; 50]]));
        }
        assert!(batch.push(peer.local_addr(), ANY, &[&[20; 3000]]));
        assert_eq!(connected.send_batch(&mut batch).sent, 21);
        let received = receive(&mut peer, 22);
        assert!(received.iter().all(|(from, ..)| *from == ours));

        let say = |from: &UdpSocket, text: &[u8]| {
            let mut batch = SendBatch::new();
            assert!(batch.push(ours, ANY, &[text]));
            assert_eq!(from.send_batch(&mut batch).sent, 1);
        };
        say(&peer, b"peer");
        say(&other, b"other");
        assert_eq!(receive(&mut connected, 1)[0].2, b"peer");
        assert_eq!(receive(&mut first, 1)[0].2, b"other");
        assert!(batch.push(other.local_addr(), ANY, &[b"by the first"]));
        assert_eq!(first.send_batch(&mut batch).sent, 1);
        assert_eq!(receive(&mut other, 1)[0].0, ours);

        drop(connected);
        say(&peer, b"peer again");
        assert_eq!(receive(&mut first, 1)[0].2, b"peer again");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_else_binds_the_address_of_a_connected_socket() {
    for addr in LOOPBACKS {
        let (first, peer) = train_sockets(addr.parse().unwrap());
        let connected = first.connected(peer.local_addr()).unwrap();
        let bind = |reuse: bool| {
            let domain = socket2::Domain::for_address(first.local_addr());
            let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
            socket.set_reuse_address(reuse)?;
            socket.set_reuse_port(reuse)?;
            socket.bind(&first.local_addr().into())
        };
        for reuse in [false, true] {
            assert_eq!(bind(reuse).unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        drop(connected);
        assert_eq!(bind(true).unwrap_err().kind(), ErrorKind::AddrInUse);
        // And it can have another.
        first.connected(peer.local_addr()).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_connected_socket_keeps_errors_of_the_network() {
    for addr in LOOPBACKS {
        let (first, peer) = train_sockets(addr.parse().unwrap());
        let closed = peer.local_addr();
        let connected = first.connected(closed).unwrap();
        drop(peer);
        let mut batch = SendBatch::new();
        assert!(batch.push(closed, ANY, &[b"anybody?"]));
        assert_eq!(connected.send_batch(&mut batch).sent, 1);
        let began = crate::clock::mono();
        let error = loop {
            match connected.next_icmp_error() {
                Some(error) => break error,
                None => assert!(began.elapsed() < PATIENCE, "no error came"),
            }
        };
        assert_eq!(error.to, closed);
    }
}

/// Sockets that pass trains on as trains, where the system has them.
fn train_sockets(addr: SocketAddr) -> (UdpSocket, UdpSocket) {
    let options = BindOptions {
        receive_trains: true,
        send_trains: true,
        ..BindOptions::default()
    };
    let bind = || UdpSocket::bind(addr, &options).unwrap();
    (bind(), bind())
}

fn every_combination() -> impl Iterator<Item = (Backend, &'static str)> {
    BACKENDS
        .into_iter()
        .flat_map(|backend| LOOPBACKS.map(|addr| (backend, addr)))
}

fn socket(addr: &str, backend: Backend) -> UdpSocket {
    let options = BindOptions {
        backend,
        recv_buffer: Some(1 << 20),
        ..BindOptions::default()
    };
    UdpSocket::bind(addr.parse().unwrap(), &options).unwrap()
}

fn wait_readable(socket: &mut UdpSocket) {
    let mut poll = Poll::new().unwrap();
    poll.registry()
        .register(socket, Token(0), Interest::READABLE)
        .unwrap();
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(PATIENCE)).unwrap();
    poll.registry().deregister(socket).unwrap();
    assert!(!events.is_empty(), "nothing came");
}

/// Receives until `count` datagrams are there.
fn receive(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut into = RecvBatch::new(MAX_BATCH, MAX_DATAGRAM);
    let mut all = Vec::new();
    while all.len() < count {
        wait_readable(socket);
        socket.recv_batch(&mut into).unwrap();
        all.extend(into.iter().map(|d| (d.from, d.local, d.bytes.to_vec())));
    }
    assert_eq!(all.len(), count);
    all
}

/// `client` asks `server` at `asked`; the answer must come from there.
#[cfg(target_os = "linux")]
fn echo_once(server: &mut UdpSocket, client: &mut UdpSocket, asked: SocketAddr) {
    let mut batch = SendBatch::new();
    assert!(batch.push(asked, ANY, &[b"who are you?"]));
    assert_eq!(client.send_batch(&mut batch).sent, 1);
    let (from, local, bytes) = receive(server, 1).remove(0);
    assert_eq!(local, asked);
    assert!(batch.push(from, local.ip(), &[&bytes]));
    assert_eq!(server.send_batch(&mut batch).sent, 1);
    assert_eq!(receive(client, 1)[0].0, asked);
}
