//! Which of several sockets on one port a packet goes to.
//!
//! By itself the system spreads 5-tuples. A server whose shards share nothing wants more: everything of one source
//! on one shard, because a client may refer on one socket to what it was given on another (RFC 8656 §7.2: a
//! reservation token), and limits of a source are kept where the source is served.

use std::io;

/// Gives the group of `sockets` that share a port its program, by way of one of them.
#[cfg(target_os = "linux")]
pub(crate) fn by_source(
    one: &impl std::os::fd::AsRawFd,
    is_ipv6: bool,
    sockets: u32,
) -> io::Result<()> {
    let mut program = linux::program(is_ipv6, sockets.max(1));
    crate::udp::linux::attach_reuseport_program(one.as_raw_fd(), &mut program)
}

/// Elsewhere the system's own spreading holds.
#[cfg(not(target_os = "linux"))]
pub(crate) fn by_source<S>(_one: &S, _is_ipv6: bool, _sockets: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::sock_filter;

    use crate::bpf::{LOAD_WORD, MODULO, MULTIPLY, RETURN_A, SHIFT_RIGHT, STORE_IN_X, XOR_X};

    /// Offsets from here on count from the network header (linux/filter.h: SKF_NET_OFF, -0x100000).
    const NETWORK_HEADER: u32 = 0xfff0_0000;

    /// Loads the source (or the halves of its /64, folded), mixes it, and answers with the number of a socket.
    pub(super) fn program(is_ipv6: bool, sockets: u32) -> Vec<sock_filter> {
        let mut program = if is_ipv6 {
            vec![
                instruction(LOAD_WORD, NETWORK_HEADER + 8),
                instruction(STORE_IN_X, 0),
                instruction(LOAD_WORD, NETWORK_HEADER + 12),
                instruction(XOR_X, 0),
            ]
        } else {
            vec![instruction(LOAD_WORD, NETWORK_HEADER + 12)]
        };
        program.extend([
            // Knuth's multiplicative hash: neighbours in one subnet are spread.
            instruction(MULTIPLY, 0x9e37_79b1),
            instruction(SHIFT_RIGHT, 16),
            instruction(MODULO, sockets),
            instruction(RETURN_A, 0),
        ]);
        program
    }

    fn instruction(code: u16, k: u32) -> sock_filter {
        sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    use crate::{BindOptions, RecvBatch, UdpSocket};

    fn group(count: u32) -> Vec<UdpSocket> {
        let options = BindOptions {
            reuse_port: true,
            ..BindOptions::default()
        };
        let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let address = first.local_addr();
        let others = (1..count).map(|_| UdpSocket::bind(address, &options).unwrap());
        let sockets: Vec<_> = std::iter::once(first).chain(others).collect();
        sockets[0].steer_by_source(count).unwrap();
        sockets
    }

    /// Which sockets have something.
    fn receivers(sockets: &[UdpSocket]) -> BTreeSet<usize> {
        std::thread::sleep(Duration::from_millis(20));
        let mut batch = RecvBatch::new(32, 64);
        (0..sockets.len())
            .filter(|index| sockets[*index].recv_batch(&mut batch).unwrap() > 0)
            .collect()
    }

    #[test]
    fn one_source_meets_one_socket_whatever_its_ports() {
        let sockets = group(4);
        let mut used = BTreeSet::new();
        for host in 1..=32 {
            for _ in 0..4 {
                let sender = StdSocket::bind((format!("127.0.0.{host}"), 0)).unwrap();
                sender.send_to(b"?", sockets[0].local_addr()).unwrap();
            }
            let met = receivers(&sockets);
            assert_eq!(met.len(), 1, "127.0.0.{host}: {met:?}");
            used.extend(met);
        }
        assert_eq!(used.len(), 4, "32 sources, 4 sockets");
    }

    #[test]
    fn the_program_for_ipv6_is_taken() {
        let socket = UdpSocket::bind(
            "[::1]:0".parse().unwrap(),
            &BindOptions {
                reuse_port: true,
                ..BindOptions::default()
            },
        )
        .unwrap();
        socket.steer_by_source(1).unwrap();
        let sender = StdSocket::bind("[::1]:0").unwrap();
        sender.send_to(b"?", socket.local_addr()).unwrap();
        assert_eq!(receivers(&[socket]).len(), 1);
    }
}
