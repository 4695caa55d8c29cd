//! `sendmmsg`: datagrams and trains, from the address that each was for.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_uint};

use super::{Control, empty_header, past_errors, write_name, zeroed_name};
use crate::batch::{MAX_SEND, SendBatch, SendReport, Train};
use crate::udp::{UdpSocket, note_refusal};

pub(in crate::udp) fn send(socket: &UdpSocket, batch: &SendBatch) -> SendReport {
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

/// The destination that the system has to be told, written into `name`.
pub(crate) fn name_told(
    socket: &UdpSocket,
    name: &mut libc::sockaddr_in6,
    to: SocketAddr,
) -> Option<(*mut libc::sockaddr_in6, libc::socklen_t)> {
    if socket.is_connected {
        return None;
    }
    let len = write_name(name, to);
    Some((&raw mut *name, len))
}

/// Sends one datagram. Most batches of relay sockets are no more than that, and `sendto` spares the system the reading of
/// the headers that `sendmmsg` has.
fn send_one(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let mut name = zeroed_name();
    let (name, name_len) = match name_told(socket, &mut name, to) {
        Some((name, len)) => (name.cast_const(), len),
        None => (std::ptr::null(), 0),
    };
    socket.inner.try_io(|| {
        past_errors(socket, || {
            // SAFETY: the system reads `bytes` and what `name` points to, if that is anything, which are there for the call,
            // with their lengths.
            let sent = unsafe {
                libc::sendto(
                    socket.inner.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                    name.cast(),
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
        if let Some((name, len)) = name_told(socket, name, message.to) {
            head.msg_name = name.cast();
            head.msg_namelen = len;
        }
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
