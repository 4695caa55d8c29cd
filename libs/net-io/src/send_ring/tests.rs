//! Over loopback, in both families.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{MAX_RING, SendRing};
use crate::batch::{RecvBatch, SendBatch};
use crate::udp::{BindOptions, UdpSocket};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
/// As many datagrams fit into a queue as the system makes it.
const SOCKETS: usize = 128;

#[test]
fn every_socket_sends_its_own_in_one_go() {
    let Some(mut ring) = ring() else { return };
    for addr in LOOPBACKS {
        let target = socket(addr);
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| socket(addr)).collect();
        for round in 0..3_u8 {
            for (tag, from) in sockets.iter().enumerate() {
                let batch = batch(target.local_addr(), &[&[round; 100]]);
                ring.push(tag, from, batch).unwrap();
            }
            let mut tags = Vec::new();
            ring.submit(|departed| {
                departed.outcome.unwrap();
                assert!(departed.batch.is_empty());
                tags.push(departed.tag);
            })
            .unwrap();
            tags.sort_unstable();
            assert_eq!(tags, (0..SOCKETS).collect::<Vec<_>>());

            let mut arrived = receive(&target, SOCKETS);
            let mut expected: Vec<_> = sockets
                .iter()
                .map(|from| (from.local_addr(), vec![round; 100]))
                .collect();
            arrived.sort();
            expected.sort();
            assert_eq!(arrived, expected);
        }
    }
}

#[test]
fn a_connected_socket_sends_to_its_peer() {
    let Some(mut ring) = ring() else { return };
    for addr in LOOPBACKS {
        let (target, first) = (socket(addr), socket(addr));
        let connected = first.connected(target.local_addr()).unwrap();
        for (tag, from) in [&first, &connected].into_iter().enumerate() {
            let batch = batch(target.local_addr(), &[b"hello"]);
            ring.push(tag, from, batch).unwrap();
        }
        ring.submit(|departed| departed.outcome.unwrap()).unwrap();
        let arrived = receive(&target, 2);
        assert_eq!(arrived, vec![(first.local_addr(), b"hello".to_vec()); 2]);
    }
}

#[test]
fn what_the_system_refuses_is_told_and_keeps_nothing_back() {
    let Some(mut ring) = ring() else { return };
    for addr in LOOPBACKS {
        let (target, from) = (socket(addr), socket(addr));
        let nowhere = SocketAddr::new(target.local_addr().ip(), 0);
        for (tag, to) in [(1, nowhere), (2, target.local_addr()), (3, nowhere)] {
            ring.push(tag, &from, batch(to, &[b"x"])).unwrap();
        }
        let mut outcomes = Vec::new();
        ring.submit(|departed| outcomes.push((departed.tag, departed.outcome.is_ok())))
            .unwrap();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [(1, false), (2, true), (3, false)]);
        assert_eq!(receive(&target, 1)[0].1, b"x");
    }
}

#[test]
fn more_than_one_datagram_and_more_than_there_is_room_for_come_back() {
    let Some(mut ring) = ring() else { return };
    let (target, from) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let to = target.local_addr();
    let train = ring.push(0, &from, batch(to, &[b"1", b"2"])).unwrap_err();
    assert_eq!(train.len(), 2);
    let empty = ring.push(0, &from, batch(to, &[])).unwrap_err();
    assert!(empty.is_empty());
    // A wildcard socket has to be told the address to send from.
    let any = socket("0.0.0.0:0");
    let mut told = Box::new(SendBatch::new());
    assert!(told.push(to, Ipv4Addr::LOCALHOST.into(), &[b"x"]));
    assert!(ring.push(0, &any, told).is_err());
    for tag in 0..MAX_RING {
        ring.push(tag, &from, batch(to, &[b"x"])).unwrap();
    }
    assert!(ring.push(0, &from, batch(to, &[b"x"])).is_err());
    let mut count = 0;
    ring.submit(|_| count += 1).unwrap();
    assert_eq!(count, MAX_RING);
    ring.submit(|_| panic!("nothing was pushed")).unwrap();
}

#[test]
fn a_ring_that_is_dropped_drops_what_waits() {
    let Some(mut ring) = ring() else { return };
    let (target, from) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    ring.push((), &from, batch(target.local_addr(), &[b"never sent"]))
        .unwrap();
    drop(ring);
    let mut into = RecvBatch::new(1, 100);
    assert_eq!(target.recv_batch(&mut into).unwrap(), 0);
}

/// None where the system has none, or forbids it, which is said aloud: that is no part that could be installed. Any other
/// failure is one.
fn ring<T>() -> Option<SendRing<T>> {
    match SendRing::new() {
        Ok(ring) => Some(ring),
        Err(error)
            if error.kind() == ErrorKind::Unsupported
                || matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::EACCES | libc::ENOSYS)
                ) =>
        {
            eprintln!("SKIPPED, nothing was tested: no io_uring here: {error}");
            None
        }
        Err(error) => panic!("no io_uring here: {error}"),
    }
}

fn batch(to: SocketAddr, datagrams: &[&[u8]]) -> Box<SendBatch> {
    let mut batch = Box::new(SendBatch::new());
    for bytes in datagrams {
        assert!(batch.push(to, ANY, &[bytes]));
    }
    batch
}

fn socket(addr: &str) -> UdpSocket {
    UdpSocket::bind(addr.parse().unwrap(), &BindOptions::default()).unwrap()
}

/// What has arrived, at once or soon.
fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut into = RecvBatch::new(32, 1500);
    let mut all = Vec::new();
    for _ in 0..2000 {
        match socket.recv_batch(&mut into) {
            Ok(0) if all.len() >= count => break,
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) => all.extend(into.iter().map(|d| (d.from, d.bytes.to_vec()))),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
    assert_eq!(all.len(), count);
    all
}
