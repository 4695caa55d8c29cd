//! Every bound of the protocol that client and server must agree on, by name.

/// Longest frame in bytes, in either direction (`docs/signaling-protocol.md`, Limits).
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Most messages in one frame.
pub const BATCH_MESSAGES: usize = 32;
/// Longest `hello.name` in characters.
pub const NAME_CHARS: usize = 64;
/// Longest `hello.game` in bytes.
pub const GAME_BYTES: usize = 64;
/// Longest `hello.build` and `hello.sdk` in bytes.
pub const BUILD_BYTES: usize = 64;
/// Longest `lobby.join.passphrase` in bytes, whatever format the server asks for.
pub const PASSPHRASE_BYTES: usize = 256;
/// Longest `signal.conn` in bytes.
pub const CONNECTION_BYTES: usize = 64;
/// Longest serialised `signal.data` in bytes.
pub const SIGNAL_DATA_BYTES: usize = 12 * 1024;
/// Longest signed session description in bytes, before base64url.
pub const DESCRIPTION_BYTES: usize = 4 * 1024;
/// Longest candidate string in bytes.
pub const CANDIDATE_BYTES: usize = 1024;
/// Smallest lobby.
pub const LOBBY_MEMBERS_MIN: u16 = 2;
/// Largest lobby any server offers.
pub const LOBBY_MEMBERS_MAX: u16 = 256;
/// Largest whole number that every JSON reader keeps exactly (2^53 - 1): `id`, `ack`, `seq`, `t`.
pub const SAFE_INTEGER: u64 = (1 << 53) - 1;
