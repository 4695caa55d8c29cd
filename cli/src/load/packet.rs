//! What every packet of ours begins with, and what the relay put around it.
//!
//! ```text
//! | run: 4 | flow: 4 | number: 8 | sent, ns since the run began: 8 | zeros up to --size |
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use stun_wire::attribute::{Data, XorPeerAddress};
use stun_wire::channel_data::{ChannelData, ChannelNumber, is_channel_data};
use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};

/// Bytes of a [`Stamp`]: the smallest packet.
pub(crate) const STAMP_LEN: usize = 24;

/// The one channel that each client binds.
pub(crate) const CHANNEL: ChannelNumber = ChannelNumber::MIN;

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Drawn at random, so that packets of an earlier run are known.
    pub(crate) run: u32,
    pub(crate) flow: u32,
    pub(crate) number: u64,
    pub(crate) sent: Duration,
}

impl Stamp {
    pub(crate) fn bytes(&self) -> [u8; STAMP_LEN] {
        let mut bytes = [0; STAMP_LEN];
        let nanos = u64::try_from(self.sent.as_nanos()).unwrap_or(u64::MAX);
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&nanos.to_be_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (run, rest) = bytes.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (nanos, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u32::from_be_bytes(*run),
            flow: u32::from_be_bytes(*flow),
            number: u64::from_be_bytes(*number),
            sent: Duration::from_nanos(u64::from_be_bytes(*nanos)),
        })
    }
}

/// Puts a payload into a Send indication (RFC 8656 section 11.1) in `out`, which is emptied first.
pub(crate) fn write_send_indication(out: &mut Vec<u8>, peer: SocketAddr, payload: &[u8]) {
    out.clear();
    // Nothing answers an indication, so its transaction id may be any.
    let id = TransactionId([0; 12]);
    let mut writer = MessageWriter::new(out, Class::Indication, Method::SEND, id);
    writer
        .attribute(&XorPeerAddress(peer))
        .attribute(&Data(payload));
    writer.finish();
}

/// The payload of what the relay sent a client, if it is `peer`'s: ChannelData on our channel, or a Data indication.
pub(crate) fn payload_from(peer: SocketAddr, bytes: &[u8]) -> Option<&[u8]> {
    if is_channel_data(bytes, false) {
        let data = ChannelData::parse(bytes).ok()?;
        return bytes.get(data.payload).filter(|_| data.channel == CHANNEL);
    }
    let message = Message::parse(bytes).ok()?;
    let is_data = message.class() == Class::Indication && message.method() == Method::DATA;
    let from = message.attribute::<XorPeerAddress>().ok()??;
    let data = message.attribute::<Data<'_>>().ok()??;
    (is_data && from.0 == peer).then_some(data.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0x0102_0304,
        flow: 5,
        number: 1 << 40,
        sent: Duration::from_nanos(123_456_789_012),
    };

    fn peer() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 4000))
    }

    #[test]
    fn stamp_reads_back_from_a_longer_packet() {
        let mut packet = STAMP.bytes().to_vec();
        packet.resize(100, 0);
        assert_eq!(Stamp::parse(&packet), Some(STAMP));
        assert_eq!(packet[..4], [1, 2, 3, 4]);
        assert_eq!(Stamp::parse(&packet[..STAMP_LEN - 1]), None);
    }

    #[test]
    fn channel_data_is_taken_from_our_channel_alone() {
        let framed = |number| {
            let channel = ChannelNumber::new(number).expect("a channel");
            let mut bytes = ChannelData::header(channel, 3).expect("short").to_vec();
            bytes.extend_from_slice(b"abc");
            bytes
        };
        assert_eq!(payload_from(peer(), &framed(0x4000)), Some(&b"abc"[..]));
        assert_eq!(payload_from(peer(), &framed(0x4001)), None);
    }

    #[test]
    fn data_indications_are_taken_from_our_peer_alone() {
        let mut sent = Vec::new();
        write_send_indication(&mut sent, peer(), b"abcde");
        let message = Message::parse(&sent).expect("a message");
        assert_eq!(
            (message.class(), message.method()),
            (Class::Indication, Method::SEND)
        );
        assert_eq!(message.attribute(), Ok(Some(Data(b"abcde"))));
        assert_eq!(payload_from(peer(), &sent), None, "Send is not Data");

        let mut received = Vec::new();
        let id = TransactionId([1; 12]);
        let mut writer = MessageWriter::new(&mut received, Class::Indication, Method::DATA, id);
        writer
            .attribute(&XorPeerAddress(peer()))
            .attribute(&Data(b"abcde"));
        writer.finish();
        assert_eq!(payload_from(peer(), &received), Some(&b"abcde"[..]));
        let other = SocketAddr::from(([192, 0, 2, 2], 4000));
        assert_eq!(payload_from(other, &received), None);
    }
}
