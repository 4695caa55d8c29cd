//! `hello`: opens a session or takes one up again, and what becomes of a session when it is cut.

use crate::connection::{ConnId, Stage};
use crate::deadlines::Due;
use crate::lobbies::{Lobbies, Now, Refusal};
use crate::output::{Event, IceSubject, Output, ResumeOutcome};
use crate::replay::Replay;
use crate::session::Session;
use crate::{ServerBody, ServerMessage};
use rand::RngExt;
use signal_wire::{
    CloseCode, ErrorCode, Hello, LeaveReason, Limits, LobbyJoined, PROTOCOL_VERSION, Resume,
    ResumeToken, SessionId, Timestamp, Welcome, is_game, is_name, limits,
};
use std::sync::Arc;
use std::time::Duration;

impl Lobbies {
    pub(crate) fn hello(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<u64>,
        hello: Hello,
    ) -> Result<(), Refusal> {
        check(&hello)?;
        if let Some(resume) = hello.resume {
            if self.can_resume(&hello.game, resume) {
                self.resume(now, conn, id, resume);
                return Ok(());
            }
            self.note(Event::Resume(ResumeOutcome::Unknown));
        }
        if self.draining {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "the server is going down",
            ));
        }
        if self.sessions.len() >= self.config.sessions {
            return Err(Refusal::new(ErrorCode::Busy, "the server is full"));
        }
        let session = Session {
            token: ResumeToken(self.random.random()),
            game: hello.game.into(),
            name: hello.name.into(),
            conn: Some(conn),
            lobby: None,
            replay: Replay::new(),
        };
        let session_id = SessionId(self.random.random());
        let welcome = self.welcome(now, session_id, &session);
        self.sessions.insert(session_id, session);
        self.greet(conn, session_id);
        self.reply(conn, id, ServerBody::Welcome(welcome));
        Ok(())
    }

    fn can_resume(&self, game: &str, resume: Resume) -> bool {
        self.sessions
            .get(&resume.session_id)
            .is_some_and(|session| {
                session.token.matches(resume.resume_token) && *session.game == *game
            })
    }

    /// Gives a session its new connection, then everything it missed.
    fn resume(&mut self, now: Now, conn: ConnId, id: Option<u64>, resume: Resume) {
        let session_id = resume.session_id;
        self.replace_connection(now, session_id);
        self.greet(conn, session_id);
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        session.conn = Some(conn);
        self.sessions_cut -= 1;
        self.deadlines.clear(Due::Grace(session_id));

        let missed = session.replay.since(resume.last_seq);
        if missed.is_some() {
            session.replay.acknowledge(resume.last_seq);
        } else {
            session.replay.clear();
        }
        let Some(session) = self.sessions.get(&session_id) else {
            return;
        };
        let mut welcome = self.welcome(now, session_id, session);
        let lobby = session.lobby;
        welcome.resumed = missed.is_some();
        welcome.replayed = missed
            .as_ref()
            .map_or(0, |missed| u32::try_from(missed.len()).unwrap_or(u32::MAX));
        self.reply(conn, id, ServerBody::Welcome(welcome));

        let ice = lobby.map(|(_, member)| IceSubject {
            session: session_id,
            member,
        });
        let Some(missed) = missed else {
            self.note(Event::Resume(ResumeOutcome::Snapshot));
            return self.snapshot(now, session_id, ice);
        };
        self.note(Event::Resume(ResumeOutcome::Replayed));
        for message in missed {
            self.replay(conn, message, ice);
        }
    }

    /// Cuts the connection that a session still has, if any: the newer one wins.
    fn replace_connection(&mut self, now: Now, session: SessionId) {
        let before = self.sessions.get(&session).and_then(|session| session.conn);
        let Some(before) = before else { return };
        if let Some(connection) = self.connections.get_mut(&before) {
            connection.stage = Stage::Closing;
        }
        self.output(Output::Close {
            conn: before,
            code: CloseCode::SessionReplaced,
        });
        self.detach(now, session);
    }

    fn replay(&mut self, to: ConnId, message: Arc<ServerMessage>, ice: Option<IceSubject>) {
        let wants_ice = matches!(message.body, ServerBody::LobbyJoined(_));
        self.output(Output::Message {
            to,
            message,
            ice: ice.filter(|_| wants_ice),
        });
    }

    /// Sends the state of the lobby in place of the events that led to it.
    fn snapshot(&mut self, now: Now, session: SessionId, ice: Option<IceSubject>) {
        let lobby = self
            .sessions
            .get(&session)
            .and_then(|session| session.lobby);
        let Some((lobby, you)) = lobby else { return };
        let Some(room) = self.rooms.get(&lobby) else {
            return;
        };
        let joined = LobbyJoined {
            lobby: room.view(),
            you,
            ice_servers: Vec::new(),
        };
        self.event(now, session, ServerBody::LobbyJoined(joined), ice);
    }

    fn greet(&mut self, conn: ConnId, session: SessionId) {
        self.deadlines.clear(Due::Hello(conn));
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.stage = Stage::Session(session);
        }
    }

    fn welcome(&self, now: Now, session_id: SessionId, session: &Session) -> Welcome {
        let config = &self.config;
        Welcome {
            session_id,
            resume_token: session.token,
            resumed: false,
            replayed: 0,
            lobby: session.lobby.map(|(lobby, _)| lobby),
            grace_ms: millis(config.grace),
            protocol: PROTOCOL_VERSION.to_owned(),
            limits: Limits {
                message_bytes: u32::try_from(limits::MESSAGE_BYTES).unwrap_or(u32::MAX),
                messages_per_second: config.message_rate.sustained(),
                messages_burst: config.message_rate.burst(),
                lobby_members: config.lobby_members,
                ping_interval_ms: millis(config.ping_interval),
            },
            server_time: Timestamp::from_unix_millis(now.unix_millis),
        }
    }

    pub(crate) fn acknowledge(&mut self, session: SessionId, seq: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.replay.acknowledge(seq);
        }
    }

    /// A session lost its connection: it waits if it has a seat to lose, else it ends.
    pub(crate) fn cut(&mut self, now: Now, id: SessionId) {
        let has_seat = self
            .sessions
            .get(&id)
            .is_some_and(|session| session.lobby.is_some());
        self.detach(now, id);
        if !has_seat {
            self.end_session(now, id, LeaveReason::Disconnected);
        }
    }

    fn detach(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.conn = None;
        self.sessions_cut += 1;
        self.deadlines
            .set(Due::Grace(id), now.mono + self.config.grace);
    }

    /// Ends a session that has no connection.
    pub(crate) fn end_session(&mut self, now: Now, id: SessionId, reason: LeaveReason) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.sessions_cut -= 1;
        self.deadlines.clear(Due::Grace(id));
        self.deadlines.clear(Due::Replay(id));
        if let Some((lobby, member)) = session.lobby {
            self.vacate(now, lobby, member, reason);
        }
    }
}

fn check(hello: &Hello) -> Result<(), Refusal> {
    let bad = |message| Err(Refusal::new(ErrorCode::BadRequest, message));
    if !is_game(&hello.game) {
        return bad("game must be 1 to 64 of a-z 0-9 . _ -");
    }
    if !hello.name.is_empty() && !is_name(&hello.name) {
        return bad("name must be 1 to 64 visible characters");
    }
    if hello.build.len() > limits::BUILD_BYTES || hello.sdk.len() > limits::BUILD_BYTES {
        return bad("build and sdk must be at most 64 bytes");
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
