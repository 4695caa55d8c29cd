//! The task that owns the lobbies: calls in over a bounded channel, results out into outboxes.

use crate::counters::{Counters, Direction, MessageType};
use crate::outbox::{Left, Outbox};
use crate::status::Status;
use crate::turn_credentials::IceServers;
use net_io::clock;
use signal_wire::CloseCode;
use signal_wire::{ParseError, ServerBodyWith};
use signaling_lobby::{
    Admission, Arrival, ClientMessage, ConnId, IceSubject, Lobbies, Now, Output, ServerMessage,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait. Who calls when it is full waits in line, one call a connection.
const CALLS: usize = 1024;
/// Calls handled before the deadline is looked at again.
const BATCH: usize = 64;

/// A way to call the hub; clones call the same one.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
enum Call {
    Connect {
        conn: ConnId,
        arrival: Arrival,
        outbox: Arc<Outbox>,
        answer: oneshot::Sender<Result<(), Admission>>,
    },
    Message {
        conn: ConnId,
        length: usize,
        message: Result<ClientMessage, ParseError>,
        at: Instant,
    },
    Text {
        conn: ConnId,
        text: String,
        at: Instant,
    },
    Binary {
        conn: ConnId,
        length: usize,
    },
    Disconnect {
        conn: ConnId,
    },
    Drain {
        done: oneshot::Sender<()>,
    },
}

impl Hub {
    /// Starts the task; it ends with the last clone of the returned hub.
    pub(crate) fn start(
        lobbies: Lobbies,
        ice: IceServers,
        counters: Arc<Counters>,
        status: Arc<Status>,
    ) -> Self {
        let (calls, receiver) = mpsc::channel(CALLS);
        let task = Task {
            lobbies,
            ice,
            counters,
            status,
            outboxes: HashMap::new(),
        };
        tokio::spawn(task.run(receiver));
        Self { calls }
    }

    /// Lets a connection in, or says why not.
    pub(crate) async fn connect(
        &self,
        conn: ConnId,
        arrival: Arrival,
        outbox: Arc<Outbox>,
    ) -> Result<(), Admission> {
        let (answer, answered) = oneshot::channel();
        self.call(Call::Connect {
            conn,
            arrival,
            outbox,
            answer,
        })
        .await;
        answered.await.unwrap_or(Err(Admission::Draining))
    }

    pub(crate) async fn message(
        &self,
        conn: ConnId,
        length: usize,
        message: Result<ClientMessage, ParseError>,
    ) {
        let at = clock::mono();
        self.call(Call::Message {
            conn,
            length,
            message,
            at,
        })
        .await;
    }

    pub(crate) async fn text(&self, conn: ConnId, text: String) {
        let at = clock::mono();
        self.call(Call::Text { conn, text, at }).await;
    }

    pub(crate) async fn binary(&self, conn: ConnId, length: usize) {
        self.call(Call::Binary { conn, length }).await;
    }

    pub(crate) async fn disconnect(&self, conn: ConnId) {
        self.call(Call::Disconnect { conn }).await;
    }

    /// Lets nobody in any more, tells everybody, and closes all connections after that.
    pub(crate) async fn drain(&self) {
        let (done, is_done) = oneshot::channel();
        self.call(Call::Drain { done }).await;
        let _ = is_done.await;
    }

    async fn call(&self, call: Call) {
        // The task outlives its callers.
        let _ = self.calls.send(call).await;
    }
}

struct Task {
    lobbies: Lobbies,
    ice: IceServers,
    counters: Arc<Counters>,
    status: Arc<Status>,
    outboxes: HashMap<ConnId, Arc<Outbox>>,
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut armed: Option<Instant> = None;
        let mut timer = std::pin::pin!(tokio::time::sleep(std::time::Duration::ZERO));
        loop {
            let due = self.lobbies.poll_timeout();
            if due != armed
                && let Some(at) = due
            {
                timer.as_mut().reset(at.into());
            }
            armed = due;
            tokio::select! {
                call = calls.recv() => {
                    let Some(call) = call else { return };
                    self.handle(call);
                    for _ in 1..BATCH {
                        let Ok(call) = calls.try_recv() else { break };
                        self.handle(call);
                    }
                }
                () = timer.as_mut(), if armed.is_some() => {
                    self.lobbies.handle_timeout(now());
                    self.deliver();
                    armed = None;
                }
            }
            let census = self.lobbies.census();
            self.counters.census(census);
            self.status.census(census);
        }
    }

    fn handle(&mut self, call: Call) {
        match call {
            Call::Connect {
                conn,
                arrival,
                outbox,
                answer,
            } => {
                let admitted = self.lobbies.handle_connect(now(), conn, arrival);
                if admitted.is_ok() {
                    self.outboxes.insert(conn, outbox);
                    self.counters.connections_total.inc();
                    self.counters.connections.inc();
                }
                self.deliver();
                // Who asked may be gone: then it never calls again, not even to disconnect.
                if answer.send(admitted).is_err() && admitted.is_ok() {
                    self.disconnect(conn);
                }
            }
            Call::Message {
                conn,
                length,
                message,
                at,
            } => {
                let kind = message.as_ref().map_or(MessageType::Unreadable, |message| {
                    MessageType::of_client(&message.body)
                });
                self.lobbies.handle_message(now(), conn, length, message);
                self.handled(kind, at);
            }
            Call::Text { conn, text, at } => {
                self.lobbies.handle_text(now(), conn, text);
                self.handled(MessageType::Tank, at);
            }
            Call::Binary { conn, length } => {
                self.counters
                    .messages
                    .with((Direction::In, MessageType::Unreadable))
                    .inc();
                self.lobbies.handle_binary(now(), conn, length);
                self.deliver();
            }
            Call::Disconnect { conn } => self.disconnect(conn),
            Call::Drain { done } => {
                self.lobbies.handle_drain();
                self.deliver();
                self.close_all();
                let _ = done.send(());
            }
        }
    }

    fn disconnect(&mut self, conn: ConnId) {
        if self.outboxes.remove(&conn).is_some() {
            self.counters.connections.dec();
        }
        self.lobbies.handle_disconnect(now(), conn);
        self.deliver();
    }

    fn handled(&mut self, kind: MessageType, at: Instant) {
        self.counters.messages.with((Direction::In, kind)).inc();
        self.deliver();
        let duration = clock::mono().saturating_duration_since(at);
        self.counters
            .message_duration
            .with(kind)
            .observe(duration.as_secs_f64());
    }

    /// Drains what the machine has to say: the rule after every call in.
    fn deliver(&mut self) {
        while let Some(event) = self.lobbies.poll_event() {
            self.counters.event(event);
            self.status.event(event);
        }
        while let Some(output) = self.lobbies.poll_output() {
            match output {
                Output::Message { to, message, ice } => self.send(to, &message, ice),
                Output::Text { to, text } => self.leave(to, text, MessageType::Tank),
                Output::Close { conn, code } => {
                    if let Some(outbox) = self.outboxes.get(&conn) {
                        outbox.close(code);
                    }
                }
            }
        }
    }

    fn send(&self, to: ConnId, message: &ServerMessage, ice: Option<IceSubject>) {
        let kind = MessageType::of_server(&message.body);
        let text = match ice {
            Some(subject) => self.with_ice_servers(message.clone(), subject).to_json(),
            None => message.to_json(),
        };
        self.leave(to, text, kind);
    }

    fn with_ice_servers(&self, mut message: ServerMessage, subject: IceSubject) -> ServerMessage {
        let servers = self.ice.mint(subject, clock::unix());
        if let ServerBodyWith::LobbyJoined(joined) = &mut message.body {
            joined.ice_servers = servers;
        } else if let ServerBodyWith::IceServers(ice) = &mut message.body {
            ice.ice_servers = servers;
            ice.ttl_s = self.ice.life_secs();
        }
        message
    }

    fn leave(&self, to: ConnId, text: String, kind: MessageType) {
        let Some(outbox) = self.outboxes.get(&to) else {
            return;
        };
        match outbox.leave(text) {
            Left::Waits => self.counters.messages.with((Direction::Out, kind)).inc(),
            Left::CutOff(dropped) => {
                let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
                self.counters.send_queue_dropped.add(dropped);
            }
            Left::Closing => self.counters.send_queue_dropped.inc(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "all are closed alike, in whatever order"
    )]
    fn close_all(&self) {
        for outbox in self.outboxes.values() {
            outbox.close(CloseCode::GoingAway);
        }
    }
}

fn now() -> Now {
    Now {
        mono: clock::mono(),
        unix_millis: clock::unix_millis(),
    }
}
