//! The Linux back end: options of a socket, addresses, `recvmmsg` and `sendmmsg` with destination addresses, overflow counts,
//! trains in (`UDP_GRO`) and out (`UDP_SEGMENT`).
//!
//! Header arrays live on the stack of one call and point into memory that is borrowed for that call; nothing keeps a
//! pointer.

#![expect(
    unsafe_code,
    reason = "system calls the standard library does not have"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    trivial_numeric_casts,
    reason = "sizes and constants of C types, whose widths differ between C libraries"
)]

pub(super) mod error_queue;
mod receive;
mod send;

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use libc::{c_int, c_uint, c_void};
use socket2::{SockRef, Socket};

use super::{BindOptions, UdpSocket, unbound};

pub(crate) use receive::RecvScratch;
pub(super) use receive::recv;
pub(super) use send::send;
pub(crate) use send::{name_told, single_datagram};

/// Room for the control messages of one datagram: the destination (40 bytes for IPv6), the
/// overflow count and the segment size of a train (24 each).
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
struct Control([u8; 88]);

// SAFETY: CMSG_SPACE computes a size from a size; it reads nothing.
const CONTROL_NEEDED: usize = unsafe {
    libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as c_uint) as usize
        + 2 * libc::CMSG_SPACE(size_of::<u32>() as c_uint) as usize
};
const _: () = assert!(CONTROL_NEEDED <= size_of::<Control>());

/// Sets what must be known before the socket is bound.
pub(super) fn prepare(socket: &Socket, addr: SocketAddr, options: &BindOptions) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if addr.ip().is_unspecified() {
        match addr {
            SocketAddr::V4(_) => set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    if options.lazy {
        return Ok(());
    }
    count_drops(socket)?;
    if options.receive_trains {
        take_trains(socket);
    }
    set_dont_fragment(socket, addr, false)
}

/// As `UdpSocket::connected`: `first` is bound to `local`.
pub(super) fn connected(
    first: &impl AsFd,
    local: SocketAddr,
    peer: SocketAddr,
) -> io::Result<Socket> {
    let socket = unbound(local)?;
    let options = BindOptions {
        receive_trains: true,
        ..BindOptions::default()
    };
    prepare(&socket, local, &options)?;
    keep_icmp_errors(&socket, local)?;
    // Two sockets share an address if both say so at the moment of binding.
    let first = SockRef::from(first);
    socket.set_reuse_address(true)?;
    first.set_reuse_address(true)?;
    let bound = socket.bind(&local.into());
    first.set_reuse_address(false)?;
    bound?;
    socket.set_reuse_address(false)?;
    // Of two sockets at an address, a connected one gets what its peer sends.
    socket.connect(&peer.into())?;
    Ok(socket)
}

pub(super) fn count_drops(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// Kernels before 5.0 do not know it, and then receive one by one.
pub(super) fn take_trains(socket: &impl AsRawFd) {
    let _ = set_option(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
}

pub(super) fn keep_icmp_errors(socket: &impl AsRawFd, addr: SocketAddr) -> io::Result<()> {
    let (level, option) = match addr {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set_option(socket.as_raw_fd(), level, option, 1)
}

pub(super) fn set_dont_fragment(
    socket: &impl AsRawFd,
    addr: SocketAddr,
    dont_fragment: bool,
) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    match addr {
        // Both ignore what the path is believed to take; PROBE sets the bit, OMIT clears it. (So does DONT, but under
        // it the system keeps "too big" to itself, also when that is about a datagram that had the bit.)
        SocketAddr::V4(_) => {
            let mode = if dont_fragment {
                libc::IP_PMTUDISC_PROBE
            } else {
                libc::IP_PMTUDISC_OMIT
            };
            set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
        }
        // For IPv6 it is OMIT under which "too big" is not told of.
        SocketAddr::V6(_) => {
            let mode = if dont_fragment {
                libc::IPV6_PMTUDISC_PROBE
            } else {
                libc::IPV6_PMTUDISC_DONT
            };
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)?;
            set_option(
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_DONTFRAG,
                c_int::from(dont_fragment),
            )
        }
    }
}

/// Gives a group of sockets that share a port the program that picks one of them for each packet.
pub(crate) fn attach_reuseport_program(
    fd: RawFd,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as _,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the instructions and their header live through the call, which copies them; the length
    // is theirs, and the kernel checks the program before it takes it.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as _,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(crate) fn set_option(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: `value` lives through the call and its size is the one given; a stale `fd` is an
    // error result, not undefined behaviour.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as _,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Datagrams dropped so far for want of room in the socket's queue or by its filter.
pub(super) fn drops(socket: &impl AsRawFd) -> io::Result<u32> {
    // Of newer systems there may be more; the option then gives the first ones.
    const COUNTERS: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    let mut counters = [0_u32; COUNTERS];
    let mut len = size_of_val(&counters) as libc::socklen_t;
    // SAFETY: counters and length live through the call, which writes at most as many bytes as the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counters.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    let [.., drops] = counters;
    if result != 0 {
        Err(io::Error::last_os_error())
    } else if len as usize == size_of_val(&counters) {
        Ok(drops)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The content of one control message, if it is long enough for a `T`.
fn read_control<T: Copy>(control: &libc::cmsghdr) -> Option<T> {
    // SAFETY: CMSG_LEN computes a size from a size; it reads nothing.
    let needed = unsafe { libc::CMSG_LEN(c_uint::try_from(size_of::<T>()).ok()?) } as usize;
    if (control.cmsg_len as usize) < needed {
        return None;
    }
    // SAFETY: the system wrote `cmsg_len` bytes, header included, so that a whole `T` follows the
    // header; T is one of the plain C types above, valid for any bytes.
    Some(unsafe { libc::CMSG_DATA(control).cast::<T>().read_unaligned() })
}

fn read_name(name: &libc::sockaddr_in6) -> SocketAddr {
    if c_int::from(name.sin6_family) == libc::AF_INET {
        // SAFETY: the family says that the system wrote a sockaddr_in, which is shorter than the
        // sockaddr_in6 it was written into and no more strictly aligned.
        let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
        return SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(name.sin_port)));
    }
    let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
    let port = u16::from_be(name.sin6_port);
    // The flow label of a datagram is no part of who sent it.
    SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id))
}

pub(crate) fn write_name(name: &mut libc::sockaddr_in6, addr: SocketAddr) -> libc::socklen_t {
    match addr {
        SocketAddr::V4(addr) => {
            let short = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(addr.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_in is shorter than a sockaddr_in6 and no more strictly aligned.
            unsafe { (&raw mut *name).cast::<libc::sockaddr_in>().write(short) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(addr) => {
            *name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

pub(crate) fn zeroed_name() -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is a plain C structure of integers and pointers (and, in some C libraries,
    // private padding), for which all zeroes is the empty value.
    unsafe { mem::zeroed() }
}

/// Runs `call` again if what it says may be of an ICMP error: the system tells of one by failing the next call on the
/// socket, whatever that is for. A flood of such errors must not keep calls from being made, so the last one counts.
fn past_errors(socket: &UdpSocket, mut call: impl FnMut() -> c_int) -> io::Result<usize> {
    const TRIES: usize = 3;
    let tries = if socket.keeps_icmp_errors() { TRIES } else { 1 };
    for _ in 1..tries {
        match retry_interrupted(&mut call) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
    retry_interrupted(call)
}

/// Runs `call` until a signal does not interrupt it; a negative result becomes the error.
pub(crate) fn retry_interrupted(mut call: impl FnMut() -> c_int) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
