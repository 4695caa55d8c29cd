//! What the game's thread and the driver's thread share: the machine, the sockets under it, and the events for the game.
//!
//! Whoever has something for the machine takes the lock, calls it, and moves the results along before letting go: a message
//! the game sends is sealed and handed to its socket in the game's own thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client_sdk_proto::{Node, NodeEvent, Now, Signal, SocketId, StreamId, StreamRequest, Transmit};
use signal_wire::{ClientBody, MemberId, SignalTo};
use tokio::sync::{Notify, mpsc};

use crate::event::Event;
use crate::network::DatagramSocket;

/// Events that wait for the game to poll. Beyond it the machine is left unread, and senders of reliable messages wait.
const MAX_EVENTS: usize = 8192;
/// Bytes of messages that wait for the game to poll, likewise.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// The state, behind its lock.
#[derive(Default)]
pub(crate) struct Core {
    pub(crate) node: Option<Node>,
    pub(crate) sockets: Vec<Arc<dyn DatagramSocket>>,
    pub(crate) streams: BTreeMap<StreamId, mpsc::Sender<Vec<u8>>>,
    pub(crate) signals: Option<mpsc::Sender<ClientBody>>,
    pub(crate) requests: Option<mpsc::Sender<StreamRequest>>,
    /// Seconds that the signaling server's clock is ahead of ours.
    pub(crate) clock_offset: i64,
    pub(crate) closed: bool,
    events: VecDeque<Event>,
    event_bytes: usize,
    scheduled: Option<Instant>,
}

/// The lock and the bells around it.
#[derive(Default)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    arrived: Condvar,
    /// Wakes the driver when the machine wants to be called earlier than it planned.
    pub(crate) wake: Notify,
}

impl Shared {
    /// Calls `act` on the state, then moves along whatever came of it.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = act(&mut core);
        core.drain();
        let next = core.node.as_mut().and_then(Node::poll_timeout);
        if let Some(next) = next
            && core.scheduled.is_none_or(|scheduled| next < scheduled)
        {
            core.scheduled = Some(next);
            self.wake.notify_one();
        }
        if !core.events.is_empty() {
            self.arrived.notify_all();
        }
        result
    }

    /// Takes the events that have come, waiting for one at most `patience`.
    pub(crate) fn take_events(&self, patience: Duration) -> Vec<Event> {
        let mut core = self.lock();
        if core.events.is_empty() && !patience.is_zero() {
            let idle = |core: &mut Core| core.events.is_empty() && !core.closed;
            core = self
                .arrived
                .wait_timeout_while(core, patience, idle)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let events = Vec::from(std::mem::take(&mut core.events));
        core.event_bytes = 0;
        // There is room again: what the machine held back comes in.
        core.drain();
        events
    }

    /// Wakes whoever waits for events: nothing more comes.
    pub(crate) fn close(&self) {
        self.arrived.notify_all();
    }

    /// The next time the machine wants to be called; remembered, so that only an earlier one wakes the driver.
    pub(crate) fn schedule(&self) -> Option<Instant> {
        let mut core = self.lock();
        let next = core.node.as_mut().and_then(Node::poll_timeout);
        core.scheduled = next;
        next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Core> {
        // A panic under the lock has been reported; the machine's state is still its own.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Both clocks, the second one as the signaling server's.
    pub(crate) fn now(&self) -> Now {
        let (mono, unix) = net_io::clock::now();
        Now {
            mono,
            unix: unix.saturating_add_signed(self.clock_offset),
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        if let Event::Message { data, .. } = &event {
            self.event_bytes += data.len();
        }
        self.events.push_back(event);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self) {
        let now = self.now();
        if let Some(node) = &mut self.node
            && node.poll_timeout().is_some_and(|due| due <= now.mono)
        {
            node.handle_timeout(now);
        }
    }

    pub(crate) fn handle_datagram(
        &mut self,
        socket: SocketId,
        from: std::net::SocketAddr,
        bytes: &[u8],
    ) {
        let now = self.now();
        if let Some(node) = &mut self.node {
            node.handle_datagram(now, socket, from, bytes);
        }
    }

    /// The machine's drain rule: events, streams, datagrams, signals.
    fn drain(&mut self) {
        let now = self.now();
        let Some(mut node) = self.node.take() else {
            return;
        };
        while self.events.len() < MAX_EVENTS && self.event_bytes < MAX_EVENT_BYTES {
            let Some(event) = node.poll_event(now) else {
                break;
            };
            self.push(told(event));
        }
        while let Some(request) = node.poll_stream() {
            if let Some(requests) = &self.requests {
                // At most one stream a relay server is ever asked for; the channel holds them all.
                requests.try_send(request).ok();
            }
        }
        while let Some(transmit) = node.poll_transmit() {
            self.transmit(transmit);
        }
        while let Some(signal) = node.poll_signal() {
            self.signal(signal);
        }
        self.node = Some(node);
    }

    /// Sends now or never: what does not fit is lost as on the wire, and what must arrive is sent again.
    fn transmit(&self, transmit: Transmit) {
        match transmit {
            Transmit::Datagram { socket, to, bytes } => {
                let socket = usize::try_from(socket.0)
                    .ok()
                    .and_then(|id| self.sockets.get(id));
                if let Some(socket) = socket
                    && let Err(error) = socket.try_send_to(&bytes, to)
                {
                    tracing::trace!(%to, %error, "datagram not sent");
                }
            }
            Transmit::Stream { stream, bytes } => {
                if let Some(writer) = self.streams.get(&stream)
                    && writer.try_send(bytes).is_err()
                {
                    tracing::trace!(stream = stream.0, "stream is full or gone");
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let body = ClientBody::Signal(SignalTo {
            to: MemberId(signal.to.0),
            kind: signal.kind,
            conn: signal.conn,
            data: signal.data,
        });
        if let Some(signals) = &self.signals
            && signals.try_send(body).is_err()
        {
            tracing::debug!("a signal found no room: signaling is slow or gone");
        }
    }
}

fn told(event: NodeEvent) -> Event {
    match event {
        NodeEvent::CandidateGathered(candidate) => Event::CandidateGathered(candidate),
        NodeEvent::Gathered { candidates, took } => Event::Gathered { candidates, took },
        NodeEvent::Diary { player, entry } => Event::Diary { player, entry },
        NodeEvent::Connected {
            player,
            path,
            trust,
            took,
        } => Event::PlayerConnected {
            player,
            path,
            trust,
            took,
        },
        NodeEvent::PathChanged {
            player,
            from,
            to,
            gap,
        } => Event::PathChanged {
            player,
            from,
            to,
            gap,
        },
        NodeEvent::Message {
            player,
            channel,
            data,
        } => Event::Message {
            player,
            channel,
            data,
        },
        NodeEvent::Lost {
            player,
            reason,
            diary,
        } => Event::PlayerLost {
            player,
            reason,
            diary,
        },
    }
}
