//! The machine: connections, sessions and lobbies, and the dispatch of everything that happens.
//!
//! Invariants, checked by `tests/properties.rs`: a session is in a lobby exactly if that lobby has
//! a seat for it; no lobby is empty; a session without a connection has a deadline.

use crate::address::{Source, Sources};
use crate::config::Config;
use crate::connection::{Arrival, ConnId, Connection, Door, Overrun, Stage};
use crate::deadlines::{Deadlines, Due};
use crate::output::{Admission, Dropped, Event, IceSubject, Limiter, LobbyEnd, Output};
use crate::passphrase::{PassphraseHash, PassphraseKey};
use crate::rate::Usage;
use crate::room::{Occupant, Room};
use crate::session::Session;
use crate::{ClientMessage, ServerBody, ServerMessage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signal_wire::{
    ClientBodyWith, CloseCode, ErrorCode, ErrorReply, Fault, LeaveReason, LobbyId, MemberId,
    ParseError, Pong, ServerDrain, SessionId,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time of a call: for waiting, and for telling.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Instant,
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_millis: u64,
}

/// How many of everything there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Connections, greeted or not.
    pub connections: usize,
    /// Native players.
    pub sessions: usize,
    /// Of these, cut and within their grace time.
    pub sessions_cut: usize,
    /// Lobbies.
    pub lobbies: usize,
    /// Of these, full.
    pub lobbies_ready: usize,
    /// Addresses whose rates are remembered.
    pub addresses: usize,
    /// Things waiting for their time.
    pub deadlines: usize,
}

/// All lobbies of a server.
#[derive(Debug)]
pub struct Lobbies {
    pub(crate) config: Config,
    pub(crate) key: PassphraseKey,
    pub(crate) random: StdRng,
    pub(crate) connections: HashMap<ConnId, Connection>,
    pub(crate) sessions: HashMap<SessionId, Session>,
    pub(crate) rooms: HashMap<LobbyId, Room>,
    pub(crate) passphrases: HashMap<PassphraseHash, LobbyId>,
    pub(crate) sources: Sources,
    pub(crate) total_guesses: Usage,
    pub(crate) deadlines: Deadlines,
    pub(crate) draining: bool,
    pub(crate) sessions_cut: usize,
    pub(crate) rooms_ready: usize,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
}

/// A request that is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
    pub(crate) retry: Option<Duration>,
}

impl Refusal {
    pub(crate) const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            retry: None,
        }
    }
}

impl Lobbies {
    /// An empty machine. The seed makes session and lobby identifiers and resume tokens: it must
    /// come from the operating system.
    #[must_use]
    pub fn new(config: Config, key: PassphraseKey, seed: [u8; 32]) -> Self {
        Self {
            config,
            key,
            random: StdRng::from_seed(seed),
            connections: HashMap::new(),
            sessions: HashMap::new(),
            rooms: HashMap::new(),
            passphrases: HashMap::new(),
            sources: Sources::default(),
            total_guesses: Usage::default(),
            deadlines: Deadlines::default(),
            draining: false,
            sessions_cut: 0,
            rooms_ready: 0,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A connection asks to be let in.
    ///
    /// # Errors
    /// [`Admission`] says why it is not; the shell refuses it and makes no further call for it.
    pub fn handle_connect(
        &mut self,
        now: Now,
        conn: ConnId,
        arrival: Arrival,
    ) -> Result<(), Admission> {
        self.admit(now, conn, arrival).inspect_err(|why| {
            self.events.push_back(Event::NotAdmitted(*why));
            if matches!(why, Admission::ConnectRate(_)) {
                self.events.push_back(Event::RateLimited(Limiter::Connect));
            }
        })
    }

    fn admit(&mut self, now: Now, conn: ConnId, arrival: Arrival) -> Result<(), Admission> {
        if self.draining {
            return Err(Admission::Draining);
        }
        if self.connections.len() >= self.config.connections {
            return Err(Admission::Full);
        }
        let exempt = self
            .config
            .exempt
            .iter()
            .any(|prefix| prefix.contains(arrival.address));
        let source = (!exempt).then(|| Source::of(arrival.address));
        if let Some(source) = source {
            self.sources.connect(now.mono, source, &self.config)?;
            self.deadlines.clear(Due::Source(source));
        }
        self.connections
            .insert(conn, Connection::new(arrival.door, source));
        if arrival.door == Door::Native {
            self.deadlines
                .set(Due::Hello(conn), now.mono + self.config.hello_timeout);
        }
        Ok(())
    }

    /// A native connection sent a message of `length` bytes, or something that is none.
    pub fn handle_message(
        &mut self,
        now: Now,
        conn: ConnId,
        length: usize,
        message: Result<ClientMessage, ParseError>,
    ) {
        let id = match &message {
            Ok(message) => message.id,
            Err(error) => error.id,
        };
        if !self.take(now, conn, length, id) {
            return;
        }
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.unreadable(now, conn, error),
        };
        let stage = self
            .connections
            .get(&conn)
            .map(|connection| connection.stage);
        let result = match stage {
            Some(Stage::Greeting) => match message.body {
                ClientBodyWith::Hello(hello) => self.hello(now, conn, id, hello),
                ClientBodyWith::Ping(ping) => {
                    self.reply(conn, id, ServerBody::Pong(Pong { t: ping.t }));
                    Ok(())
                }
                ClientBodyWith::LobbyJoin(_)
                | ClientBodyWith::LobbyLeave
                | ClientBodyWith::Signal(_)
                | ClientBodyWith::IceRequest => {
                    Err(Refusal::new(ErrorCode::Unauthorized, "say hello first"))
                }
            },
            Some(Stage::Session(session)) => self.request(now, conn, session, message),
            Some(Stage::Tank(_) | Stage::Closing) | None => Ok(()),
        };
        if let Err(refusal) = result {
            self.refuse(conn, id, refusal);
        }
    }

    /// A request of a session.
    fn request(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        message: ClientMessage,
    ) -> Result<(), Refusal> {
        let ClientMessage { id, ack, body } = message;
        if let Some(seq) = ack {
            self.acknowledge(session, seq);
        }
        match body {
            ClientBodyWith::Hello(_) => {
                Err(Refusal::new(ErrorCode::Conflict, "hello was said already"))
            }
            ClientBodyWith::LobbyJoin(join) => self.join(now, conn, session, id, join),
            ClientBodyWith::LobbyLeave => self.leave(now, conn, session, id),
            ClientBodyWith::Signal(signal) => self.signal(now, session, signal),
            ClientBodyWith::Ping(ping) => {
                self.reply(conn, id, ServerBody::Pong(Pong { t: ping.t }));
                Ok(())
            }
            ClientBodyWith::IceRequest => self.ice_request(conn, session, id),
        }
    }

    /// A connection sent a frame that holds no text; both doors speak text only.
    pub fn handle_binary(&mut self, now: Now, conn: ConnId, length: usize) {
        if self.take(now, conn, length, None) {
            self.unreadable(
                now,
                conn,
                ParseError {
                    fault: Fault::NotJson,
                    id: None,
                    seq: None,
                },
            );
        }
    }

    /// A connection is gone. Its session lives on for the grace time if it is in a lobby.
    pub fn handle_disconnect(&mut self, now: Now, conn: ConnId) {
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        self.deadlines.clear(Due::Hello(conn));
        if let Some(source) = connection.source
            && let Some(at) = self.sources.disconnect(now.mono, source)
        {
            self.deadlines.set(Due::Source(source), at);
        }
        match connection.stage {
            Stage::Session(session) => self.cut(now, session),
            Stage::Tank(Some((lobby, member))) => {
                self.vacate(now, lobby, member, LeaveReason::Disconnected);
            }
            Stage::Greeting | Stage::Tank(None) | Stage::Closing => {}
        }
    }

    /// Acts on everything that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(due) = self.deadlines.pop(now.mono) {
            match due {
                Due::Hello(conn) => self.close(now, conn, CloseCode::Policy),
                Due::Grace(session) => self.end_session(now, session, LeaveReason::Disconnected),
                Due::Replay(session) => self.age_replay(now, session),
                Due::Idle(lobby) => self.close_if_idle(now, lobby),
                Due::Source(source) => {
                    if let Some(at) = self.sources.forget(now.mono, source) {
                        self.deadlines.set(Due::Source(source), at);
                    }
                }
            }
        }
    }

    /// The server goes down: nobody is let in any more, and everybody is told when to come back.
    /// The shell closes the connections once that is sent.
    pub fn handle_drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let spread = u64::try_from(self.config.drain_spread.as_millis()).unwrap_or(u64::MAX);
        let mut present: Vec<ConnId> = self.sessions_present();
        present.sort_unstable();
        for conn in present {
            let reconnect_after_ms = self.random.random_range(0..=spread);
            self.reply(
                conn,
                None,
                ServerBody::ServerDrain(ServerDrain { reconnect_after_ms }),
            );
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the caller sorts")]
    fn sessions_present(&self) -> Vec<ConnId> {
        self.sessions
            .values()
            .filter_map(|session| session.conn)
            .collect()
    }

    /// What to send next; call until `None` after every call in.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What happened; call until `None` after every call in.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Lobbies::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many of everything there are.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            sessions_cut: self.sessions_cut,
            lobbies: self.rooms.len(),
            lobbies_ready: self.rooms_ready,
            addresses: self.sources.len(),
            deadlines: self.deadlines.len(),
        }
    }

    /// Counts a frame against the limits of its connection; false when it is not to be acted on.
    pub(crate) fn take(&mut self, now: Now, conn: ConnId, length: usize, id: Option<u64>) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return false;
        };
        if connection.stage == Stage::Closing {
            return false;
        }
        let Err((limiter, wait)) = connection.take(now.mono, length, &self.config) else {
            return true;
        };
        let overrun = connection.overrun(now.mono);
        self.note(Event::RateLimited(limiter));
        match overrun {
            Overrun::Last => self.close(now, conn, CloseCode::RateLimited),
            // Who asked by number is owed an answer; a flood of the rest is told once a second.
            Overrun::Again if id.is_none() => {}
            Overrun::First | Overrun::Again => {
                let code = ErrorCode::RateLimited;
                let message = "too many messages";
                self.refuse(
                    conn,
                    id,
                    Refusal {
                        code,
                        message,
                        retry: Some(wait),
                    },
                );
            }
        }
        false
    }

    fn unreadable(&mut self, now: Now, conn: ConnId, error: ParseError) {
        let refusal = match error.fault {
            Fault::TooLarge => Refusal::new(ErrorCode::TooLarge, "the message is too long"),
            Fault::NotJson => Refusal::new(ErrorCode::BadRequest, "a frame must hold JSON text"),
            Fault::NotAMessage => {
                Refusal::new(ErrorCode::BadRequest, "a message is an object with a type")
            }
            Fault::UnknownType => Refusal::new(ErrorCode::UnknownType, "no such type"),
            Fault::BadData => Refusal::new(ErrorCode::BadRequest, "data does not fit the type"),
        };
        self.refuse(conn, error.id, refusal);
        let garbage = matches!(error.fault, Fault::NotJson | Fault::NotAMessage);
        if garbage
            && let Some(connection) = self.connections.get_mut(&conn)
            && connection.bad_frame(&self.config)
        {
            self.close(now, conn, CloseCode::BadFrame);
        }
    }

    /// Tells the shell to close a connection, and treats it as gone.
    pub(crate) fn close(&mut self, now: Now, conn: ConnId, code: CloseCode) {
        self.output(Output::Close { conn, code });
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match std::mem::replace(&mut connection.stage, Stage::Closing) {
            Stage::Session(session) => self.cut(now, session),
            Stage::Tank(Some((lobby, member))) => {
                self.vacate(now, lobby, member, LeaveReason::Disconnected);
            }
            Stage::Greeting | Stage::Tank(None) | Stage::Closing => {}
        }
    }

    pub(crate) fn reply(&mut self, conn: ConnId, re: Option<u64>, body: ServerBody) {
        self.reply_with_ice(conn, re, body, None);
    }

    pub(crate) fn reply_with_ice(
        &mut self,
        to: ConnId,
        re: Option<u64>,
        body: ServerBody,
        ice: Option<IceSubject>,
    ) {
        let message = Arc::new(ServerMessage {
            re,
            seq: None,
            body,
        });
        self.output(Output::Message { to, message, ice });
    }

    pub(crate) fn refuse(&mut self, conn: ConnId, re: Option<u64>, refusal: Refusal) {
        let Refusal {
            code,
            message,
            retry,
        } = refusal;
        self.note(Event::Refused(code));
        if let Some(Connection {
            stage: Stage::Tank(_),
            ..
        }) = self.connections.get(&conn)
        {
            return self.refuse_tank(conn, code);
        }
        // Rounded up: who waits as long as told is not refused again.
        let retry_after_ms =
            retry.map(|wait| u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        let error = ErrorReply {
            code,
            message: message.to_owned(),
            retry_after_ms,
        };
        self.reply(conn, re, ServerBody::Error(error));
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn note(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Numbers an event for a session, keeps it for a replay and sends it if somebody is there.
    pub(crate) fn event(
        &mut self,
        now: Now,
        id: SessionId,
        body: ServerBody,
        ice: Option<IceSubject>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (message, dropped) = session.replay.push(now.mono, body, &self.config);
        if let Some(to) = session.conn {
            self.outputs.push_back(Output::Message { to, message, ice });
        }
        for _ in 0..dropped {
            self.note(Event::Dropped(Dropped::Replay));
        }
        let at = now.mono + self.config.replay_age;
        self.deadlines.set_if_absent(Due::Replay(id), at);
    }

    fn age_replay(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (next, dropped) = session.replay.age(now.mono, &self.config);
        for _ in 0..dropped {
            self.note(Event::Dropped(Dropped::Replay));
        }
        if let Some(at) = next {
            self.deadlines.set(Due::Replay(id), at);
        }
    }

    fn close_if_idle(&mut self, now: Now, id: LobbyId) {
        let Some(room) = self.rooms.get(&id) else {
            return;
        };
        let idle_at = room.last_active + self.config.lobby_idle;
        if idle_at > now.mono {
            self.deadlines.set(Due::Idle(id), idle_at);
            return;
        }
        let everybody: Vec<_> = room.seats.iter().map(|seat| seat.occupant).collect();
        self.remove_room(id, LobbyEnd::Idle);
        for occupant in everybody {
            self.evict(now, occupant);
        }
    }

    /// Tells a player that the lobby it was in has been closed.
    fn evict(&mut self, now: Now, occupant: Occupant) {
        match occupant {
            Occupant::Tank(conn) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.stage = Stage::Tank(None);
                    self.close(now, conn, CloseCode::Idle);
                }
            }
            Occupant::Session(id) => {
                let Some(session) = self.sessions.get_mut(&id) else {
                    return;
                };
                session.lobby = None;
                if session.conn.is_some() {
                    self.event(now, id, ServerBody::LobbyLeft, None);
                } else {
                    self.end_session(now, id, LeaveReason::Disconnected);
                }
            }
        }
    }

    /// Takes an empty or idle lobby off the books.
    pub(crate) fn remove_room(&mut self, id: LobbyId, end: LobbyEnd) {
        let Some(room) = self.rooms.remove(&id) else {
            return;
        };
        self.rooms_ready -= usize::from(room.is_full());
        self.passphrases.remove(&room.hash);
        self.deadlines.clear(Due::Idle(id));
        self.note(Event::LobbyClosed(end));
    }

    /// Frees a seat and tells those who stay; the last one to leave ends the lobby.
    pub(crate) fn vacate(
        &mut self,
        now: Now,
        lobby: LobbyId,
        member: MemberId,
        reason: LeaveReason,
    ) {
        let Some(room) = self.rooms.get_mut(&lobby) else {
            return;
        };
        let was_full = room.is_full();
        if !room.leave(member) {
            return;
        }
        self.rooms_ready -= usize::from(was_full);
        room.last_active = now.mono;
        let version = room.version;
        let stay = room.others(member);
        if stay.is_empty() {
            return self.remove_room(lobby, LobbyEnd::Empty);
        }
        let left = signal_wire::MemberLeft {
            lobby_id: lobby,
            version,
            member,
            reason,
        };
        for occupant in &stay {
            match *occupant {
                Occupant::Session(session) => {
                    self.event(now, session, ServerBody::MemberLeft(left), None);
                }
                Occupant::Tank(conn) => self.tank_left(conn, stay.len()),
            }
        }
    }
}
