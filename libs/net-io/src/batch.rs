//! Batches: the buffers that datagrams are received into and sent from.
//!
//! Both are made once and used for every system call after that; neither grows beyond
//! [`MAX_BATCH`] datagrams of [`MAX_DATAGRAM`] bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

/// Datagrams moved by one system call.
pub const MAX_BATCH: usize = 32;

/// The largest UDP payload there is: IPv6 without jumbograms, 65,535 bytes less the UDP header.
pub const MAX_DATAGRAM: usize = 65_527;

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
}

impl Meta {
    pub(crate) const EMPTY: Self = Self {
        from: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        len: 0,
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
            truncated: 0,
            #[cfg(target_os = "linux")]
            scratch: crate::udp::linux::RecvScratch::new(slots),
        }
    }

    /// Datagrams of the last receive, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        // A slot holds one datagram. With receive offload it would hold a train, cut up here.
        self.metas
            .iter()
            .zip(self.memory.chunks_exact(stride(self.slot_size)))
            .filter_map(|(meta, slot)| {
                let bytes = slot.get(..meta.len)?;
                Some(Datagram {
                    from: meta.from,
                    local: meta.local,
                    bytes,
                })
            })
    }

    /// Slots of the batch: a receive that fills them all has probably left more behind.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots
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

    /// The slots' memory, each slot one byte longer than `slot_size` so that the portable back end
    /// sees a datagram that does not fit.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.slot_size + 1;
        self.memory
            .chunks_exact_mut(stride(self.slot_size))
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

/// Datagrams to send on one socket, gathered until
/// [`UdpSocket::send_batch`](crate::UdpSocket::send_batch) sends them in order.
///
/// The bytes are copied into one arena: consecutive datagrams of one flow lie side by side, which
/// is what segmentation offload needs, and the receive buffers are free at once.
#[derive(Debug, Default)]
pub struct SendBatch {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

/// One datagram of a [`SendBatch`].
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) to: SocketAddr,
    pub(crate) from: IpAddr,
    pub(crate) bytes: Range<usize>,
}

/// An arena that has grown past this is given back once it is sent, so that one burst of large
/// datagrams is not kept for ever.
const ARENA_KEPT: usize = 128 * 1024;

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
        if self.is_full() {
            return false;
        }
        let start = self.arena.len();
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        self.entries.push(Entry {
            to,
            from,
            bytes: start..self.arena.len(),
        });
        true
    }

    /// Datagrams waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No datagram is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Holds [`MAX_BATCH`] datagrams.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_BATCH
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        // `push` is the only maker of entries, and the arena only grows until `clear`.
        self.arena.get(entry.bytes.clone()).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.arena.clear();
        if self.arena.capacity() > ARENA_KEPT {
            self.arena = Vec::new();
        }
    }
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

    const TO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn parts_become_one_datagram_and_a_full_batch_refuses() {
        let mut batch = SendBatch::new();
        assert!(batch.push(TO, ANY, &[b"head", b"", b"payload"]));
        assert_eq!(batch.bytes(&batch.entries()[0]), b"headpayload");
        for _ in 1..MAX_BATCH {
            assert!(batch.push(TO, ANY, &[b"x"]));
        }
        assert!(batch.is_full());
        assert!(!batch.push(TO, ANY, &[b"one too many"]));
        assert_eq!(batch.len(), MAX_BATCH);
    }

    #[test]
    fn a_burst_of_large_datagrams_is_not_kept() {
        let mut batch = SendBatch::new();
        let large = vec![7; 60_000];
        for _ in 0..4 {
            assert!(batch.push(TO, ANY, &[&large]));
        }
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.arena.capacity(), 0);
    }
}
