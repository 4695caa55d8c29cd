//! Error codes of `error` replies and close codes of the WebSocket.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! error_codes {
    ($($(#[$docs:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request was refused, or what ended the connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$docs])* #[serde(rename = $text)] $name,)*
            /// A code this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code a server of this version sends or reserves.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

error_codes! {
    /// Not a message, or members missing, of the wrong type or out of bounds.
    BadRequest = "bad_request",
    /// A `type` this server does not know.
    UnknownType = "unknown_type",
    /// `hello` has not been said yet.
    Unauthorized = "unauthorized",
    /// Known, and not allowed.
    Forbidden = "forbidden",
    /// No such lobby or member.
    NotFound = "not_found",
    /// The name is taken in that lobby, or `hello` was said twice.
    Conflict = "conflict",
    /// The lobby holds as many members as it takes.
    LobbyFull = "lobby_full",
    /// The passphrase has not the form this server asks for.
    BadPassphrase = "bad_passphrase",
    /// This session is in a lobby already.
    AlreadyMember = "already_member",
    /// Too many of these; `retry_after_ms` says when the next is taken.
    RateLimited = "rate_limited",
    /// The server holds as many sessions, lobbies or addresses as it takes.
    Busy = "busy",
    /// The server is going down or cannot do this for the moment.
    Unavailable = "unavailable",
    /// This build of the game is too old.
    UpgradeRequired = "upgrade_required",
    /// A message or one of its members is longer than the limit.
    TooLarge = "too_large",
    /// A fault of the server.
    Internal = "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

macro_rules! close_codes {
    ($($(#[$docs:meta])* $name:ident = $code:literal,)*) => {
        /// Why the server closed the WebSocket (RFC 6455 §7.4; 4000 to 4999 are ours).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$docs])* $name,)*
        }

        impl CloseCode {
            /// Every code a server of this version sends.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number in the close frame.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The known code of a number.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// The client closed, or left the passphrase door.
    Normal = 1000,
    /// The server goes down: reconnect after the time `server.drain` named.
    GoingAway = 1001,
    /// Against the rules of this server, e.g. silence in place of `hello`.
    Policy = 1008,
    /// A frame longer than [`crate::limits::MESSAGE_BYTES`].
    TooBig = 1009,
    /// Frames that are no messages: binary, or not JSON, again and again.
    BadFrame = 4400,
    /// The client reads too slowly for what is sent to it.
    SlowConsumer = 4408,
    /// The session was resumed by a newer connection.
    SessionReplaced = 4409,
    /// No answer to two pings in a row.
    Idle = 4410,
    /// Messages above the limit, again and again.
    RateLimited = 4429,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_unknown_ones_are_unknown() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
        let future: ErrorCode = serde_json::from_str("\"from_the_future\"").unwrap();
        assert_eq!(future, ErrorCode::Unknown);
    }

    #[test]
    fn close_codes_read_back() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), Some(*code));
        }
        assert_eq!(CloseCode::from_code(4999), None);
    }
}
