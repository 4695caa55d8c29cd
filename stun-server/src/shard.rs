//! One UDP shard: receive a batch, ask the machine about each datagram, send the answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use net_io::{Form, MAX_BATCH, RecvBatch, SendBatch, UdpSocket, clock};
use stun_server_proto::{Responder, Verdict};

use crate::counters::{Counters, Transport};
use crate::server::{Inbox, WAKE};

/// The longest message that is looked at. RFC 8489 section 6.1 keeps requests within a path's MTU.
pub(crate) const MAX_MESSAGE: usize = 2048;
/// How long a shard rests when the system fails again and again, so that it cannot spin.
const PAUSE: Duration = Duration::from_millis(10);
/// Failures in a row before that. One may be an ICMP error that a stranger caused: it must cost no time.
const FAILURES: u32 = 64;

/// A socket of this shard.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UdpSocket,
    queue_drops: Arc<AtomicU64>,
    /// The poll told of datagrams and the queue has not been found empty since.
    is_ready: bool,
}

impl Listener {
    pub(crate) fn new(socket: UdpSocket, queue_drops: Arc<AtomicU64>) -> Self {
        Self {
            socket,
            queue_drops,
            is_ready: false,
        }
    }
}

/// What a thread goes on with after a reload.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) responder: Responder,
    pub(crate) form: Form,
}

/// One thread's sockets and what it needs to answer.
#[derive(Debug)]
pub(crate) struct Shard {
    poll: Poll,
    listeners: Vec<Listener>,
    responder: Responder,
    counters: Counters,
    received: RecvBatch,
    replies: SendBatch,
    /// The one answer that leaves from another socket than it was asked on (RFC 5780).
    elsewhere: SendBatch,
    reply: Vec<u8>,
    failures: u32,
}

impl Shard {
    pub(crate) fn new(
        poll: Poll,
        mut listeners: Vec<Listener>,
        responder: Responder,
        counters: Counters,
    ) -> io::Result<Self> {
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry()
                .register(&mut listener.socket, Token(index), Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            listeners,
            responder,
            counters,
            received: RecvBatch::new(MAX_BATCH, MAX_MESSAGE),
            replies: SendBatch::new(),
            elsewhere: SendBatch::new(),
            reply: Vec::new(),
            failures: 0,
        })
    }

    /// Answers until it is told to stop.
    pub(crate) fn run(mut self, inbox: &Inbox<Change>) {
        let mut events = Events::with_capacity(64);
        while !inbox.is_stopping() {
            let more = self.listeners.iter().any(|listener| listener.is_ready);
            if let Err(error) = self.poll.poll(&mut events, more.then_some(Duration::ZERO)) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::debug!(%error, "poll");
                    std::thread::sleep(PAUSE);
                }
                continue;
            }
            for event in &events {
                if event.token() == WAKE {
                    self.go_on_with(inbox.take_change());
                } else if let Some(listener) = self.listeners.get_mut(event.token().0) {
                    listener.is_ready = true;
                }
            }
            self.answer_ready_listeners();
        }
    }

    fn go_on_with(&mut self, change: Option<Change>) {
        let Some(Change { responder, form }) = change else {
            return;
        };
        self.responder = responder;
        for listener in &self.listeners {
            admit_only(&listener.socket, &form);
        }
    }

    /// One batch of each listener in turn, so that none of them waits for another to fall silent.
    fn answer_ready_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            let Some(listener) = self
                .listeners
                .get_mut(index)
                .filter(|listener| listener.is_ready)
            else {
                continue;
            };
            match listener.socket.recv_batch(&mut self.received) {
                Ok(count) => {
                    listener.is_ready = count >= self.received.capacity();
                    self.failures = 0;
                }
                Err(error) => {
                    // It stays ready: what is queued behind the error would not be told of again.
                    tracing::debug!(%error, "receive");
                    self.failures = self.failures.wrapping_add(1);
                    if self.failures.is_multiple_of(FAILURES) {
                        std::thread::sleep(PAUSE);
                    }
                    continue;
                }
            }
            self.answer_received(index);
        }
    }

    /// Answers the batch that the listener at `index` has received.
    fn answer_received(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else {
            return;
        };
        let received_at = clock::mono();
        self.counters.too_long(self.received.truncated());
        let mut is_timed = false;
        for datagram in self.received.iter() {
            let (source, local, bytes) = (datagram.from, datagram.local, datagram.bytes);
            let verdict = self
                .responder
                .handle(received_at, source, local, bytes, &mut self.reply);
            self.counters
                .judged(Transport::Udp, source, bytes.len(), verdict);
            if let Verdict::Reply { from, to, .. } = verdict {
                is_timed |= self.counters.is_timed();
                if from == local {
                    // A batch of answers has as much room as the batch they answer.
                    let _ = self.replies.push(to, from.ip(), &[&self.reply]);
                } else if let Some(other) = listener_at(&self.listeners, from) {
                    // Rare by its limit, so each is sent at once.
                    let _ = self.elsewhere.push(to, from.ip(), &[&self.reply]);
                    let report = other.socket.send_batch(&mut self.elsewhere);
                    self.counters.sent_batch(report);
                }
            }
        }
        if !self.replies.is_empty() {
            self.counters
                .sent_batch(listener.socket.send_batch(&mut self.replies));
        }
        if is_timed {
            self.counters
                .timed(clock::mono().saturating_duration_since(received_at));
        }
        listener
            .queue_drops
            .store(listener.socket.overflow_drops(), Ordering::Relaxed);
    }
}

/// Has the system keep out what is of no form that is answered.
pub(crate) fn admit_only(socket: &UdpSocket, form: &Form) {
    if let Err(error) = socket.admit_only(std::slice::from_ref(form)) {
        let address = socket.local_addr();
        tracing::warn!(%address, %error, "garbage is not kept out by the system: floods of it cost more");
    }
}

/// The shard's socket at one of the four endpoints of RFC 5780; every shard has all four.
fn listener_at(listeners: &[Listener], local: SocketAddr) -> Option<&Listener> {
    listeners
        .iter()
        .find(|listener| listener.socket.local_addr() == local)
}
