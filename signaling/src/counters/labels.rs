//! The closed labels of the metrics, and how the machine's words become labels.

use ops::label;
use signal_wire::{ClientBodyWith, CloseCode, ErrorCode, RawData, ServerBodyWith};
use signaling_lobby::{Admission, Dropped, Limiter, LobbyEnd, ResumeOutcome};

label! {
    /// Which way a message goes.
    pub(crate) enum Direction: "direction" {
        In = "in",
        Out = "out",
    }
}

label! {
    /// What a message is.
    pub(crate) enum MessageType: "type" {
        Hello = "hello",
        Welcome = "welcome",
        LobbyJoin = "lobby.join",
        LobbyJoined = "lobby.joined",
        MemberJoined = "lobby.member_joined",
        MemberLeft = "lobby.member_left",
        LobbyReady = "lobby.ready",
        LobbyLeave = "lobby.leave",
        LobbyLeft = "lobby.left",
        Signal = "signal",
        Ping = "ping",
        Pong = "pong",
        IceRequest = "ice.request",
        IceServers = "ice.servers",
        ServerDrain = "server.drain",
        Error = "error",
        /// Text of the passphrase door.
        Tank = "tank",
        /// What could not be read.
        Unreadable = "unreadable",
    }
}

impl MessageType {
    pub(crate) const fn of_client(body: &ClientBodyWith<RawData>) -> Self {
        match body {
            ClientBodyWith::Hello(_) => Self::Hello,
            ClientBodyWith::LobbyJoin(_) => Self::LobbyJoin,
            ClientBodyWith::LobbyLeave => Self::LobbyLeave,
            ClientBodyWith::Signal(_) => Self::Signal,
            ClientBodyWith::Ping(_) => Self::Ping,
            ClientBodyWith::IceRequest => Self::IceRequest,
        }
    }

    pub(crate) const fn of_server(body: &ServerBodyWith<RawData>) -> Self {
        match body {
            ServerBodyWith::Welcome(_) => Self::Welcome,
            ServerBodyWith::LobbyJoined(_) => Self::LobbyJoined,
            ServerBodyWith::MemberJoined(_) => Self::MemberJoined,
            ServerBodyWith::MemberLeft(_) => Self::MemberLeft,
            ServerBodyWith::LobbyReady(_) => Self::LobbyReady,
            ServerBodyWith::LobbyLeft => Self::LobbyLeft,
            ServerBodyWith::Signal(_) => Self::Signal,
            ServerBodyWith::IceServers(_) => Self::IceServers,
            ServerBodyWith::Pong(_) => Self::Pong,
            ServerBodyWith::ServerDrain(_) => Self::ServerDrain,
            ServerBodyWith::Error(_) => Self::Error,
        }
    }
}

label! {
    /// Why a connection ended.
    pub(crate) enum DisconnectReason: "reason" {
        /// The client said so.
        Closed = "closed",
        /// The network did.
        Lost = "lost",
        Idle = "idle",
        Slow = "slow",
        RateLimited = "rate_limited",
        BadFrame = "bad_frame",
        TooBig = "too_big",
        /// Against RFC 6455.
        Protocol = "protocol",
        Replaced = "replaced",
        Policy = "policy",
        Drained = "drained",
    }
}

impl From<CloseCode> for DisconnectReason {
    fn from(code: CloseCode) -> Self {
        match code {
            CloseCode::GoingAway => Self::Drained,
            CloseCode::TooBig => Self::TooBig,
            CloseCode::BadFrame => Self::BadFrame,
            CloseCode::SlowConsumer => Self::Slow,
            CloseCode::SessionReplaced => Self::Replaced,
            CloseCode::Idle => Self::Idle,
            CloseCode::RateLimited => Self::RateLimited,
            CloseCode::Normal => Self::Closed,
            CloseCode::Policy => Self::Policy,
        }
    }
}

label! {
    /// Why a connection did not come to be.
    pub(crate) enum RefusedWhy: "reason" {
        Draining = "draining",
        Full = "full",
        /// As many from that address as allowed.
        Address = "address",
        Rate = "rate",
        AddressTable = "address_table",
        /// Too many that have not upgraded yet.
        Handshakes = "handshakes",
        Tls = "tls",
        Origin = "origin",
        /// Not a WebSocket handshake as it should be.
        Handshake = "handshake",
    }
}

impl From<Admission> for RefusedWhy {
    fn from(why: Admission) -> Self {
        match why {
            Admission::Draining => Self::Draining,
            Admission::Full => Self::Full,
            Admission::AddressFull => Self::Address,
            Admission::ConnectRate(_) => Self::Rate,
            Admission::AddressTableFull => Self::AddressTable,
        }
    }
}

label! {
    /// The code of an error reply.
    pub(crate) enum ErrorLabel: "code" {
        BadRequest = "bad_request",
        UnknownType = "unknown_type",
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
        NotFound = "not_found",
        Conflict = "conflict",
        LobbyFull = "lobby_full",
        BadPassphrase = "bad_passphrase",
        AlreadyMember = "already_member",
        RateLimited = "rate_limited",
        Busy = "busy",
        Unavailable = "unavailable",
        TooLarge = "too_large",
        Other = "other",
    }
}

impl From<ErrorCode> for ErrorLabel {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BadRequest => Self::BadRequest,
            ErrorCode::UnknownType => Self::UnknownType,
            ErrorCode::Unauthorized => Self::Unauthorized,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Conflict => Self::Conflict,
            ErrorCode::LobbyFull => Self::LobbyFull,
            ErrorCode::BadPassphrase => Self::BadPassphrase,
            ErrorCode::AlreadyMember => Self::AlreadyMember,
            ErrorCode::RateLimited => Self::RateLimited,
            ErrorCode::Busy => Self::Busy,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::TooLarge => Self::TooLarge,
            // Reserved, not sent.
            ErrorCode::UpgradeRequired | ErrorCode::Internal | ErrorCode::Unknown => Self::Other,
        }
    }
}

label! {
    /// Which rate limit.
    pub(crate) enum LimiterLabel: "limiter" {
        Connect = "connect",
        Messages = "messages",
        Bytes = "bytes",
        Joins = "joins",
        Guesses = "guesses",
        Opens = "opens",
        /// WebSocket pings.
        Pings = "pings",
    }
}

impl From<Limiter> for LimiterLabel {
    fn from(limiter: Limiter) -> Self {
        match limiter {
            Limiter::Connect => Self::Connect,
            Limiter::Messages => Self::Messages,
            Limiter::Bytes => Self::Bytes,
            Limiter::Joins => Self::Joins,
            Limiter::Guesses => Self::Guesses,
            Limiter::Opens => Self::Opens,
        }
    }
}

label! {
    /// Whether a lobby is full.
    pub(crate) enum LobbyState: "state" {
        Waiting = "waiting",
        Ready = "ready",
    }
}

label! {
    /// Why a lobby ended.
    pub(crate) enum LobbyEndLabel: "reason" {
        Empty = "empty",
        Idle = "idle",
    }
}

impl From<LobbyEnd> for LobbyEndLabel {
    fn from(end: LobbyEnd) -> Self {
        match end {
            LobbyEnd::Empty => Self::Empty,
            LobbyEnd::Idle => Self::Idle,
        }
    }
}

label! {
    /// Whether a player with a session is there.
    pub(crate) enum PlayerState: "state" {
        Connected = "connected",
        /// Within the grace time after a cut.
        Cut = "cut",
    }
}

label! {
    /// How a resume went.
    pub(crate) enum ResumeLabel: "outcome" {
        Replayed = "replayed",
        Snapshot = "snapshot",
        Unknown = "unknown",
    }
}

impl From<ResumeOutcome> for ResumeLabel {
    fn from(outcome: ResumeOutcome) -> Self {
        match outcome {
            ResumeOutcome::Replayed => Self::Replayed,
            ResumeOutcome::Snapshot => Self::Snapshot,
            ResumeOutcome::Unknown => Self::Unknown,
        }
    }
}

label! {
    /// What was dropped within a bound.
    pub(crate) enum DroppedWhat: "what" {
        /// An event that was never acknowledged.
        Replay = "replay",
        /// Text of the passphrase door for nobody.
        NoReceiver = "no_receiver",
    }
}

impl From<Dropped> for DroppedWhat {
    fn from(what: Dropped) -> Self {
        match what {
            Dropped::Replay => Self::Replay,
            Dropped::NoReceiver => Self::NoReceiver,
        }
    }
}
