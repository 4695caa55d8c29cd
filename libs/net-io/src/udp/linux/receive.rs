//! `recvmmsg`: datagrams and trains, with what the system tells of them.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_uint};

use super::{Control, empty_header, past_errors, read_control, read_name, zeroed_name};
use crate::batch::{MAX_BATCH, Meta, RecvBatch};
use crate::udp::UdpSocket;

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

pub(in crate::udp) fn recv(socket: &UdpSocket, batch: &mut RecvBatch) -> io::Result<usize> {
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
