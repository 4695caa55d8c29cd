//! A session: what a native player keeps when its connection is cut.

use crate::connection::ConnId;
use crate::replay::Replay;
use signal_wire::{LobbyId, MemberId, ResumeToken};

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: ResumeToken,
    pub(crate) game: Box<str>,
    pub(crate) name: Box<str>,
    /// `None` while cut.
    pub(crate) conn: Option<ConnId>,
    pub(crate) lobby: Option<(LobbyId, MemberId)>,
    pub(crate) replay: Replay,
}
