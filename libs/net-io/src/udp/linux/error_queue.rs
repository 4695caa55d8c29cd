//! The errors that the network sent back for a socket's datagrams: Linux keeps them in a queue of the socket once
//! `IP_RECVERR` asks for it, each with the head of the datagram it is about (ip(7), ipv6(7)).

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_void};

use super::{empty_header, read_control, read_name, retry_interrupted, zeroed_name};
use crate::udp::{IcmpError, UdpSocket};

/// Room for the error with the address of who reported it (64 bytes for IPv6), and for the destination (40).
#[repr(C, align(8))]
struct Room([u8; 128]);

/// Takes the oldest ICMP error. `None`: there is none.
///
/// What the system itself found wrong with a datagram was an error of sending it already and is passed over; there are
/// no more of those than this socket's own sends have made.
pub(in crate::udp) fn next(socket: &UdpSocket) -> Option<IcmpError> {
    loop {
        let (to, error) = take(socket)?;
        if let libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 = error.ee_origin {
            return Some(IcmpError {
                to,
                icmp_type: error.ee_type,
                code: error.ee_code,
                info: error.ee_info,
            });
        }
    }
}

fn take(socket: &UdpSocket) -> Option<(SocketAddr, libc::sock_extended_err)> {
    let mut name = zeroed_name();
    let mut room = Room([0; 128]);
    let mut header = empty_header();
    header.msg_name = (&raw mut name).cast::<c_void>();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_control = (&raw mut room).cast::<c_void>();
    header.msg_controllen = size_of::<Room>() as _;
    // The datagram itself is not asked for: no vector.
    retry_interrupted(|| {
        // SAFETY: `header` points to `name` and `room`, which live in this frame, with their lengths.
        let read = unsafe {
            libc::recvmsg(
                socket.inner.as_raw_fd(),
                &raw mut header,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        c_int::try_from(read).unwrap_or(0)
    })
    .ok()?;
    let mut found = None;
    // SAFETY: the system filled `header` in, whose control memory `room` is alive and not written to meanwhile.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: `next` is null or points to a whole header within `room`, which is aligned to 8.
    while let Some(control) = unsafe { next.as_ref() } {
        if let (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) =
            (control.cmsg_level, control.cmsg_type)
        {
            found = read_control::<libc::sock_extended_err>(control);
        }
        // SAFETY: `header` and `control` belong together, see above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const header, control) };
    }
    Some((read_name(&name), found?))
}
