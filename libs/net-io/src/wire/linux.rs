//! Packet sockets of Linux. Whatever points into memory lives on the stack of one call and into what is borrowed for it.

#![expect(
    unsafe_code,
    reason = "system calls the standard library does not have"
)]
#![allow(
    clippy::cast_possible_truncation,
    trivial_numeric_casts,
    clippy::unnecessary_cast,
    reason = "sizes and constants of C types, whose widths differ between C libraries"
)]

use std::ffi::CString;
use std::io::{self, Read as _};
use std::mem::{self, MaybeUninit};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_uint, c_void};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{FrameBatch, MAX_FRAMES, Mac};
use crate::bpf::{IF_EQUAL, LOAD_BYTE, LOAD_HALF, LOAD_WORD, RETURN};
use crate::udp::linux::{retry_interrupted, set_option};

/// A socket on the interface, and that interface's address.
pub(super) fn bind(interface: &str) -> io::Result<(Socket, Mac)> {
    let index = index_of(interface)?;
    // Protocol 0: it receives nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    // Straight to the device. What it cannot take at once is refused, as a full queue of a network card refuses it.
    set_option(
        socket.as_raw_fd(),
        libc::SOL_PACKET,
        libc::PACKET_QDISC_BYPASS,
        1,
    )?;
    bind_to(&socket, index, 0)?;
    let mut address = empty_address();
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: address and length live through the call, which writes at most as many bytes as the length says.
    let named =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) };
    if named != 0 {
        return Err(io::Error::last_os_error());
    }
    let mac = address.sll_addr.first_chunk::<6>().copied();
    match mac.filter(|_| address.sll_hatype == libc::ARPHRD_ETHER && address.sll_halen == 6) {
        Some(mac) => Ok((socket, mac)),
        None => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{interface} is no Ethernet"),
        )),
    }
}

/// A socket that takes what UDP over IPv4 comes from `from` through the interface, as packets without the link's header.
pub(super) fn listen(interface: &str, from: SocketAddrV4, buffer: usize) -> io::Result<Socket> {
    let index = index_of(interface)?;
    // Protocol 0 until it is bound: not a packet passes the filter by.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(buffer)?;
    socket.attach_filter(&only_from(from))?;
    bind_to(&socket, index, (libc::ETH_P_IP as u16).to_be())?;
    Ok(socket)
}

/// Receives a packet; none if there is none.
pub(super) fn receive(socket: &Socket, into: &mut [u8]) -> io::Result<Option<usize>> {
    let mut socket = socket;
    loop {
        match socket.read(into) {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Let in: UDP from this address and port, behind an IPv4 header without options.
fn only_from(from: SocketAddrV4) -> [SockFilter; 10] {
    let load = |code, at| SockFilter::new(code, 0, 0, at);
    // `left`: instructions from here to the last, which drops.
    let unless = |left, k| SockFilter::new(IF_EQUAL, 0, left, k);
    [
        load(LOAD_BYTE, 0),
        unless(7, 0x45),
        load(LOAD_BYTE, 9),
        unless(5, 17),
        load(LOAD_WORD, 12),
        unless(3, from.ip().to_bits()),
        load(LOAD_HALF, 20),
        unless(1, from.port().into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn bind_to(socket: &Socket, index: c_int, protocol: u16) -> io::Result<()> {
    let mut address = empty_address();
    address.sll_family = libc::AF_PACKET as _;
    address.sll_ifindex = index;
    address.sll_protocol = protocol;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and the length is its own.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn index_of(interface: &str) -> io::Result<c_int> {
    let name = CString::new(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name ends with a zero and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    c_int::try_from(index)
        .ok()
        .filter(|index| *index > 0)
        .ok_or_else(io::Error::last_os_error)
}

fn empty_address() -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is a plain C structure of integers, for which all zeroes is the empty value.
    unsafe { mem::zeroed() }
}

/// Sends every frame; how many the system refused.
pub(super) fn send(socket: &Socket, batch: &FrameBatch) -> usize {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_FRAMES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_FRAMES];
    let mut count = 0;
    for (frame, (vector, header)) in batch.frames().zip(vectors.iter_mut().zip(&mut headers)) {
        let vector = vector.write(libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast::<c_void>(),
            iov_len: frame.len(),
        });
        // SAFETY: mmsghdr is a plain C structure of integers and pointers, for which all zeroes is the empty value: no
        // name (the socket is bound), no control message.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        header.write(message);
        count += 1;
    }
    let (mut done, mut refused) = (0, 0);
    while done < count {
        let outcome = retry_interrupted(|| {
            // SAFETY: the headers from `done` to `count` are initialised above and so are their vectors; both live in
            // this frame, and the system only reads the frames, which are borrowed for as long.
            unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(done).cast(),
                    (count - done) as c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            }
        });
        match outcome {
            Ok(sent) if sent > 0 => done += sent,
            // An error belongs to the first.
            _ => {
                refused += 1;
                done += 1;
            }
        }
    }
    refused
}
