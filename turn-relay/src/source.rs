//! What a shard can read from, and the token by which the system names it.

use mio::Token;

use crate::sockets::SocketKey;

/// Something that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Commands,
    Socket(SocketKey),
    Accept(usize),
    Stream(usize),
    /// A listener on a relayed address (RFC 6062).
    PeerAccept(usize),
    /// A connection with a peer.
    Peer(usize),
    /// A deadline has come; there is nothing to read.
    Alarm,
}

/// The token of the waker, which tells of commands.
pub(crate) const WAKER: Token = Token(0);

impl Source {
    const KINDS: usize = 9;

    pub(crate) fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Commands => (0, 0),
            Self::Socket(SocketKey::Listener(index)) => (1, index),
            Self::Socket(SocketKey::Relay(index)) => (2, index),
            Self::Accept(index) => (3, index),
            Self::Stream(index) => (4, index),
            Self::PeerAccept(index) => (5, index),
            Self::Peer(index) => (6, index),
            Self::Alarm => (7, 0),
            Self::Socket(SocketKey::Connected(index)) => (8, index),
        };
        Token(index * Self::KINDS + kind)
    }

    pub(crate) fn of(token: Token) -> Self {
        let index = token.0 / Self::KINDS;
        match token.0 % Self::KINDS {
            1 => Self::Socket(SocketKey::Listener(index)),
            2 => Self::Socket(SocketKey::Relay(index)),
            3 => Self::Accept(index),
            4 => Self::Stream(index),
            5 => Self::PeerAccept(index),
            6 => Self::Peer(index),
            7 => Self::Alarm,
            8 => Self::Socket(SocketKey::Connected(index)),
            _ => Self::Commands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_sources() {
        let sources = [
            Source::Commands,
            Source::Socket(SocketKey::Listener(3)),
            Source::Socket(SocketKey::Relay(16_383)),
            Source::Accept(1),
            Source::Stream(8191),
            Source::PeerAccept(7),
            Source::Peer(70_000),
            Source::Alarm,
            Source::Socket(SocketKey::Connected(255)),
        ];
        for source in sources {
            assert_eq!(Source::of(source.token()), source);
        }
        assert_eq!(Source::Commands.token(), WAKER);
    }
}
