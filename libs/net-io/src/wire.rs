//! Packet sockets: UDP over IPv4 that leaves by no UDP socket, and comes to none (Linux, `CAP_NET_RAW`).
//!
//! For whoever has to offer more packets than a socket call each allows, such as a load generator. What a frame says is
//! fixed beforehand; of one that leaves again and again only a few bytes change. A frame passes neither the routing
//! table nor the neighbours, so that both are asked once: [`next_hop`].
//!
//! ```text
//! | destination: 6 | source: 6 | 0x0800 | IPv4: 20 | UDP: 8 | payload |
//! ```

#[cfg(target_os = "linux")]
mod linux;
mod route;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

pub use route::Hop;

/// Frames that one call sends.
pub const MAX_FRAMES: usize = 64;

/// The longest frame: what Ethernet takes.
pub const MAX_FRAME: usize = 1514;

/// Bytes before the payload.
pub const HEADERS: usize = ETHERNET + IPV4 + UDP;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where frames to `to` go first: the interface, and who is behind it.
///
/// The system must have spoken with that neighbour; it is not asked for here.
///
/// # Errors
/// There is no route, or the neighbour is not known (yet).
pub fn next_hop(to: Ipv4Addr) -> io::Result<Hop> {
    #[cfg(target_os = "linux")]
    return route::next_hop(to);
    #[cfg(not(target_os = "linux"))]
    return Err(unsupported(to));
}

#[cfg(not(target_os = "linux"))]
fn unsupported(_to: Ipv4Addr) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "packet sockets exist on Linux only",
    )
}

/// A frame that carries `payload` from `from` to `to`; none if it is longer than [`MAX_FRAME`].
///
/// It has no UDP checksum, which IPv4 allows (RFC 768): the receiver then has none to check, as with a network card that
/// did it already.
#[must_use]
pub fn frame(
    (own, hop): (Mac, Mac),
    (from, to): (SocketAddrV4, SocketAddrV4),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let udp = u16::try_from(UDP + payload.len()).ok()?;
    let total = u16::try_from(IPV4 + UDP + payload.len()).ok()?;
    let mut ip = [0; IPV4];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    // Don't Fragment, so that no identification is needed (RFC 6864 section 4.1); 64 hops; UDP.
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(HEADERS + payload.len());
    frame.extend_from_slice(&hop);
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&from.port().to_be_bytes());
    frame.extend_from_slice(&to.port().to_be_bytes());
    frame.extend_from_slice(&udp.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(payload);
    (frame.len() <= MAX_FRAME).then_some(frame)
}

/// The ones' complement of the ones' complement sum (RFC 1071) of a header with its checksum zero.
fn checksum(header: &[u8; IPV4]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    // Ten words carry at most once, and that carry cannot carry again.
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

/// Frames that wait to be sent by one call.
#[derive(Debug)]
pub struct FrameBatch {
    /// One frame close behind the other, so that small ones stay in the processor's nearest cache.
    memory: Vec<u8>,
    frames: Vec<Range<usize>>,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self {
            memory: Vec::with_capacity(MAX_FRAMES * MAX_FRAME),
            frames: Vec::with_capacity(MAX_FRAMES),
        }
    }
}

impl FrameBatch {
    /// Appends a copy of `frame` with `patch` in place of what is at `at`. False, and nothing appended, if the batch is
    /// full, the frame too long, or the patch reaches out of it.
    #[must_use]
    pub fn push(&mut self, frame: &[u8], at: usize, patch: &[u8]) -> bool {
        let fits = at
            .checked_add(patch.len())
            .is_some_and(|end| end <= frame.len());
        if self.is_full() || frame.len() > MAX_FRAME || !fits {
            return false;
        }
        let start = self.memory.len();
        self.memory.extend_from_slice(frame);
        self.frames.push(start..self.memory.len());
        let patched = self.memory.get_mut(start + at..);
        if let Some(patched) = patched.and_then(|rest| rest.get_mut(..patch.len())) {
            patched.copy_from_slice(patch);
        }
        true
    }

    /// Frames waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// No frame is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Holds [`MAX_FRAMES`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.memory.clear();
    }

    /// The frames, in order.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "packet sockets are of Linux")
    )]
    fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let frames = self.frames.iter();
        frames.filter_map(|range| self.memory.get(range.clone()))
    }
}

/// A packet socket that sends on one Ethernet interface and receives nothing.
#[derive(Debug)]
pub struct WireSocket {
    #[cfg(target_os = "linux")]
    inner: socket2::Socket,
    mac: Mac,
}

impl WireSocket {
    /// Bound to the interface of this name.
    ///
    /// # Errors
    /// The system refuses (`CAP_NET_RAW` is needed), or the interface is no Ethernet.
    pub fn bind(interface: &str) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return linux::bind(interface).map(|(inner, mac)| Self { inner, mac });
        #[cfg(not(target_os = "linux"))]
        return Err(unsupported_interface(interface));
    }

    /// The interface's own address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends everything in `batch`, in order, without queueing, and leaves it empty. How many frames the system refused.
    pub fn send(&self, batch: &mut FrameBatch) -> usize {
        #[cfg(target_os = "linux")]
        let refused = linux::send(&self.inner, batch);
        #[cfg(not(target_os = "linux"))]
        let refused = batch.len();
        batch.clear();
        refused
    }
}

/// What came by [`WireReceiver`]: UDP over IPv4, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// Whom it was for: an address of this host or any other.
    pub to: SocketAddrV4,
    /// The payload.
    pub bytes: &'a [u8],
}

/// A packet socket that receives what one UDP sender sends through an Ethernet interface, to whatever address. Checksums are
/// not looked at. The system goes on with each packet as if nobody had listened.
#[derive(Debug)]
pub struct WireReceiver {
    #[cfg(target_os = "linux")]
    inner: socket2::Socket,
    memory: Vec<u8>,
}

impl WireReceiver {
    /// On the interface of this name, with room for `buffer` bytes; the system may give less.
    ///
    /// # Errors
    /// The system refuses (`CAP_NET_RAW` is needed), or there is no such interface.
    pub fn bind(interface: &str, from: SocketAddrV4, buffer: usize) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return linux::listen(interface, from, buffer).map(|inner| Self {
            inner,
            memory: vec![0; MAX_FRAME],
        });
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (from, buffer);
            Err(unsupported_interface(interface))
        }
    }

    /// Takes what has arrived, up to `most` packets, without waiting; how many they were.
    ///
    /// # Errors
    /// The system's: the interface is gone or down.
    pub fn receive(&mut self, most: usize, mut take: impl FnMut(Arrival<'_>)) -> io::Result<usize> {
        for taken in 0..most {
            let Some(len) = self.receive_one()? else {
                return Ok(taken);
            };
            if let Some(arrival) = self.memory.get(..len).and_then(datagram) {
                take(arrival);
            }
        }
        Ok(most)
    }

    #[cfg(target_os = "linux")]
    fn receive_one(&mut self) -> io::Result<Option<usize>> {
        linux::receive(&self.inner, &mut self.memory)
    }

    #[cfg(not(target_os = "linux"))]
    fn receive_one(&mut self) -> io::Result<Option<usize>> {
        Err(unsupported_interface(""))
    }
}

/// Takes a whole IPv4 packet without options apart; none if it is no whole UDP datagram.
fn datagram(packet: &[u8]) -> Option<Arrival<'_>> {
    let (ip, rest) = packet.split_first_chunk::<IPV4>()?;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // More Fragments, and the fragment's place: what is no part of more is 0 in both.
    let is_part = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if ip[0] != 0x45 || ip[9] != 17 || is_part {
        return None;
    }
    // An Ethernet frame has a least length: what is behind the packet is no part of it.
    let rest = rest.get(..total.checked_sub(IPV4)?)?;
    let (udp, _) = rest.split_first_chunk::<UDP>()?;
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    let end = |ip: [u8; 4], port: [u8; 2]| SocketAddrV4::new(ip.into(), u16::from_be_bytes(port));
    Some(Arrival {
        from: end([ip[12], ip[13], ip[14], ip[15]], [udp[0], udp[1]]),
        to: end([ip[16], ip[17], ip[18], ip[19]], [udp[2], udp[3]]),
        bytes: rest.get(UDP..len)?,
    })
}

#[cfg(not(target_os = "linux"))]
fn unsupported_interface(_interface: &str) -> io::Error {
    unsupported(Ipv4Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const HOP: Mac = [2, 0, 0, 0, 0, 2];

    fn ends() -> (SocketAddrV4, SocketAddrV4) {
        (
            SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 4000),
            SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 3478),
        )
    }

    #[test]
    fn a_frame_is_what_the_layers_say() {
        let frame = frame((OWN, HOP), ends(), b"hello").unwrap();
        let (ethernet, rest) = frame.split_at(ETHERNET);
        assert_eq!(
            ethernet,
            [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00],
            "to the hop, from us, IPv4"
        );
        let (ip, rest) = rest.split_first_chunk::<IPV4>().unwrap();
        // RFC 791: version and length, no service, total length, no identification, DF, 64, UDP.
        assert_eq!(ip[..10], [0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17]);
        assert_eq!(ip[12..], [192, 0, 2, 1, 198, 51, 100, 7]);
        assert_eq!(checksum(ip), 0, "a header sums up to all ones");
        let (udp, payload) = rest.split_at(UDP);
        assert_eq!(udp, [0x0f, 0xa0, 0x0d, 0x96, 0, 13, 0, 0]);
        assert_eq!(payload, b"hello");
    }

    #[test]
    fn a_frame_taken_apart_is_what_it_was_made_of() {
        let (from, to) = ends();
        let frame = frame((OWN, HOP), (from, to), b"hello").unwrap();
        let mut packet = frame[ETHERNET..].to_vec();
        let bytes = b"hello".as_slice();
        assert_eq!(datagram(&packet), Some(Arrival { from, to, bytes }));
        packet.extend_from_slice(&[0; 9]);
        let padded = datagram(&packet).unwrap();
        assert_eq!(padded.bytes, bytes, "what fills the frame is left out");
        for len in 0..IPV4 + UDP + bytes.len() {
            assert_eq!(datagram(&packet[..len]), None, "cut after {len} bytes");
        }
        // Options, another protocol, more fragments, a later fragment, lengths that no datagram can have.
        for (at, byte) in [
            (0, 0x46),
            (9, 6),
            (6, 0x20),
            (7, 1),
            (3, 19),
            (25, 7),
            (25, 14),
        ] {
            let mut wrong = packet.clone();
            wrong[at] = byte;
            assert_eq!(datagram(&wrong), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_a_header_known_to_be_right() {
        // The example of the header in Wikipedia's "Internet checksum", with its sum left out.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }

    #[test]
    fn longer_than_ethernet_is_no_frame() {
        let most = MAX_FRAME - HEADERS;
        assert!(frame((OWN, HOP), ends(), &vec![0; most]).is_some());
        assert_eq!(frame((OWN, HOP), ends(), &vec![0; most + 1]), None);
        assert_eq!(frame((OWN, HOP), ends(), &vec![0; 70_000]), None);
    }

    #[test]
    fn a_batch_takes_patched_copies_until_it_is_full() {
        let frame = frame((OWN, HOP), ends(), b"number ?").unwrap();
        let at = frame.len() - 1;
        let mut batch = FrameBatch::default();
        for number in 0..MAX_FRAMES {
            assert!(!batch.is_full());
            assert!(batch.push(&frame, at, &[u8::try_from(number).unwrap()]));
        }
        assert!(batch.is_full());
        assert!(!batch.push(&frame, at, b"x"));
        let frames: Vec<_> = batch.frames().collect();
        assert_eq!(frames.len(), MAX_FRAMES);
        assert_eq!(frames[7][..at], frame[..at]);
        assert_eq!((frames[7][at], frames[63][at]), (7, 63));
        batch.clear();
        assert!(batch.is_empty());
        assert!(!batch.push(&frame, at, b"xy"), "a patch out of the frame");
        assert!(!batch.push(&[0; MAX_FRAME + 60], 0, b"x"), "too long");
        assert_eq!(batch.len(), 0);
    }

    #[test]
    fn an_interface_that_is_none_is_an_error() {
        assert!(WireSocket::bind("no-such-link").is_err());
        assert!(WireReceiver::bind("no-such-link", ends().0, 1 << 16).is_err());
    }
}
