//! Batches: the buffers that datagrams are received into and sent from.
//!
//! Both are made once and used for every system call after that; neither grows beyond its named
//! bounds. A *train* is what segmentation offload carries through the system as one: consecutive
//! datagrams between the same two addresses, all of one length but for the last, which may be
//! shorter.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

/// Datagrams, or trains of them, taken by one receive.
pub const MAX_BATCH: usize = 32;

/// Datagrams that wait to be sent by one call.
pub const MAX_SEND: usize = 256;

/// The largest UDP payload there is: IPv6 without jumbograms, 65,535 bytes less the UDP header.
pub const MAX_DATAGRAM: usize = 65_527;

/// The most datagrams in a train to be sent: `UDP_MAX_SEGMENTS` of every Linux that has offload.
const MAX_TRAIN: usize = 64;

/// The most bytes in a train to be sent: what fits into an IPv4 packet with its headers.
const MAX_TRAIN_BYTES: usize = 65_507;

/// The longest datagram of a train: what an Ethernet frame takes over IPv4. Longer ones would be
/// fragmented, which offload does not do.
const MAX_SEGMENT: usize = 1472;

/// Keeps the heads of neighbouring slots out of one another's cache sets, which a power of two
/// between them would not.
const SLOT_GAP: usize = 5 * 64;

/// One datagram as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours it was sent to: answer from here. On a wildcard socket the portable
    /// back end cannot know it and leaves the address unspecified.
    pub local: SocketAddr,
    /// The payload.
    pub bytes: &'a [u8],
}

/// What a back end notes of one received datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) from: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) len: usize,
    /// Bytes of each datagram of a train but the last.
    pub(crate) segment: usize,
}

impl Meta {
    pub(crate) const EMPTY: Self = Self {
        from: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        len: 0,
        segment: 0,
    };
}

/// Slots that [`UdpSocket::recv_batch`](crate::UdpSocket::recv_batch) fills.
///
/// The memory is zero pages until a datagram touches it, so slots of full size cost a small
/// datagram one page each.
#[derive(Debug)]
pub struct RecvBatch {
    memory: Vec<u8>,
    slot_size: usize,
    metas: Vec<Meta>,
    slots: usize,
    /// Slots that the next receive fills at most.
    wanted: usize,
    truncated: usize,
    #[cfg(target_os = "linux")]
    scratch: crate::udp::linux::RecvScratch,
}

impl RecvBatch {
    /// `slots` datagrams (at most [`MAX_BATCH`]) of up to `slot_size` bytes (at most
    /// [`MAX_DATAGRAM`]); longer ones are dropped and counted in [`truncated`](Self::truncated).
    #[must_use]
    pub fn new(slots: usize, slot_size: usize) -> Self {
        let slots = slots.clamp(1, MAX_BATCH);
        let slot_size = slot_size.clamp(1, MAX_DATAGRAM);
        Self {
            memory: vec![0; slots * stride(slot_size)],
            slot_size,
            metas: Vec::with_capacity(slots),
            slots,
            wanted: slots,
            truncated: 0,
            #[cfg(target_os = "linux")]
            scratch: crate::udp::linux::RecvScratch::new(slots),
        }
    }

    /// Datagrams of the last receive, in the order of their arrival; trains are cut up.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let slots = self.memory.chunks_exact(stride(self.slot_size));
        let filled = self.metas.iter().zip(slots);
        filled
            .filter_map(|(meta, slot)| Some((meta, slot.get(..meta.len)?)))
            .flat_map(|(meta, train)| {
                segments(train, meta.segment).map(|bytes| Datagram {
                    from: meta.from,
                    local: meta.local,
                    bytes,
                })
            })
    }

    /// Datagrams, or trains, that a receive takes at most: one that takes so many has probably left more behind.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.wanted
    }

    /// Has the next receives take at most so many, or all that there are slots for: preparing 32 slots for one datagram
    /// takes a twelfth of the time of receiving it.
    pub fn set_capacity(&mut self, wanted: usize) {
        self.wanted = wanted.clamp(1, self.slots);
    }

    /// Datagrams of the last receive that were longer than a slot and are not in it.
    #[must_use]
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    pub(crate) fn clear(&mut self) {
        self.metas.clear();
        self.truncated = 0;
    }

    /// Closes slot `self.metas.len()` with what was received into it. A truncated datagram keeps
    /// its slot, empty, so that slots and metas stay in step; `iter` never shows it.
    pub(crate) fn push_meta(&mut self, meta: Meta) {
        if meta.len > self.slot_size {
            self.truncated += 1;
            self.metas.push(Meta {
                len: usize::MAX,
                ..meta
            });
        } else {
            self.metas.push(meta);
        }
    }

    pub(crate) fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// The memory of the wanted slots, each slot one byte longer than `slot_size` so that the portable back end
    /// sees a datagram that does not fit.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.slot_size + 1;
        self.memory
            .chunks_exact_mut(stride(self.slot_size))
            .take(self.wanted)
            .map(move |slot| &mut slot[..len])
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn take_scratch(&mut self) -> crate::udp::linux::RecvScratch {
        std::mem::take(&mut self.scratch)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn put_scratch(&mut self, scratch: crate::udp::linux::RecvScratch) {
        self.scratch = scratch;
    }
}

fn stride(slot_size: usize) -> usize {
    (slot_size + 1).next_multiple_of(64) + SLOT_GAP
}

/// The datagrams of a train. One that is empty is a datagram too.
fn segments(train: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = train.split_at(segment.min(train.len()));
    std::iter::once(first).chain(rest.chunks(segment.max(1)))
}

/// Datagrams to send on one socket, gathered until
/// [`UdpSocket::send_batch`](crate::UdpSocket::send_batch) sends them.
///
/// The bytes are copied into one arena, so the receive buffers are free at once. Datagrams for one
/// address leave in their order, as trains where they can; those for different addresses may pass
/// each other.
#[derive(Debug)]
pub struct SendBatch {
    arena: Vec<u8>,
    datagrams: Vec<Segment>,
    trains: Vec<Train>,
    /// By destination, the train that was added to last: its number + 1. Others may have the same
    /// place, and then trains are shorter.
    recent: [u16; RECENT],
}

/// Places for destinations whose train may be added to.
const RECENT: usize = 64;

/// One datagram of a train: its bytes in the arena.
#[derive(Debug, Clone)]
struct Segment {
    bytes: Range<usize>,
    /// The number of the next one of its train.
    next: Option<u16>,
}

/// Datagrams that leave as one, if the system can: a single one is a train too.
#[derive(Debug, Clone)]
pub(crate) struct Train {
    pub(crate) to: SocketAddr,
    pub(crate) from: IpAddr,
    /// How many.
    pub(crate) count: usize,
    /// Bytes of all of them.
    pub(crate) total: usize,
    /// Bytes of each but the last.
    pub(crate) segment: usize,
    first: u16,
    last: u16,
}

impl Train {
    /// True if a datagram of `len` bytes may follow.
    fn takes(&self, to: SocketAddr, from: IpAddr, len: usize) -> bool {
        self.to == to
            && self.from == from
            && len <= self.segment
            && len > 0
            && self.segment <= MAX_SEGMENT
            && self.count < MAX_TRAIN
            // A shorter one was the last.
            && self.total == self.segment * self.count
            && self.total + len <= MAX_TRAIN_BYTES
    }
}

/// An arena that has grown past this is given back once it is sent, so that one burst of large
/// datagrams is not kept for ever.
const ARENA_KEPT: usize = 128 * 1024;

/// Bytes after which a batch is full however few its datagrams are.
const ARENA_FULL: usize = 512 * 1024;

impl Default for SendBatch {
    fn default() -> Self {
        Self {
            arena: Vec::new(),
            datagrams: Vec::new(),
            trains: Vec::new(),
            recent: [0; RECENT],
        }
    }
}

impl SendBatch {
    /// An empty batch; allocates with the first push.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a datagram made of `parts`, to leave for `to` from our address `from`.
    ///
    /// `from` matters on wildcard sockets only; unspecified leaves the choice to the system.
    /// False, and nothing appended, if the batch [is full](Self::is_full): send it first.
    #[must_use]
    pub fn push(&mut self, to: SocketAddr, from: IpAddr, parts: &[&[u8]]) -> bool {
        let Some(number) = self.next_number() else {
            return false;
        };
        let start = self.arena.len();
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        let len = self.arena.len() - start;
        self.datagrams.push(Segment {
            bytes: start..self.arena.len(),
            next: None,
        });
        let place = place(to);
        let recent = self.recent.get_mut(place);
        let train = recent
            .as_ref()
            .and_then(|recent| self.trains.get_mut(usize::from(**recent).checked_sub(1)?))
            .filter(|train| train.takes(to, from, len));
        if let Some(train) = train {
            let last = std::mem::replace(&mut train.last, number);
            train.count += 1;
            train.total += len;
            if let Some(last) = self.datagrams.get_mut(usize::from(last)) {
                last.next = Some(number);
            }
            return true;
        }
        self.trains.push(Train {
            to,
            from,
            count: 1,
            total: len,
            segment: len,
            first: number,
            last: number,
        });
        // At most as many trains as datagrams, whose numbers fit.
        if let (Some(recent), Ok(count)) = (recent, u16::try_from(self.trains.len())) {
            *recent = count;
        }
        true
    }

    fn next_number(&self) -> Option<u16> {
        let number = u16::try_from(self.datagrams.len()).ok()?;
        (!self.is_full()).then_some(number)
    }

    /// Datagrams waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// No datagram is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Holds [`MAX_SEND`] datagrams, or as many bytes as are worth one call.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.datagrams.len() >= MAX_SEND || self.arena.len() >= ARENA_FULL
    }

    /// Bytes that it holds on to, also when it is empty.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.arena.capacity()
            + self.datagrams.capacity() * size_of::<Segment>()
            + self.trains.capacity() * size_of::<Train>()
    }

    pub(crate) fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The datagrams of a train, in order.
    pub(crate) fn datagrams<'b>(&'b self, train: &Train) -> impl Iterator<Item = &'b [u8]> {
        let mut next = Some(train.first);
        std::iter::from_fn(move || {
            // `push` is the only maker of numbers and ranges, and both vectors only grow until
            // `clear`.
            let segment = self.datagrams.get(usize::from(next?))?;
            next = segment.next;
            self.arena.get(segment.bytes.clone())
        })
    }

    pub(crate) fn clear(&mut self) {
        self.datagrams.clear();
        self.trains.clear();
        self.recent = [0; RECENT];
        self.arena.clear();
        if self.arena.capacity() > ARENA_KEPT {
            self.arena = Vec::new();
        }
    }
}

/// Where a destination's train is remembered.
fn place(to: SocketAddr) -> usize {
    let ip = match to.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        // The end of an address differs between neighbours.
        IpAddr::V6(ip) => {
            let [.., high, low] = ip.segments();
            u32::from(high) << 16 | u32::from(low)
        }
    };
    let mixed = (ip ^ u32::from(to.port()).rotate_left(16)).wrapping_mul(0x9e37_79b1);
    // The upper bits of a product are mixed best.
    usize::try_from(mixed >> 26).unwrap_or(0) % RECENT
}

/// What became of a [`SendBatch`]: every datagram is in exactly one of the four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Taken by the system.
    pub sent: usize,
    /// Payload bytes of those.
    pub sent_bytes: usize,
    /// Dropped: the socket's send queue was full.
    pub queue_full: usize,
    /// Dropped: longer than the path takes and not to be fragmented.
    pub too_large: usize,
    /// Dropped: the system refused (no route, a firewall, an address it cannot send to).
    pub refused: usize,
}

impl SendReport {
    /// Datagrams that were not sent.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.queue_full + self.too_large + self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Each train: where it goes, and the lengths of its datagrams.
    fn trains(batch: &SendBatch) -> Vec<(u16, Vec<usize>)> {
        let lengths = |train| batch.datagrams(train).map(<[u8]>::len).collect();
        let trains = batch.trains().iter();
        trains
            .map(|train| (train.to.port(), lengths(train)))
            .collect()
    }

    #[test]
    fn parts_become_one_datagram_and_a_full_batch_refuses() {
        let mut batch = SendBatch::new();
        assert!(batch.push(to(9), ANY, &[b"head", b"", b"payload"]));
        let first = batch.trains().first().unwrap();
        assert_eq!(batch.datagrams(first).collect::<Vec<_>>(), [b"headpayload"]);
        for _ in 1..MAX_SEND {
            assert!(batch.push(to(9), ANY, &[b"x"]));
        }
        assert!(batch.is_full());
        assert!(!batch.push(to(9), ANY, &[b"one too many"]));
        assert_eq!(batch.len(), MAX_SEND);
    }

    #[test]
    fn datagrams_of_one_length_for_one_address_are_a_train() {
        let mut batch = SendBatch::new();
        for _ in 0..3 {
            for port in [5001, 5002] {
                assert!(batch.push(to(port), ANY, &[&[7; 100]]));
            }
        }
        assert_eq!(
            trains(&batch),
            [(5001, vec![100; 3]), (5002, vec![100; 3])],
            "others may stand between them"
        );
    }

    #[test]
    fn a_shorter_datagram_ends_its_train_and_a_longer_one_begins_another() {
        let mut batch = SendBatch::new();
        for len in [100, 100, 60, 100, 100, 200, 0, 0] {
            assert!(batch.push(to(5001), ANY, &[&vec![7; len]]));
        }
        let lengths: [&[usize]; 5] = [&[100, 100, 60], &[100, 100], &[200], &[0], &[0]];
        assert_eq!(trains(&batch), lengths.map(|train| (5001, train.to_vec())));
    }

    #[test]
    fn no_train_is_longer_than_the_system_takes() {
        let mut batch = SendBatch::new();
        for _ in 0..MAX_TRAIN + 1 {
            assert!(batch.push(to(5001), ANY, &[&[7; 10]]));
        }
        assert_eq!(
            trains(&batch),
            [(5001, vec![10; MAX_TRAIN]), (5001, vec![10])]
        );
        let mut batch = SendBatch::new();
        for _ in 0..50 {
            assert!(batch.push(to(5001), ANY, &[&[7; MAX_SEGMENT]]));
        }
        assert!(
            batch
                .trains()
                .iter()
                .all(|train| train.total <= MAX_TRAIN_BYTES)
        );
        batch.clear();
        for _ in 0..2 {
            assert!(batch.push(to(5001), ANY, &[&[7; MAX_SEGMENT + 1]]));
        }
        assert_eq!(
            batch.trains().len(),
            2,
            "what must be fragmented is no train"
        );
    }

    #[test]
    fn another_source_address_is_another_train() {
        let mut batch = SendBatch::new();
        for last in [1, 2, 2] {
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            assert!(batch.push(to(5001), from, &[b"x"]));
        }
        assert_eq!(trains(&batch), [(5001, vec![1]), (5001, vec![1, 1])]);
    }

    #[test]
    fn trains_are_cut_where_they_were_joined() {
        let train = [1, 1, 1, 2, 2, 2, 3];
        let cut: Vec<&[u8]> = segments(&train, 3).collect();
        assert_eq!(cut, [&[1, 1, 1][..], &[2, 2, 2], &[3]]);
        let empty: [&[u8]; 1] = [&[]];
        assert_eq!(segments(&[], 0).collect::<Vec<_>>(), empty);
        assert_eq!(segments(&[1, 2], 2).collect::<Vec<_>>(), [&[1, 2]]);
    }

    #[test]
    fn a_burst_of_large_datagrams_is_not_kept() {
        let mut batch = SendBatch::new();
        let large = vec![7; 60_000];
        let mut pushed = 0;
        while batch.push(to(9), ANY, &[&large]) {
            pushed += 1;
        }
        assert_eq!(pushed, ARENA_FULL.div_ceil(large.len()));
        assert!(batch.memory() > ARENA_FULL);
        batch.clear();
        assert!(batch.memory() < ARENA_KEPT);
        assert!(batch.is_empty());
        assert_eq!(batch.arena.capacity(), 0);
    }
}
