//! Listeners of clients' connections: who comes is taken in, some at a time.

use std::io;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Interest, Registry};
use net_io::opening::Door;

use crate::counters::{Operation, StreamRefusal};
use crate::outward::Outward;
use crate::source::Source;

/// Connections accepted from one listener in a round.
const MOST: usize = 32;

/// After an accept failed for want of descriptors or memory, the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// A shard's listeners, by number.
pub(crate) struct Accepts {
    listeners: Vec<Listener>,
    /// When all are tried again that the system does not tell of.
    again: Option<Instant>,
}

struct Listener {
    socket: TcpListener,
    door: Door,
    is_ready: bool,
}

impl Accepts {
    pub(crate) fn new(
        listeners: Vec<(TcpListener, Door)>,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut registered = Vec::new();
        for (index, (mut socket, door)) in listeners.into_iter().enumerate() {
            let token = Source::Accept(index).token();
            registry.register(&mut socket, token, Interest::READABLE)?;
            registered.push(Listener {
                socket,
                door,
                is_ready: false,
            });
        }
        Ok(Self {
            listeners: registered,
            again: None,
        })
    }

    /// Marks a listener as having connections to accept. True if that is news.
    pub(crate) fn mark_ready(&mut self, index: usize, ready: bool) -> bool {
        self.listeners
            .get_mut(index)
            .is_some_and(|listener| std::mem::replace(&mut listener.is_ready, ready) != ready)
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.again
    }

    /// The listeners to try again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Source> {
        if self.again.is_none_or(|again| again > now) {
            return Vec::new();
        }
        self.again = None;
        (0..self.listeners.len())
            .filter(|index| self.mark_ready(*index, true))
            .map(Source::Accept)
            .collect()
    }

    /// Takes in who waits at one listener. True: there may be more.
    pub(crate) fn serve(
        &mut self,
        index: usize,
        outward: &mut Outward,
        registry: &Registry,
        now: Instant,
    ) -> bool {
        let Some(Listener { socket, door, .. }) = self.listeners.get(index) else {
            return false;
        };
        let counters = &outward.counters;
        for _ in 0..MOST {
            match socket.accept() {
                Ok((connection, _)) => {
                    let token = |key| Source::Stream(key).token();
                    outward
                        .streams
                        .accept(connection, *door, registry, token, now, counters);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if is_of_one_connection(&error) => {
                    counters.socket_errors.inc(Operation::Accept);
                }
                Err(_) => {
                    // No descriptors or no memory: the connection stays queued in the system,
                    // which does not tell of it again.
                    counters.socket_errors.inc(Operation::Accept);
                    counters.streams.refused.inc(StreamRefusal::Resources);
                    self.again = Some(now + PAUSE);
                    return false;
                }
            }
        }
        true
    }
}

/// An error that belongs to one connection which is gone, not to the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
