//! What sockets cost when the program costs next to nothing: a TURN server that checks nothing, for `tests/bench/relay.sh`.
//!
//! It answers, binds, relays and closes with the system calls of the real relay, and has no policy, quota, timer, nonce,
//! count or log. Whoever asks gets an allocation, and what he sends goes where he says: never let it listen anywhere but
//! in a network of your own.
//!
//! ```sh
//! cargo run --release -p turn-relay --example floor -- 127.0.0.1:3478 127.0.0.1 USER PASSWORD
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{env, io};

use anyhow::{Context as _, Result};
use mio::{Events, Interest, Poll, Registry, Token};
use net_io::{
    BindOptions, Datagram, MAX_BATCH, MAX_DATAGRAM, RecvBatch, SendBatch, SendRing, UdpSocket,
};
use slab::Slab;
use stun_wire::attribute::{
    ChannelNumberAttribute, ErrorCode, Lifetime, Nonce, Realm, Username, XorMappedAddress,
    XorPeerAddress, XorRelayedAddress,
};
use stun_wire::channel_data::{ChannelData, ChannelNumber};
use stun_wire::{
    Attribute as _, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, error_code,
};

const REALM: &str = "floor";
const LISTENER: Token = Token(usize::MAX - 1);
const FIRST_PORT: u16 = 50_000;
/// From here on it is worth a ring, as in the relay.
const WORTH_A_RING: usize = 4;
/// So many datagrams to a peer are worth a socket that is connected to him, as in the relay.
const WORTH_A_SOCKET: u16 = 128;
/// What the tokens of those are more than the number of their allocation.
const CONNECTED: usize = usize::MAX / 2;
/// The system chooses the address to send from.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn main() -> Result<()> {
    let usage = "usage: floor ADDRESS:PORT RELAY-ADDRESS USER PASSWORD";
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().context(usage);
    let listen: SocketAddr = next()?.parse().context(usage)?;
    let relay_ip: IpAddr = next()?.parse().context(usage)?;
    let key = IntegrityKey::long_term_md5(&next()?, REALM, &next()?);
    Floor::new(listen, relay_ip, key)?.serve()
}

/// The whole server.
struct Floor {
    poll: Poll,
    listener: UdpSocket,
    to_clients: SendBatch,
    relay_ip: IpAddr,
    key: IntegrityKey,
    next_port: u16,
    relayed: Slab<Relayed>,
    /// Of these, nobody's: their sockets serve again, as in the relay.
    spares: Vec<usize>,
    by_client: HashMap<SocketAddr, usize>,
    /// Who has something to send.
    dirty: Vec<usize>,
    ring: Option<SendRing<usize>>,
    reply: Vec<u8>,
}

/// An allocation: a socket, and the two ends of its only channel.
struct Relayed {
    socket: UdpSocket,
    client: SocketAddr,
    channel: Option<(ChannelNumber, SocketAddr)>,
    to_peer: Option<Box<SendBatch>>,
    sent: u16,
    /// Second socket, for the peer of the channel alone.
    connected: Option<UdpSocket>,
}

impl Relayed {
    /// The socket to send by.
    fn outward(&self) -> &UdpSocket {
        self.connected.as_ref().unwrap_or(&self.socket)
    }

    fn connect(&self, number: usize, registry: &Registry) -> io::Result<UdpSocket> {
        let (_, peer) = self.channel.ok_or(io::ErrorKind::NotConnected)?;
        let mut socket = self.socket.connected(peer)?;
        registry.register(&mut socket, Token(CONNECTED + number), Interest::READABLE)?;
        Ok(socket)
    }
}

impl Floor {
    fn new(listen: SocketAddr, relay_ip: IpAddr, key: IntegrityKey) -> Result<Self> {
        let poll = Poll::new()?;
        let mut listener =
            UdpSocket::bind(listen, &options()).with_context(|| listen.to_string())?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            to_clients: SendBatch::new(),
            relay_ip,
            key,
            next_port: FIRST_PORT,
            relayed: Slab::new(),
            spares: Vec::new(),
            by_client: HashMap::new(),
            dirty: Vec::new(),
            ring: SendRing::new().ok(),
            reply: Vec::new(),
        })
    }

    fn serve(mut self) -> Result<()> {
        let mut events = Events::with_capacity(512);
        let mut batch = RecvBatch::new(MAX_BATCH, MAX_DATAGRAM);
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                self.receive(event.token(), &mut batch);
            }
            self.flush();
        }
    }

    fn receive(&mut self, token: Token, batch: &mut RecvBatch) {
        batch.set_capacity(if token == LISTENER { 8 } else { 4 });
        loop {
            let number = token.0.checked_sub(CONNECTED).unwrap_or(token.0);
            let socket = match self.relayed.get(number) {
                Some(relayed) if token.0 == number => &relayed.socket,
                Some(relayed) => relayed.outward(),
                None => &self.listener,
            };
            // An error is an ICMP error, or that there is nothing.
            let received = socket.recv_batch(batch).unwrap_or(0);
            for datagram in batch.iter().filter(|_| received > 0) {
                if token == LISTENER {
                    self.take_from_client(datagram);
                } else {
                    self.take_from_peer(number, datagram.bytes);
                }
            }
            if received < batch.capacity() {
                return;
            }
            batch.set_capacity(MAX_BATCH);
        }
    }

    fn take_from_client(&mut self, datagram: Datagram<'_>) {
        if let Ok(message) = Message::parse(datagram.bytes) {
            if message.class() == Class::Request && self.answer(datagram.from, &message).is_ok() {
                self.push_to_client(datagram.from);
            }
            return;
        }
        let (Ok(data), Some(number)) = (
            ChannelData::parse(datagram.bytes),
            self.by_client.get(&datagram.from),
        ) else {
            return;
        };
        let payload = datagram.bytes.get(data.payload).unwrap_or_default();
        let Some(relayed) = self.relayed.get_mut(*number) else {
            return;
        };
        let Some((_, peer)) = relayed.channel else {
            return;
        };
        let waiting = relayed.to_peer.get_or_insert_with(|| {
            self.dirty.push(*number);
            Box::default()
        });
        if waiting.is_full() {
            let socket = relayed.connected.as_ref().unwrap_or(&relayed.socket);
            socket.send_batch(waiting);
        }
        let _ = waiting.push(peer, ANY, &[payload]);
        relayed.sent = relayed.sent.saturating_add(1);
    }

    fn take_from_peer(&mut self, number: usize, payload: &[u8]) {
        let Some(relayed) = self.relayed.get(number) else {
            return;
        };
        let header = relayed
            .channel
            .and_then(|(channel, _)| ChannelData::header(channel, payload.len()));
        if let Some(header) = header {
            if self.to_clients.is_full() {
                self.listener.send_batch(&mut self.to_clients);
            }
            let _ = self
                .to_clients
                .push(relayed.client, ANY, &[&header, payload]);
        }
    }

    fn push_to_client(&mut self, client: SocketAddr) {
        if self.to_clients.is_full() {
            self.listener.send_batch(&mut self.to_clients);
        }
        let _ = self.to_clients.push(client, ANY, &[&self.reply]);
    }

    /// Does what is asked and writes that it is done. An error: there is no answer.
    fn answer(&mut self, client: SocketAddr, message: &Message<'_>) -> io::Result<()> {
        self.reply.clear();
        let (method, id) = (message.method(), message.transaction_id());
        if method == Method::ALLOCATE && !message.contains(Username::TYPE) {
            let mut writer = MessageWriter::new(&mut self.reply, Class::Error, method, id);
            let unauthenticated = ErrorCode {
                code: error_code::UNAUTHENTICATED,
                reason: "",
            };
            writer
                .attribute(&unauthenticated)
                .attribute(&Realm(REALM))
                .attribute(&Nonce("a nonce of the usual length of forty"));
            writer.finish();
            return Ok(());
        }
        let relayed = match method {
            Method::ALLOCATE => Some(self.allocate(client)?),
            _ => None,
        };
        if method == Method::CHANNEL_BIND {
            self.bind_channel(client, message);
        }
        if method == Method::REFRESH
            && let Some(number) = self.by_client.remove(&client)
        {
            if let Some(relayed) = self.relayed.get_mut(number) {
                relayed.connected = None;
            }
            self.spares.push(number);
        }
        let mut writer = MessageWriter::new(&mut self.reply, Class::Success, method, id);
        if let Some(relayed) = relayed {
            writer.attribute(&XorRelayedAddress(relayed));
        }
        if matches!(method, Method::ALLOCATE | Method::BINDING) {
            writer.attribute(&XorMappedAddress(client));
        }
        writer
            .attribute(&Lifetime(600))
            .integrity(&self.key, IntegrityKind::Sha1);
        writer.finish();
        Ok(())
    }

    fn allocate(&mut self, client: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(number) = self.spares.pop()
            && let Some(relayed) = self.relayed.get_mut(number)
        {
            relayed.client = client;
            relayed.channel = None;
            relayed.sent = 0;
            self.by_client.insert(client, number);
            return Ok(relayed.socket.local_addr());
        }
        let lazy = BindOptions {
            lazy: true,
            ..options()
        };
        let mut socket = loop {
            self.next_port = self.next_port.checked_add(7).unwrap_or(FIRST_PORT);
            match UdpSocket::bind(SocketAddr::new(self.relay_ip, self.next_port), &lazy) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                outcome => break outcome?,
            }
        };
        let entry = self.relayed.vacant_entry();
        let token = Token(entry.key());
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        let address = socket.local_addr();
        self.by_client.insert(client, entry.key());
        entry.insert(Relayed {
            socket,
            client,
            channel: None,
            to_peer: None,
            sent: 0,
            connected: None,
        });
        Ok(address)
    }

    fn bind_channel(&mut self, client: SocketAddr, message: &Message<'_>) {
        let number = self.by_client.get(&client).copied();
        let relayed = number.and_then(|number| self.relayed.get_mut(number));
        if let Some(relayed) = relayed
            && let Ok(Some(XorPeerAddress(peer))) = message.attribute()
            && let Ok(Some(ChannelNumberAttribute(channel))) = message.attribute()
        {
            relayed.channel = ChannelNumber::new(channel).map(|channel| (channel, peer));
        }
    }

    fn flush(&mut self) {
        if !self.to_clients.is_empty() {
            self.listener.send_batch(&mut self.to_clients);
        }
        let together = self.dirty.len() >= WORTH_A_RING;
        for number in self.dirty.drain(..) {
            let Some(relayed) = self.relayed.get_mut(number) else {
                continue;
            };
            let Some(batch) = relayed.to_peer.take() else {
                continue;
            };
            let left = match &mut self.ring {
                Some(ring) if together => ring.push(number, relayed.outward(), batch).err(),
                _ => Some(batch),
            };
            if let Some(mut batch) = left {
                relayed.outward().send_batch(&mut batch);
            }
            if relayed.sent >= WORTH_A_SOCKET && relayed.connected.is_none() {
                relayed.sent = 0;
                relayed.connected = relayed.connect(number, self.poll.registry()).ok();
            }
        }
        if together && let Some(ring) = &mut self.ring {
            let _ = ring.submit(drop);
        }
    }
}

fn options() -> BindOptions {
    BindOptions {
        receive_trains: true,
        send_trains: true,
        ..BindOptions::default()
    }
}
