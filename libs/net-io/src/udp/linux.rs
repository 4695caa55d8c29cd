//! The Linux back end: `recvmmsg` and `sendmmsg`, destination addresses, overflow counts.
//!
//! The crate's only `unsafe`. Header arrays live on the stack of one call and point into memory
//! that is borrowed for that call; nothing keeps a pointer.

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

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_uint, c_void};
use socket2::Socket;

use super::{UdpSocket, note_refusal};
use crate::batch::{MAX_BATCH, Meta, RecvBatch, SendBatch, SendReport};

/// Room for the control messages of one datagram: the destination (40 bytes for IPv6), the
/// overflow count (24), and 24 more for a segment size should receive offload come.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
struct Control([u8; 88]);

// SAFETY: CMSG_SPACE computes a size from a size; it reads nothing.
const CONTROL_NEEDED: usize = unsafe {
    libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as c_uint) as usize
        + 2 * libc::CMSG_SPACE(size_of::<u32>() as c_uint) as usize
};
const _: () = assert!(CONTROL_NEEDED <= size_of::<Control>());

/// Where the system writes addresses and control messages; kept with the [`RecvBatch`].
#[derive(Debug, Default)]
pub(crate) struct RecvScratch {
    /// `sockaddr_in6` is the larger of the two families and has the family in the same place.
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<Control>,
}

impl RecvScratch {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            names: vec![zeroed_name(); slots],
            controls: vec![Control([0; 88]); slots],
        }
    }
}

/// Sets what must be known before the socket is bound.
pub(super) fn prepare(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if addr.ip().is_unspecified() {
        match addr {
            SocketAddr::V4(_) => set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
            SocketAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        }
    }
    set_dont_fragment(socket, addr, false)
}

pub(super) fn set_dont_fragment(
    socket: &impl AsRawFd,
    addr: SocketAddr,
    dont_fragment: bool,
) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    match addr {
        // PROBE sets the bit and ignores what the path is believed to take; DONT clears it.
        SocketAddr::V4(_) => {
            let mode = if dont_fragment {
                libc::IP_PMTUDISC_PROBE
            } else {
                libc::IP_PMTUDISC_DONT
            };
            set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
        }
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

fn set_option(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
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

pub(super) fn recv(socket: &UdpSocket, batch: &mut RecvBatch) -> io::Result<usize> {
    let mut scratch = batch.take_scratch();
    let result = recv_with(socket, batch, &mut scratch);
    batch.put_scratch(scratch);
    result
}

fn recv_with(
    socket: &UdpSocket,
    batch: &mut RecvBatch,
    scratch: &mut RecvScratch,
) -> io::Result<usize> {
    let slot_size = batch.slot_size();
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let mut slots: usize = 0;
    let parts = batch
        .slots_mut()
        .zip(&mut scratch.names)
        .zip(&mut scratch.controls);
    for (((slot, name), control), (vector, header)) in
        parts.zip(vectors.iter_mut().zip(&mut headers))
    {
        *vector = libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: slot_size,
        };
        let mut message = empty_header();
        message.msg_name = (&raw mut *name).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut *control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        header.write(libc::mmsghdr {
            msg_hdr: message,
            msg_len: 0,
        });
        slots += 1;
    }

    let received = socket.inner.try_io(|| {
        retry_interrupted(|| {
            // SAFETY: the first `slots` headers are initialised above, and all they point to
            // (slots, names, controls, vectors) is borrowed mutably and outlives the call. The
            // lengths given are those of the memory. The timeout is absent.
            unsafe {
                libc::recvmmsg(
                    socket.inner.as_raw_fd(),
                    headers.as_mut_ptr().cast(),
                    slots as c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            }
        })
    })?;

    for (header, name) in headers.iter().zip(&scratch.names).take(received) {
        // SAFETY: the first `slots` headers are initialised, and `received` is at most that.
        let header = unsafe { header.assume_init_ref() };
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let to = read_controls(socket, &header.msg_hdr);
        batch.push_meta(Meta {
            from: read_name(name),
            local: socket.local_for(to),
            len: if truncated {
                usize::MAX
            } else {
                header.msg_len as usize
            },
        });
    }
    Ok(received)
}

/// Notes the overflow count and returns the destination address, if the datagram carries one.
fn read_controls(socket: &UdpSocket, message: &libc::msghdr) -> Option<IpAddr> {
    let mut destination = None;
    // SAFETY: `message` was filled in by the system; its control pointer and length describe the
    // `Control` of its slot, which is alive and not written to meanwhile. The CMSG functions stay
    // within that length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: as above: `next` is null or points to a whole header within the control memory,
    // which is aligned to 8.
    while let Some(control) = unsafe { next.as_ref() } {
        match (control.cmsg_level, control.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(info) = read_control::<libc::in_pktinfo>(control) {
                    let bytes = info.ipi_spec_dst.s_addr.to_ne_bytes();
                    destination = Some(IpAddr::V4(Ipv4Addr::from(bytes)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(info) = read_control::<libc::in6_pktinfo>(control) {
                    destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                if let Some(counter) = read_control::<u32>(control) {
                    socket.note_overflow(counter);
                }
            }
            _ => {}
        }
        // SAFETY: `message` and `control` belong together, see above.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    destination
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

pub(super) fn send(socket: &UdpSocket, batch: &SendBatch) -> SendReport {
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; MAX_BATCH];
    let mut names = [zeroed_name(); MAX_BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];

    let memory = vectors
        .iter_mut()
        .zip(&mut names)
        .zip(&mut controls)
        .zip(&mut headers);
    for (entry, (((vector, name), control), header)) in batch.entries().iter().zip(memory) {
        let bytes = batch.bytes(entry);
        *vector = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut message = empty_header();
        message.msg_namelen = write_name(name, entry.to);
        message.msg_name = (&raw mut *name).cast();
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        if socket.is_wildcard() && !entry.from.is_unspecified() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = write_source(&mut message, entry.from, entry.to) as _;
        }
        header.write(libc::mmsghdr {
            msg_hdr: message,
            msg_len: 0,
        });
    }

    let total = batch.len();
    let mut report = SendReport::default();
    let mut done = 0;
    while done < total {
        let rest = &mut headers[done..total];
        let result = socket.inner.try_io(|| {
            retry_interrupted(|| {
                // SAFETY: `headers[..total]` are initialised above (a batch holds at most
                // MAX_BATCH entries); all they point to is borrowed through the call, and the
                // system only reads it. `rest` is within the array.
                unsafe {
                    libc::sendmmsg(
                        socket.inner.as_raw_fd(),
                        rest.as_mut_ptr().cast(),
                        rest.len() as c_uint,
                        (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                    )
                }
            })
        });
        match result {
            Ok(sent) => {
                for entry in batch.entries().iter().skip(done).take(sent) {
                    report.sent_bytes += entry.bytes.len();
                }
                report.sent += sent;
                done += sent;
            }
            // The error belongs to the first of the rest. A full queue has no room for the others.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                report.queue_full += total - done;
                break;
            }
            Err(error) => {
                note_refusal(&mut report, &error);
                done += 1;
            }
        }
    }
    report
}

/// Writes the control message that fixes the source address, and returns its length.
/// `message.msg_control` points to a [`Control`].
fn write_source(message: &mut libc::msghdr, from: IpAddr, to: SocketAddr) -> usize {
    message.msg_controllen = size_of::<Control>() as _;
    match from {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(message, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            // A link-local source means nothing without its interface, which is the peer's.
            let interface = match to {
                SocketAddr::V6(to) if ip.is_unicast_link_local() => to.scope_id(),
                SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: interface,
            };
            write_control(message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T: Copy>(message: &libc::msghdr, level: c_int, kind: c_int, content: T) -> usize {
    const { assert!(size_of::<T>() <= size_of::<libc::in6_pktinfo>()) };
    // SAFETY: the caller points `message` at a `Control` and gives its size; the assertions above
    // and at CONTROL_NEEDED say that a header with a `T` fits, so CMSG_FIRSTHDR is not null and all
    // three writes are within it. The header is aligned because `Control` is.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(message);
        (*control).cmsg_level = level;
        (*control).cmsg_type = kind;
        (*control).cmsg_len = libc::CMSG_LEN(size_of::<T>() as c_uint) as _;
        libc::CMSG_DATA(control)
            .cast::<T>()
            .write_unaligned(content);
        libc::CMSG_SPACE(size_of::<T>() as c_uint) as usize
    }
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

fn write_name(name: &mut libc::sockaddr_in6, addr: SocketAddr) -> libc::socklen_t {
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

fn zeroed_name() -> libc::sockaddr_in6 {
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

/// Runs `call` until a signal does not interrupt it; a negative result becomes the error.
fn retry_interrupted(mut call: impl FnMut() -> c_int) -> io::Result<usize> {
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
