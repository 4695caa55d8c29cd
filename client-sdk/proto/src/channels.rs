//! How messages lie in the session: which bytes name the channel, where a message ends, how much may wait.
//!
//! ```text
//! unreliable         one DATAGRAM frame:           [channel u8][message]
//! probe, its answer  one DATAGRAM frame:           [255][0 or 1][number u8]
//! reliable, ordered  one stream a channel and way: [channel u8] ([length varint][message])*
//! ```
//! The length is a QUIC variable-length integer (RFC 9000 §16) of at most four bytes.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::types::ChannelId;

/// The channel of the session's own probes; games use those below it.
pub const RESERVED_CHANNEL: ChannelId = 255;
/// The longest reliable message, in bytes.
pub const MAX_RELIABLE_MESSAGE: usize = 256 * 1024;
/// Reliable channels one player may use.
pub const MAX_RELIABLE_CHANNELS: usize = 16;
/// Bytes of reliable messages that may wait on one channel before [`SendError::Full`].
pub const MAX_QUEUED: usize = 1024 * 1024;

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There is no open session with this player.
    NotConnected,
    /// The message is longer than the channel's mode allows.
    TooLarge {
        /// The most it takes at the moment, in bytes.
        max: usize,
    },
    /// Too much waits on this reliable channel already; try again when some of it has left.
    Full {
        /// The bytes that wait.
        queued: usize,
    },
    /// The channel was not declared, or there are [`MAX_RELIABLE_CHANNELS`] reliable ones in use.
    UnknownChannel,
    /// The endpoint was shut down.
    Closed,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotConnected => f.write_str("there is no open session with this player"),
            Self::TooLarge { max } => write!(f, "the message is longer than {max} bytes"),
            Self::Full { queued } => write!(f, "{queued} bytes wait on this channel already"),
            Self::UnknownChannel => f.write_str("the channel was not declared"),
            Self::Closed => f.write_str("the endpoint was shut down"),
        }
    }
}

impl std::error::Error for SendError {}

/// Reliable messages of one channel on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Bytes>,
    queued: usize,
}

impl Outbox {
    /// The outbox of a stream just opened: it starts with the channel's number.
    pub(crate) fn open(channel: ChannelId) -> Self {
        let mut outbox = Self::default();
        outbox.push_chunk(Bytes::copy_from_slice(&[channel]));
        outbox
    }

    pub(crate) fn push(&mut self, message: Bytes) -> Result<(), SendError> {
        if message.len() > MAX_RELIABLE_MESSAGE {
            return Err(SendError::TooLarge {
                max: MAX_RELIABLE_MESSAGE,
            });
        }
        if self.queued + message.len() > MAX_QUEUED {
            return Err(SendError::Full {
                queued: self.queued,
            });
        }
        self.push_chunk(length_prefix(message.len()));
        self.push_chunk(message);
        Ok(())
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// The next bytes to write; tell [`Self::written`] how many were.
    pub(crate) fn front(&mut self) -> Option<&mut Bytes> {
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        self.chunks.front_mut()
    }

    pub(crate) fn written(&mut self, count: usize) {
        if let Some(front) = self.chunks.front_mut() {
            front.advance(count);
            self.queued -= count;
        }
    }

    fn push_chunk(&mut self, chunk: Bytes) {
        self.queued += chunk.len();
        self.chunks.push_back(chunk);
    }
}

/// The other player broke the framing above; the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramingError;

/// Reliable messages of one stream on their way in. Holds at most one message and the bytes that arrived with its end.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    channel: Option<ChannelId>,
    buffer: BytesMut,
}

impl Inbox {
    pub(crate) fn channel(&self) -> Option<ChannelId> {
        self.channel
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.channel.is_none() && !self.buffer.is_empty() {
            self.channel = Some(self.buffer.get_u8());
        }
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        let Some((prefix, length)) = read_length(&self.buffer)? else {
            return Ok(None);
        };
        if length > MAX_RELIABLE_MESSAGE {
            return Err(FramingError);
        }
        if self.buffer.len() < prefix + length {
            self.buffer.reserve(prefix + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// RFC 9000 §16, the forms of one, two and four bytes.
fn length_prefix(length: usize) -> Bytes {
    let value = u32::try_from(length).expect("at most MAX_RELIABLE_MESSAGE");
    match length {
        0..=0x3f => Bytes::copy_from_slice(&value.to_be_bytes()[3..]),
        0x40..=0x3fff => Bytes::copy_from_slice(&(value | 0x4000).to_be_bytes()[2..]),
        _ => Bytes::copy_from_slice(&(value | 0x8000_0000).to_be_bytes()),
    }
}

/// The bytes of the prefix and the length it tells; `None` when it is not whole yet.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FramingError> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    let prefix = match first >> 6 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => return Err(FramingError),
    };
    let Some(encoded) = bytes.get(..prefix) else {
        return Ok(None);
    };
    let value = encoded
        .iter()
        .fold(0_usize, |value, byte| (value << 8) | usize::from(*byte));
    Ok(Some((prefix, value & ((1 << (8 * prefix - 2)) - 1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(front) = outbox.front() {
            let count = step.min(front.len());
            bytes.extend_from_slice(&front[..count]);
            outbox.written(count);
        }
        bytes
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_stream(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..6),
            step in 1_usize..3000,
        ) {
            let mut outbox = Outbox::open(9);
            for message in &messages {
                prop_assert_eq!(outbox.push(Bytes::from(message.clone())), Ok(()));
            }
            let wire = drain(&mut outbox, step);
            prop_assert_eq!(outbox.queued(), 0);
            let mut inbox = Inbox::default();
            let mut read = Vec::new();
            for chunk in wire.chunks(step) {
                inbox.push(chunk);
                while let Ok(Some(message)) = inbox.next() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(inbox.channel(), Some(9));
            prop_assert_eq!(read, messages);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_buffered() {
        let mut inbox = Inbox::default();
        inbox.push(&[0, 0xbf, 0xff, 0xff, 0xff]);
        assert_eq!(inbox.next(), Err(FramingError));
        let mut inbox = Inbox::default();
        inbox.push(&[0, 0xc0]);
        assert_eq!(inbox.next(), Err(FramingError));
    }

    #[test]
    fn a_full_outbox_says_how_much_waits() {
        let mut outbox = Outbox::open(0);
        let message = Bytes::from(vec![0; MAX_RELIABLE_MESSAGE]);
        while outbox.push(message.clone()).is_ok() {}
        assert!(outbox.queued() <= MAX_QUEUED);
        assert!(
            matches!(outbox.push(message), Err(SendError::Full { queued }) if queued > MAX_QUEUED / 2)
        );
    }

    #[test]
    fn a_message_too_long_is_refused_whole() {
        let mut outbox = Outbox::open(0);
        let long = Bytes::from(vec![0; MAX_RELIABLE_MESSAGE + 1]);
        assert_eq!(
            outbox.push(long),
            Err(SendError::TooLarge {
                max: MAX_RELIABLE_MESSAGE
            })
        );
    }
}
