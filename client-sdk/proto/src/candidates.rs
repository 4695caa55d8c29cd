//! What we know of our own addresses: the sockets, and how STUN servers see them.
//!
//! Every socket asks every STUN server of its family; the first answer gives the socket's server-reflexive candidate. The
//! question is repeated for as long as the room is open, so that the NAT keeps the mapping while players wait, and a changed
//! answer is a new candidate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use stun_wire::attribute::{MappedAddress, XorMappedAddress};
use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};

use crate::types::{SocketId, Transmit};

/// Sockets one endpoint may use.
pub const MAX_SOCKETS: usize = 16;
/// STUN servers asked.
pub const MAX_STUN_SERVERS: usize = 4;
/// Server-reflexive candidates one socket may have over its life.
const MAX_REFLEXIVE: usize = 4;
/// RFC 8489 §6.2.1 starts at 500 ms; game players wait, and a wrong guess costs 20 bytes.
const FIRST_RTO: Duration = Duration::from_millis(200);
/// Questions asked before a server counts as silent: 200, 400, 800, 1600 ms.
const ATTEMPTS: u32 = 4;
/// RFC 8445 §11 asks for at least 15 s between keepalives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A socket's address as a STUN server sees it, new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reflexive {
    pub(crate) address: SocketAddr,
    pub(crate) base: SocketAddr,
    pub(crate) url: Arc<str>,
}

/// Our sockets and their questions to STUN servers.
#[derive(Debug)]
pub(crate) struct Candidates {
    rng: StdRng,
    sockets: Vec<Socket>,
    servers: Vec<(SocketAddr, Arc<str>)>,
    transmits: Vec<Transmit>,
}

#[derive(Debug)]
struct Socket {
    id: SocketId,
    address: SocketAddr,
    reflexive: Vec<SocketAddr>,
    questions: Vec<Question>,
}

#[derive(Debug)]
struct Question {
    server: SocketAddr,
    url: Arc<str>,
    transaction: TransactionId,
    asked: u32,
    answered: bool,
    next: Instant,
}

impl Candidates {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            sockets: Vec::new(),
            servers: Vec::new(),
            transmits: Vec::new(),
        }
    }

    /// Adds a socket. False when there are [`MAX_SOCKETS`] already.
    pub(crate) fn add_socket(&mut self, now: Instant, id: SocketId, address: SocketAddr) -> bool {
        if self.sockets.len() >= MAX_SOCKETS {
            return false;
        }
        let questions = Vec::new();
        self.sockets.push(Socket {
            id,
            address,
            reflexive: Vec::new(),
            questions,
        });
        for (server, url) in self.servers.clone() {
            self.ask(now, id, server, url);
        }
        true
    }

    /// Asks `server` from every socket of its family.
    pub(crate) fn add_server(&mut self, now: Instant, server: SocketAddr, url: Arc<str>) {
        if self.servers.len() >= MAX_STUN_SERVERS
            || self.servers.iter().any(|(known, _)| *known == server)
        {
            return;
        }
        self.servers.push((server, Arc::clone(&url)));
        let ids: Vec<_> = self.sockets.iter().map(|socket| socket.id).collect();
        for id in ids {
            self.ask(now, id, server, Arc::clone(&url));
        }
    }

    pub(crate) fn sockets(&self) -> Vec<(SocketId, SocketAddr)> {
        self.sockets
            .iter()
            .map(|socket| (socket.id, socket.address))
            .collect()
    }

    pub(crate) fn socket_at(&self, address: SocketAddr) -> Option<SocketId> {
        self.sockets
            .iter()
            .find(|socket| socket.address == address)
            .map(|socket| socket.id)
    }

    pub(crate) fn address_of(&self, id: SocketId) -> Option<SocketAddr> {
        self.sockets
            .iter()
            .find(|socket| socket.id == id)
            .map(|socket| socket.address)
    }

    /// Whether every question was answered or has been asked in vain.
    pub(crate) fn is_settled(&self) -> bool {
        self.sockets
            .iter()
            .flat_map(|socket| &socket.questions)
            .all(|question| question.answered || question.asked >= ATTEMPTS)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sockets
            .iter()
            .flat_map(|socket| &socket.questions)
            .map(|question| question.next)
            .min()
    }

    pub(crate) fn take_transmits(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.transmits)
    }

    /// Repeats what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for socket in &mut self.sockets {
            for question in &mut socket.questions {
                if question.next <= now {
                    question.send(now, socket.id, &mut self.rng, &mut self.transmits);
                }
            }
        }
    }

    /// Takes a Binding response that answers one of our questions. `None` when it does not; `Some(None)` when it does and
    /// tells nothing new.
    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Option<Option<Reflexive>> {
        let socket = self.sockets.iter_mut().find(|own| own.id == socket)?;
        let question = socket.questions.iter_mut().find(|question| {
            question.server == from && question.transaction == message.transaction_id()
        })?;
        question.answered = true;
        question.asked = 0;
        question.next = now + KEEPALIVE;
        if message.class() != Class::Success {
            return Some(None);
        }
        let Some(address) = mapped_address(message) else {
            return Some(None);
        };
        let new = address != socket.address
            && !socket.reflexive.contains(&address)
            && address.is_ipv4() == socket.address.is_ipv4()
            && socket.reflexive.len() < MAX_REFLEXIVE;
        if !new {
            return Some(None);
        }
        socket.reflexive.push(address);
        let url = Arc::clone(&question.url);
        Some(Some(Reflexive {
            address,
            base: socket.address,
            url,
        }))
    }

    fn ask(&mut self, now: Instant, id: SocketId, server: SocketAddr, url: Arc<str>) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.id == id) else {
            return;
        };
        if socket.address.is_ipv4() != server.is_ipv4() {
            return;
        }
        let mut question = Question {
            server,
            url,
            transaction: TransactionId([0; 12]),
            asked: 0,
            answered: false,
            next: now,
        };
        question.send(now, id, &mut self.rng, &mut self.transmits);
        socket.questions.push(question);
    }
}

impl Question {
    fn send(
        &mut self,
        now: Instant,
        socket: SocketId,
        rng: &mut StdRng,
        transmits: &mut Vec<Transmit>,
    ) {
        if self.asked == 0 {
            rng.fill_bytes(&mut self.transaction.0);
        }
        let mut bytes = Vec::with_capacity(28);
        let mut writer = MessageWriter::new(
            &mut bytes,
            Class::Request,
            Method::BINDING,
            self.transaction,
        );
        writer.fingerprint();
        writer.finish();
        transmits.push(Transmit::Datagram {
            socket,
            to: self.server,
            bytes,
        });
        self.next = if self.asked + 1 < ATTEMPTS {
            now + FIRST_RTO * 2_u32.pow(self.asked)
        } else {
            now + KEEPALIVE
        };
        self.asked = (self.asked + 1).min(ATTEMPTS);
        if self.answered && self.asked >= ATTEMPTS {
            self.asked = 0;
        }
    }
}

fn mapped_address(message: &Message<'_>) -> Option<SocketAddr> {
    if let Ok(Some(XorMappedAddress(address))) = message.attribute() {
        return Some(address);
    }
    message
        .attribute()
        .ok()
        .flatten()
        .map(|MappedAddress(address)| address)
}
