//! What two `play` processes say to each other.
//!
//! Unreliable: `kind (1) | number (4) | padding`, and back again with the other kind. Reliable: one letter, then the bytes of
//! the file (`d`) or a word of the conversation as JSON (`c`).

use serde::{Deserialize, Serialize};

const PING: u8 = 0;
const ECHO: u8 = 1;
const DATA: u8 = b'd';
const CONTROL: u8 = b'c';

/// A numbered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbered {
    /// The other player's.
    Ping(u32),
    /// Ours, come back.
    Echo(u32),
}

/// A numbered message of `size` bytes (five at least).
pub(crate) fn ping(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.push(PING);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(size.max(bytes.len()), 0);
    bytes
}

/// The same message, to be sent back.
pub(crate) fn echo_of(ping: &[u8]) -> Vec<u8> {
    let mut bytes = ping.to_vec();
    if let Some(kind) = bytes.first_mut() {
        *kind = ECHO;
    }
    bytes
}

/// Reads a numbered message; `None` when it is none.
pub(crate) fn numbered(bytes: &[u8]) -> Option<Numbered> {
    let (kind, rest) = bytes.split_first()?;
    let number = u32::from_be_bytes(*rest.first_chunk()?);
    match *kind {
        PING => Some(Numbered::Ping(number)),
        ECHO => Some(Numbered::Echo(number)),
        _ => None,
    }
}

/// A word of the conversation on the reliable channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Word {
    /// The first word of both.
    Hello {
        /// Numbered messages that will be sent.
        count: u32,
        /// The length of the file that will be sent.
        file_bytes: Option<u64>,
        /// Whether a file is awaited.
        takes_file: bool,
    },
    /// The file is out.
    FileEnd {
        /// Its length.
        bytes: u64,
        /// Its SHA-256, in hexadecimal.
        sha256: String,
    },
    /// The file is here, and right.
    FileGood,
    /// The file is here, and cannot be had.
    FileBad {
        /// In words.
        reason: String,
    },
    /// All that I was to send and to receive is done.
    Complete,
    /// I heard that you are complete, and am so too.
    Goodbye,
}

/// A message on the reliable channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reliable<'a> {
    /// A piece of the file.
    Data(&'a [u8]),
    /// A word.
    Word(Word),
}

pub(crate) fn data(piece: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(piece.len() + 1);
    bytes.push(DATA);
    bytes.extend_from_slice(piece);
    bytes
}

pub(crate) fn word(word: &Word) -> Vec<u8> {
    let mut bytes = vec![CONTROL];
    serde_json::to_writer(&mut bytes, word).expect("words are plain data, and memory takes them");
    bytes
}

/// Reads a message of the reliable channel; `None` when it is none.
pub(crate) fn reliable(bytes: &[u8]) -> Option<Reliable<'_>> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        DATA => Some(Reliable::Data(rest)),
        CONTROL => serde_json::from_slice(rest).ok().map(Reliable::Word),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let message = ping(70_000, 64);
        assert_eq!(message.len(), 64);
        assert_eq!(numbered(&message), Some(Numbered::Ping(70_000)));
        assert_eq!(numbered(&echo_of(&message)), Some(Numbered::Echo(70_000)));
        assert_eq!(reliable(&data(b"abc")), Some(Reliable::Data(b"abc")));
        let hello = Word::Hello {
            count: 3,
            file_bytes: None,
            takes_file: true,
        };
        assert_eq!(reliable(&word(&hello)), Some(Reliable::Word(hello)));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for bytes in [&b""[..], b"\0", b"\0abc", b"\x07abcdefg"] {
            assert_eq!(numbered(bytes), None, "{bytes:?}");
        }
        for bytes in [&b""[..], b"x", b"c", b"c{}", br#"c{"say":"sing"}"#] {
            assert_eq!(reliable(bytes), None, "{bytes:?}");
        }
    }
}
