//! A machine in virtual time, and players that talk to it and read what comes back.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of the harness"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use signal_wire::{
    ClientBodyWith, CloseCode, ErrorCode, Fault, Hello, LobbyJoin, MemberId, ParseError, Ping,
    RawData, Resume, ServerBodyWith, SignalKind, SignalToWith, Welcome,
};
use signaling_lobby::{
    Admission, Arrival, Census, ClientMessage, Config, ConnId, Door, Event, IceSubject, Lobbies,
    Now, Output, PassphraseKey, ServerMessage,
};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub type Body = ServerBodyWith<RawData>;

pub struct World {
    pub lobbies: Lobbies,
    pub events: Vec<Event>,
    now: Now,
    next_conn: u64,
    inboxes: HashMap<ConnId, VecDeque<Received>>,
}

/// What a connection got.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    Message(Arc<ServerMessage>, Option<IceSubject>),
    Text(String),
    Closed(CloseCode),
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
        let now = Now {
            mono: Instant::now(),
            unix_millis: 1_795_172_707_042,
        };
        Self {
            lobbies: Lobbies::new(config, PassphraseKey::new([7; 32]), [9; 32]),
            events: Vec::new(),
            now,
            next_conn: 0,
            inboxes: HashMap::new(),
        }
    }

    /// A native connection from an address of its own.
    pub fn connect(&mut self) -> ConnId {
        let [high, low] = u16::try_from(self.next_conn).unwrap().to_be_bytes();
        let address = IpAddr::from([10, 0, high, low]);
        self.connect_from(Door::Native, address).unwrap()
    }

    pub fn connect_tank(&mut self) -> ConnId {
        let [high, low] = u16::try_from(self.next_conn).unwrap().to_be_bytes();
        self.connect_from(Door::Tank, IpAddr::from([10, 1, high, low]))
            .unwrap()
    }

    pub fn connect_from(&mut self, door: Door, address: IpAddr) -> Result<ConnId, Admission> {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let admitted = self
            .lobbies
            .handle_connect(self.now, conn, Arrival { door, address });
        self.drain();
        admitted.map(|()| conn)
    }

    /// A greeted player called `name`, and its welcome.
    pub fn greet(&mut self, name: &str) -> (ConnId, Welcome) {
        let conn = self.connect();
        self.send(conn, 1, ClientBodyWith::Hello(hello(name)));
        (conn, self.welcome(conn))
    }

    pub fn player(&mut self, name: &str) -> ConnId {
        self.greet(name).0
    }

    /// A player called `name` in the lobby `jump-rocket` for `max`, its inbox read.
    pub fn member(&mut self, name: &str, max: u16) -> ConnId {
        let conn = self.player(name);
        self.join(conn, "jump-rocket", max);
        let received = self.read(conn);
        assert!(
            matches!(received.first(), Some(Body::LobbyJoined(_))),
            "{received:?}"
        );
        conn
    }

    /// Comes back after a cut; `None` when nothing was resumed in any form.
    pub fn resume(&mut self, welcome: &Welcome, last_seq: u64) -> (ConnId, Welcome) {
        let conn = self.connect();
        let Welcome {
            session_id,
            resume_token,
            ..
        } = *welcome;
        let resume = Some(Resume {
            session_id,
            resume_token,
            last_seq,
        });
        self.send(
            conn,
            1,
            ClientBodyWith::Hello(Hello {
                resume,
                ..hello("")
            }),
        );
        (conn, self.welcome(conn))
    }

    pub fn join(&mut self, conn: ConnId, passphrase: &str, max: u16) {
        let join = LobbyJoin {
            passphrase: passphrase.into(),
            create: true,
            max,
        };
        self.send(conn, 2, ClientBodyWith::LobbyJoin(join));
    }

    pub fn signal(&mut self, conn: ConnId, to: u16, data: &str) {
        let data = RawData::new(data.to_owned()).unwrap();
        let signal = SignalToWith {
            to: MemberId(to),
            kind: SignalKind::Offer,
            conn: "c1".into(),
            data,
        };
        self.send(conn, 3, ClientBodyWith::Signal(signal));
    }

    pub fn ping(&mut self, conn: ConnId, t: u64) {
        self.send(conn, t, ClientBodyWith::Ping(Ping { t }));
    }

    pub fn send(&mut self, conn: ConnId, id: u64, body: ClientBodyWith<RawData>) {
        self.send_message(
            conn,
            ClientMessage {
                id: Some(id),
                ack: None,
                body,
            },
        );
    }

    pub fn acknowledge(&mut self, conn: ConnId, seq: u64) {
        let body = ClientBodyWith::Ping(Ping { t: 0 });
        self.send_message(
            conn,
            ClientMessage {
                id: None,
                ack: Some(seq),
                body,
            },
        );
        assert_eq!(self.read(conn).len(), 1);
    }

    pub fn send_message(&mut self, conn: ConnId, message: ClientMessage) {
        let length = message.to_json().len();
        self.lobbies
            .handle_message(self.now, conn, length, Ok(message));
        self.drain();
    }

    pub fn send_garbage(&mut self, conn: ConnId, fault: Fault, id: Option<u64>) {
        let error = ParseError {
            fault,
            id,
            seq: None,
        };
        self.lobbies.handle_message(self.now, conn, 10, Err(error));
        self.drain();
    }

    pub fn send_binary(&mut self, conn: ConnId) {
        self.lobbies.handle_binary(self.now, conn, 10);
        self.drain();
    }

    pub fn text(&mut self, conn: ConnId, text: &str) {
        self.lobbies.handle_text(self.now, conn, text.to_owned());
        self.drain();
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        self.lobbies.handle_disconnect(self.now, conn);
        self.drain();
    }

    pub fn drain_server(&mut self) {
        self.lobbies.handle_drain();
        self.drain();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now.mono + duration;
        while let Some(at) = self.lobbies.poll_timeout().filter(|at| *at <= end) {
            self.step(at.max(self.now.mono));
            self.lobbies.handle_timeout(self.now);
            self.drain();
        }
        self.step(end);
    }

    fn step(&mut self, to: Instant) {
        let millis = u64::try_from((to - self.now.mono).as_millis()).unwrap();
        self.now = Now {
            mono: to,
            unix_millis: self.now.unix_millis + millis,
        };
    }

    fn drain(&mut self) {
        while let Some(output) = self.lobbies.poll_output() {
            let (to, received) = match output {
                Output::Message { to, message, ice } => (to, Received::Message(message, ice)),
                Output::Text { to, text } => (to, Received::Text(text)),
                Output::Close { conn, code } => (conn, Received::Closed(code)),
            };
            self.inboxes.entry(to).or_default().push_back(received);
        }
        while let Some(event) = self.lobbies.poll_event() {
            self.events.push(event);
        }
    }

    /// Everything a connection got since it was last asked.
    pub fn received(&mut self, conn: ConnId) -> Vec<Received> {
        self.inboxes.remove(&conn).unwrap_or_default().into()
    }

    /// The same, of a native connection that was not closed: bodies alone.
    pub fn read(&mut self, conn: ConnId) -> Vec<Body> {
        self.read_messages(conn)
            .into_iter()
            .map(|message| message.body.clone())
            .collect()
    }

    pub fn read_messages(&mut self, conn: ConnId) -> Vec<Arc<ServerMessage>> {
        let message = |received| match received {
            Received::Message(message, _) => message,
            other @ (Received::Text(_) | Received::Closed(_)) => panic!("{conn:?} got {other:?}"),
        };
        self.received(conn).into_iter().map(message).collect()
    }

    /// The texts of a connection of the passphrase door that was not closed.
    pub fn read_texts(&mut self, conn: ConnId) -> Vec<String> {
        let text = |received| match received {
            Received::Text(text) => text,
            other @ (Received::Message(..) | Received::Closed(_)) => {
                panic!("{conn:?} got {other:?}")
            }
        };
        self.received(conn).into_iter().map(text).collect()
    }

    /// The one error that a connection got.
    pub fn error(&mut self, conn: ConnId) -> ErrorCode {
        self.error_with_wait(conn).0
    }

    pub fn error_with_wait(&mut self, conn: ConnId) -> (ErrorCode, Option<u64>) {
        match self.read(conn).as_slice() {
            [Body::Error(error)] => (error.code, error.retry_after_ms),
            other => panic!("expected one error, got {other:?}"),
        }
    }

    /// Why a connection was closed, whatever it was told before.
    pub fn closed(&mut self, conn: ConnId) -> Option<CloseCode> {
        match self.received(conn).last() {
            Some(Received::Closed(code)) => Some(*code),
            Some(Received::Message(..) | Received::Text(_)) | None => None,
        }
    }

    fn welcome(&mut self, conn: ConnId) -> Welcome {
        let inbox = self.inboxes.entry(conn).or_default();
        let Some(Received::Message(message, _)) = inbox.pop_front() else {
            panic!("no welcome for {conn:?}")
        };
        let Body::Welcome(welcome) = &message.body else {
            panic!("no welcome but {message:?}")
        };
        welcome.clone()
    }

    pub fn census(&self) -> Census {
        self.lobbies.census()
    }

    pub fn count(&self, event: Event) -> usize {
        self.events.iter().filter(|seen| **seen == event).count()
    }
}

pub fn hello(name: &str) -> Hello {
    Hello {
        game: "tank".into(),
        build: "1.4.0".into(),
        sdk: "test".into(),
        name: name.into(),
        resume: None,
    }
}

/// Debug text of bodies without the identifiers that differ by seed: easy to compare as a story.
pub fn story(bodies: &[Body]) -> Vec<String> {
    let tell = |body: &Body| match body {
        Body::LobbyJoined(joined) => {
            let members: Vec<_> = joined
                .lobby
                .members
                .iter()
                .map(|member| &*member.name)
                .collect();
            format!(
                "joined v{} as {}: {}",
                joined.lobby.version,
                joined.you,
                members.join(" ")
            )
        }
        Body::MemberJoined(joined) => {
            format!(
                "v{} {} {} came",
                joined.version, joined.member.id, joined.member.name
            )
        }
        Body::MemberLeft(left) => format!("v{} {} {:?}", left.version, left.member, left.reason),
        Body::LobbyReady(ready) => format!("v{} ready", ready.version),
        Body::Signal(signal) => format!("from {}: {}", signal.from, signal.data.as_str()),
        Body::LobbyLeft => "left".into(),
        Body::Pong(pong) => format!("pong {}", pong.t),
        Body::Error(error) => format!("error {}", error.code),
        Body::Welcome(_) | Body::IceServers(_) | Body::ServerDrain(_) => body.type_name().into(),
    };
    bodies.iter().map(tell).collect()
}
