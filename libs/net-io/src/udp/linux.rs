//! The Linux back end: `recvmmsg` and `sendmmsg`, destination addresses, overflow counts, trains in
//! (`UDP_GRO`) and out (`UDP_SEGMENT`).
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

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use libc::{c_int, c_uint, c_void};
use socket2::Socket;

use super::{BindOptions, UdpSocket, note_refusal};
use crate::batch::{MAX_BATCH, MAX_SEND, Meta, RecvBatch, SendBatch, SendReport, Train};

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
        past_errors(socket, || {
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
        let (to, segment) = read_controls(socket, &header.msg_hdr);
        let len = header.msg_len as usize;
        batch.push_meta(Meta {
            from: read_name(name),
            local: socket.local_for(to),
            len: if truncated { usize::MAX } else { len },
            segment: segment.unwrap_or(len),
        });
    }
    Ok(received)
}

/// Notes the overflow count and returns what the datagram carries of these: the destination
/// address, and the length of each datagram if it is a train.
fn read_controls(socket: &UdpSocket, message: &libc::msghdr) -> (Option<IpAddr>, Option<usize>) {
    let mut destination = None;
    let mut segment = None;
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
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size =
                    read_control::<c_int>(control).and_then(|size| usize::try_from(size).ok());
                segment = size.filter(|size| *size > 0);
            }
            _ => {}
        }
        // SAFETY: `message` and `control` belong together, see above.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    (destination, segment)
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
    let mut report = SendReport::default();
    let mut rest = batch.trains();
    while let Some((first, behind)) = rest.split_first() {
        let offload = socket.sends_trains();
        let together = rest
            .iter()
            .take_while(|train| train.count == 1 || offload)
            .count();
        let outcome = if together == 0 {
            Ok(0)
        } else if together == 1
            && let Some(bytes) = plain_datagram(socket, batch, first)
        {
            send_one(socket, first.to, bytes).map(|()| 1)
        } else {
            let trains = rest.iter().take(together);
            send_messages(
                socket,
                trains.map(|train| Message {
                    to: train.to,
                    from: train.from,
                    segment: (train.count > 1).then_some(train.segment),
                    datagrams: batch.datagrams(train),
                }),
            )
        };
        match outcome {
            Ok(sent) if sent > 0 => {
                let (done, left) = rest.split_at(sent.min(rest.len()));
                for train in done {
                    report.sent += train.count;
                    report.sent_bytes += train.total;
                }
                rest = left;
                continue;
            }
            // A full queue has no room for the others.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                report.queue_full += rest.iter().map(|train| train.count).sum::<usize>();
                break;
            }
            // The error belongs to the first.
            Err(error) if first.count == 1 => note_refusal(&mut report, &error),
            Err(error) => {
                socket.note_train_refused(&error);
                send_singly(socket, batch, first, &mut report);
            }
            Ok(_) => send_singly(socket, batch, first, &mut report),
        }
        rest = behind;
    }
    report
}

/// The only datagram of a batch, and where it goes, if nothing more is to be said of it.
pub(crate) fn single_datagram<'b>(
    socket: &UdpSocket,
    batch: &'b SendBatch,
) -> Option<(SocketAddr, &'b [u8])> {
    let [train] = batch.trains() else {
        return None;
    };
    Some((train.to, plain_datagram(socket, batch, train)?))
}

/// The only datagram of a train, if nothing more is to be said of it than where it goes.
fn plain_datagram<'b>(socket: &UdpSocket, batch: &'b SendBatch, train: &Train) -> Option<&'b [u8]> {
    let is_plain = train.count == 1 && source_told(socket, train.from).is_none();
    batch.datagrams(train).next().filter(|_| is_plain)
}

/// The source address that the system has to be told.
fn source_told(socket: &UdpSocket, from: IpAddr) -> Option<IpAddr> {
    Some(from).filter(|ip| socket.is_wildcard() && !ip.is_unspecified())
}

/// Sends one datagram. Most batches of relay sockets are no more than that, and `sendto` spares the system the reading of
/// the headers that `sendmmsg` has.
fn send_one(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut name = zeroed_name();
    let name_len = write_name(&mut name, to);
    socket.inner.try_io(|| {
        past_errors(socket, || {
            // SAFETY: the system reads `bytes` and `name`, which are borrowed for the call, with their lengths.
            let sent = unsafe {
                libc::sendto(
                    socket.inner.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                    (&raw const name).cast(),
                    name_len,
                )
            };
            c_int::from(sent >= 0) - c_int::from(sent < 0)
        })
    })?;
    Ok(())
}

/// Sends the datagrams of a train as messages of their own.
fn send_singly(socket: &UdpSocket, batch: &SendBatch, train: &Train, report: &mut SendReport) {
    let mut done = 0;
    while done < train.count {
        let rest = batch.datagrams(train).skip(done);
        let outcome = send_messages(
            socket,
            rest.map(|bytes| Message {
                to: train.to,
                from: train.from,
                segment: None,
                datagrams: std::iter::once(bytes),
            }),
        );
        match outcome {
            Ok(sent) if sent > 0 => {
                let bytes = batch.datagrams(train).skip(done).take(sent);
                report.sent_bytes += bytes.map(<[u8]>::len).sum::<usize>();
                report.sent += sent;
                done += sent;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                report.queue_full += train.count - done;
                return;
            }
            Err(error) => {
                note_refusal(report, &error);
                done += 1;
            }
            Ok(_) => return,
        }
    }
}

/// What one message to the system is made of.
struct Message<I> {
    to: SocketAddr,
    from: IpAddr,
    /// Of a train: bytes of each datagram but the last.
    segment: Option<usize>,
    datagrams: I,
}

/// Sends messages by one system call; how many the system took. An error belongs to the first.
fn send_messages<'b, I: Iterator<Item = &'b [u8]>>(
    socket: &UdpSocket,
    messages: impl Iterator<Item = Message<I>>,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SEND];
    let mut names = [const { MaybeUninit::<libc::sockaddr_in6>::uninit() }; MAX_SEND];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_SEND];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_SEND];

    let vectors: *mut libc::iovec = vectors.as_mut_ptr().cast();
    let (mut count, mut used): (usize, usize) = (0, 0);
    let memory = names.iter_mut().zip(&mut controls).zip(&mut headers);
    for (message, ((name, control), header)) in messages.zip(memory) {
        let first = used;
        // A batch has no more datagrams than there are vectors.
        for bytes in message.datagrams.take(MAX_SEND - first) {
            let vector = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            // SAFETY: `used` is below MAX_SEND, the length of the array, which lives in this frame.
            unsafe { vectors.add(used).write(vector) };
            used += 1;
        }
        let name = name.write(zeroed_name());
        let mut head = empty_header();
        head.msg_namelen = write_name(name, message.to);
        head.msg_name = (&raw mut *name).cast();
        // SAFETY: `first` is at most MAX_SEND: within the array or just behind it.
        head.msg_iov = unsafe { vectors.add(first) };
        head.msg_iovlen = (used - first) as _;
        let source = source_told(socket, message.from);
        if source.is_some() || message.segment.is_some() {
            let control = control.write(Control([0; 88]));
            head.msg_control = (&raw mut *control).cast();
            head.msg_controllen = size_of::<Control>() as _;
            let len = write_controls(&mut head, source, message.to, message.segment);
            head.msg_controllen = len as _;
        }
        header.write(libc::mmsghdr {
            msg_hdr: head,
            msg_len: 0,
        });
        count += 1;
    }
    socket.inner.try_io(|| {
        past_errors(socket, || {
            // SAFETY: `headers[..count]` are initialised above; the vectors, names and controls they
            // point to are initialised too, live through the call, and the system only reads them
            // and the bytes, which are borrowed for as long.
            unsafe {
                libc::sendmmsg(
                    socket.inner.as_raw_fd(),
                    headers.as_mut_ptr().cast(),
                    count as c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            }
        })
    })
}

/// Writes the control messages that fix the source address and say that this is a train, and
/// returns their length. `message.msg_control` points to a zeroed [`Control`] of its length.
fn write_controls(
    message: &mut libc::msghdr,
    source: Option<IpAddr>,
    to: SocketAddr,
    segment: Option<usize>,
) -> usize {
    let mut len = 0;
    match source {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            len += write_control(message, len, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
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
            len += write_control(message, len, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        // A batch makes trains of short datagrams only.
        let segment = u16::try_from(segment).unwrap_or(u16::MAX);
        len += write_control(message, len, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    len
}

/// Writes one control message `at` bytes behind the start of the control memory; what it takes.
fn write_control<T: Copy>(
    message: &mut libc::msghdr,
    at: usize,
    level: c_int,
    kind: c_int,
    content: T,
) -> usize {
    const { assert!(size_of::<T>() <= size_of::<libc::in6_pktinfo>()) };
    // SAFETY: the caller points `message` at a `Control`, which is aligned for a header, and `at` is
    // the sum of what such calls returned, each a multiple of that alignment. The assertions above
    // and at CONTROL_NEEDED say that the source and the segment size fit one behind the other, so
    // all writes are within the `Control`.
    unsafe {
        let control = message
            .msg_control
            .cast::<u8>()
            .add(at)
            .cast::<libc::cmsghdr>();
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
