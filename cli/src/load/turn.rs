//! Relayed packets: allocations, a flood or an even rate, and what came of each packet.
//!
//! ```text
//!            client 0 ──┐ ChannelData or    ┌─ relayed address 0 ──┐ plain UDP
//!            client 1 ──┤ indications    server                    ├── the peer
//!            client 2 ──┘                   └─ relayed address 2 ──┘
//! ```
//!
//! With `--pairs` there is no peer: clients 0 and 1 send to each other's relayed address, and so on. `flood.rs` offers more
//! than the server takes; all else here follows each packet.

mod flood;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use net_io::Datagram;
use stun_wire::channel_data::ChannelData;
use stun_wire::{Class, Message};

use super::args::{Direction, Framing, TurnArgs};
use super::flow::Flow;
use super::net::{Net, Receive, unspecified};
use super::packet::{self, CHANNEL, STAMP_LEN, Stamp};
use super::report::{Outcome, Relayed};
use super::sample::Sample;
use super::session::{Session, Step};
use super::stopwatch::{Figures, Stopwatch};
use super::wire::Wire;
use super::{Ids, LoadError, RETRANSMISSIONS, ask};

/// A flow without progress for so long has lost what is in flight.
const STALL: Duration = Duration::from_millis(100);
/// Packets sent before arrivals are looked at, or bursts if those are more.
const MOST_AT_ONCE: u64 = 64;
const MOST_BURSTS_AT_ONCE: u64 = 8;
/// For the last packets.
const DRAIN: Duration = Duration::from_millis(500);
/// Before a packet is due, waiting is left to the system only down to its granularity; the rest is spun.
const GRAIN: Duration = Duration::from_millis(2);

/// Where a flow begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client(usize),
    Peer,
}

/// A client with its allocation; its socket has the same number.
#[derive(Debug)]
struct Client {
    relayed: SocketAddr,
    /// Whom its channel leads to.
    peer: SocketAddr,
}

#[derive(Debug)]
struct Route {
    flow: Flow,
    from: End,
    to: End,
    /// The client whose relayed address the peer uses.
    client: usize,
}

/// A whole run.
struct Run<'a> {
    args: &'a TurnArgs,
    net: Net,
    ids: Ids,
    sessions: Vec<Session>,
    traffic: Traffic,
    /// With `--wire`, by which flows leave.
    wire: Option<Wire>,
    /// What came of a flood.
    flood: Option<flood::Tally>,
    /// Scratch for payload and indication.
    payload: Vec<u8>,
    framed: Vec<u8>,
}

/// What arrives, judged.
struct Traffic {
    run: u32,
    server: SocketAddr,
    echo: bool,
    clients: Vec<Client>,
    routes: Vec<Route>,
    /// To be sent back.
    returns: Vec<Stamp>,
    arrived: u64,
    foreign: u64,
    latency: Sample,
}

/// Relays packets for as long as wanted; the allocations end with it.
pub(super) fn measure(args: &TurnArgs) -> Result<Relayed, LoadError> {
    let mut run = Run::new(args)?;
    let outcome = run.set_up().and_then(|()| {
        if args.is_flood() {
            run.flood()
        } else {
            run.drive()
        }
    });
    run.release();
    let figures = outcome?;
    Ok(run.report(figures))
}

impl<'a> Run<'a> {
    fn new(args: &'a TurnArgs) -> Result<Self, LoadError> {
        check(args)?;
        let receive = if args.is_flood() {
            Receive::Sample
        } else if args.offload {
            Receive::Trains
        } else {
            Receive::Datagrams
        };
        let ids = Ids::new()?;
        let traffic = Traffic {
            run: ids.run,
            server: args.server,
            echo: args.direction == Direction::Echo,
            clients: Vec::new(),
            routes: Vec::new(),
            returns: Vec::new(),
            arrived: 0,
            foreign: 0,
            latency: Sample::new(),
        };
        Ok(Self {
            args,
            net: Net::receiving(receive)?,
            ids,
            sessions: Vec::new(),
            traffic,
            wire: None,
            flood: None,
            payload: vec![0; args.size.into()],
            framed: Vec::new(),
        })
    }

    /// Allocations first, since in pairs each is the other's peer; then permissions, channels and flows.
    fn set_up(&mut self) -> Result<(), LoadError> {
        let args = self.args;
        let server = args.server;
        let like = args
            .peer_bind
            .filter(|_| !args.pairs)
            .unwrap_or_else(|| server.ip());
        for _ in 0..args.clients {
            let number = self.net.add(unspecified(server.ip()))?;
            self.sessions.push(Session::new(like));
            self.ask_until(number, Step::Permission)?;
        }
        let peer = self.bind_peer()?;
        let relayed: Vec<_> = self.sessions.iter().filter_map(Session::relayed).collect();
        for (number, own) in relayed.iter().enumerate() {
            let Some(peer) = peer.or_else(|| relayed.get(number ^ 1).copied()) else {
                continue;
            };
            if let Some(session) = self.sessions.get_mut(number) {
                session.set_peer(peer);
            }
            let last = match args.framing {
                Framing::Channel => Step::Release,
                Framing::Send => Step::Channel,
            };
            self.ask_until(number, last)?;
            self.traffic.clients.push(Client {
                relayed: *own,
                peer,
            });
        }
        self.traffic.routes = routes(args);
        if args.wire {
            self.set_up_wire()?;
        }
        Ok(())
    }

    /// A frame for each route, when the system knows the neighbours that they lead through.
    fn set_up_wire(&mut self) -> Result<(), LoadError> {
        let ends = self
            .traffic
            .routes
            .iter()
            .map(|route| (route.from, route.client));
        let ends: Vec<_> = ends.collect();
        if ends.iter().any(|(from, _)| *from == End::Peer) {
            self.introduce_peer()?;
        }
        let mut wire = Wire::default();
        for (from, client) in ends {
            let Some((number, to)) = self.path(from, client) else {
                continue;
            };
            let Some(local) = self.net.local_addr(number) else {
                continue;
            };
            let mut datagram = Vec::new();
            let stamp = self.frame_into(&mut datagram, from);
            wire.add(local, to, (&datagram, stamp))?;
        }
        self.wire = Some(wire);
        Ok(())
    }

    /// One packet through the relay from the peer's own socket: on its way the system learns who is next.
    fn introduce_peer(&mut self) -> Result<(), LoadError> {
        let (client, server) = (0, self.args.server);
        let Some((number, to)) = self.path(End::Peer, client) else {
            return Err(LoadError::NoPeer);
        };
        for patience in RETRANSMISSIONS {
            self.net.push(number, to, &[&self.payload]);
            self.net.flush();
            let began = net_io::clock::mono();
            while let Some(left) = patience.checked_sub(began.elapsed()) {
                let mut arrived = false;
                self.net.receive(left, |at, datagram| {
                    arrived |= at == client && datagram.from == server;
                })?;
                if arrived {
                    return Ok(());
                }
            }
        }
        Err(LoadError::WirePeer(to))
    }

    /// The peer's socket has the number behind the last client's.
    fn bind_peer(&mut self) -> Result<Option<SocketAddr>, LoadError> {
        if self.args.pairs {
            return Ok(None);
        }
        let ip: IpAddr = self.args.peer_bind.ok_or(LoadError::NoPeer)?;
        let number = self.net.add(ip)?;
        Ok(self.net.local_addr(number))
    }

    fn ask_until(&mut self, number: usize, step: Step) -> Result<(), LoadError> {
        let user = self.args.login();
        while let Some(session) = self
            .sessions
            .get_mut(number)
            .filter(|session| session.step() != step)
        {
            let id = self.ids.next();
            ask(&mut self.net, number, self.args.server, (session, user), id)?;
        }
        Ok(())
    }

    /// As far as the server answers; otherwise they end by themselves.
    fn release(&mut self) {
        for number in 0..self.sessions.len() {
            let Some(session) = self
                .sessions
                .get_mut(number)
                .filter(|session| session.relayed().is_some())
            else {
                continue;
            };
            session.release();
            if self.ask_until(number, Step::Done).is_err() {
                return;
            }
        }
    }

    fn drive(&mut self) -> Result<Figures, LoadError> {
        let mut watch = Stopwatch::start(&self.args.run);
        let mut next_check = STALL;
        let mut pace = Pace::default();
        let figures = loop {
            let patience = match self.args.rate {
                Some(rate) => self.send_due(&mut pace, rate, &watch),
                None => self.send_window(&watch),
            };
            self.receive(patience, &watch)?;
            if self.args.rate.is_none() && watch.elapsed() >= next_check {
                for route in &mut self.traffic.routes {
                    route.flow.give_up_if_stalled();
                }
                next_check = watch.elapsed() + STALL;
            }
            if let Some(figures) = watch.lap(|| Ok(self.relayed()))? {
                break figures;
            }
        };
        let until = watch.elapsed() + DRAIN;
        while self.sum(Flow::missing) > 0 && watch.elapsed() < until {
            self.receive(STALL, &watch)?;
        }
        Ok(figures)
    }

    /// Fills the windows, each flow's in turn; how long to wait then.
    fn send_window(&mut self, watch: &Stopwatch) -> Duration {
        let burst = u64::from(self.args.burst);
        let most = MOST_AT_ONCE.max(MOST_BURSTS_AT_ONCE * burst);
        let mut sent = 0;
        loop {
            let before = sent;
            for number in 0..self.traffic.routes.len() {
                let has_room = |route: &Route| route.flow.room() >= burst;
                if self.traffic.routes.get(number).is_some_and(has_room) {
                    self.send_burst(number, watch);
                    sent += burst;
                }
            }
            if sent == before || sent >= most {
                break;
            }
        }
        self.flush();
        if sent == 0 { STALL / 5 } else { Duration::ZERO }
    }

    /// Sends what is due at this rate; how long to wait then.
    fn send_due(&mut self, pace: &mut Pace, rate: u32, watch: &Stopwatch) -> Duration {
        let burst = u64::from(self.args.burst);
        let due = due_by(watch.elapsed(), rate);
        let mut now = 0;
        while pace.sent + burst <= due && now < MOST_AT_ONCE {
            self.send_burst(pace.next_route, watch);
            pace.next_route = (pace.next_route + 1) % self.traffic.routes.len().max(1);
            pace.sent += burst;
            now += burst;
        }
        self.flush();
        let wait = time_of(pace.sent + burst, rate).saturating_sub(watch.elapsed());
        if wait < GRAIN {
            Duration::ZERO
        } else {
            wait - GRAIN / 2
        }
    }

    fn send_burst(&mut self, number: usize, watch: &Stopwatch) {
        let sent = watch.elapsed();
        for _ in 0..self.args.burst {
            let Some(route) = self.traffic.routes.get_mut(number) else {
                return;
            };
            let stamp = Stamp {
                run: self.traffic.run,
                flow: u32::try_from(number).unwrap_or(u32::MAX),
                number: route.flow.take_number(),
                sent,
            };
            let (from, client) = (route.from, route.client);
            match &mut self.wire {
                Some(wire) => wire.push(number, &stamp),
                None => self.send(from, client, stamp),
            }
        }
    }

    fn flush(&mut self) {
        self.net.flush();
        if let Some(wire) = &mut self.wire {
            wire.flush();
        }
    }

    fn send(&mut self, from: End, client: usize, stamp: Stamp) {
        let Some((number, to)) = self.path(from, client) else {
            return;
        };
        if let Some(head) = self.payload.first_chunk_mut::<STAMP_LEN>() {
            *head = stamp.bytes();
        }
        let mut framed = std::mem::take(&mut self.framed);
        self.frame_into(&mut framed, from);
        self.net.push(number, to, &[&framed]);
        self.framed = framed;
    }

    /// The socket that an end sends from, and where to.
    fn path(&self, from: End, client: usize) -> Option<(usize, SocketAddr)> {
        let clients = &self.traffic.clients;
        match from {
            End::Peer => Some((clients.len(), clients.get(client)?.relayed)),
            End::Client(number) => Some((number, self.args.server)),
        }
    }

    /// The payload as that end sends it, in `out`, which is emptied first; where in it the payload begins.
    fn frame_into(&self, out: &mut Vec<u8>, from: End) -> usize {
        out.clear();
        let client = match from {
            End::Client(number) => self.traffic.clients.get(number),
            End::Peer => None,
        };
        match (client, self.args.framing) {
            (None, _) => {}
            (Some(_), Framing::Channel) => {
                let header = ChannelData::header(CHANNEL, self.payload.len())
                    .expect("a size of at most 1400 fits into 16 bits");
                out.extend_from_slice(&header);
            }
            (Some(client), Framing::Send) => {
                packet::write_send_indication(out, client.peer, &self.payload);
                // DATA is the last attribute, padded to words (RFC 8489 section 14).
                return out.len() - self.payload.len().next_multiple_of(4);
            }
        }
        out.extend_from_slice(&self.payload);
        out.len() - self.payload.len()
    }

    fn receive(&mut self, patience: Duration, watch: &Stopwatch) -> Result<(), LoadError> {
        let times = self.args.rate.is_some() && watch.is_measuring();
        let traffic = &mut self.traffic;
        self.net.receive(patience, |number, datagram| {
            if let Some(stamp) = traffic.take(number, datagram)
                && times
            {
                traffic
                    .latency
                    .add(watch.elapsed().saturating_sub(stamp.sent));
            }
        })?;
        let mut returns = std::mem::take(&mut self.traffic.returns);
        for stamp in returns.drain(..) {
            let number = usize::try_from(stamp.flow).unwrap_or(usize::MAX);
            if let Some(Route { to, client, .. }) = self.traffic.routes.get(number) {
                self.send(*to, *client, stamp);
            }
        }
        self.traffic.returns = returns;
        self.net.flush();
        Ok(())
    }

    /// One-way packets.
    fn relayed(&self) -> u64 {
        self.traffic.arrived * if self.traffic.echo { 2 } else { 1 }
    }

    fn sum(&self, count: impl Fn(&Flow) -> u64) -> u64 {
        self.traffic
            .routes
            .iter()
            .map(|route| count(&route.flow))
            .sum()
    }

    fn report(self, figures: Figures) -> Relayed {
        let args = self.args;
        let unsent = self.net.unsent() + self.wire.as_ref().map_or(0, Wire::unsent);
        let outcome = self.flood.as_ref().map_or_else(
            || Outcome::Followed {
                sent: self.sum(Flow::sent),
                lost: self.sum(Flow::missing).saturating_sub(unsent),
            },
            |tally| tally.outcome(self.sum(Flow::sent).saturating_sub(unsent)),
        );
        let is_followed = self.flood.is_none();
        Relayed {
            direction: args.direction,
            framing: args.framing,
            pairs: args.pairs,
            clients: args.clients,
            size: args.size,
            burst: args.burst,
            wire: args.wire,
            offload: args.offload,
            window: (is_followed && args.rate.is_none()).then_some(args.window),
            rate: args.rate,
            seconds: figures.seconds,
            relayed: figures.done,
            relayed_per_second: figures.per_second,
            outcome,
            unsent,
            out_of_order: self.sum(Flow::out_of_order),
            foreign: self.traffic.foreign,
            latency_us: self.traffic.latency.percentiles(),
            server_cpu_us_per_packet: figures.server_cpu_us,
            server_busy: figures.server_busy,
            load_busy: figures.load_busy,
        }
    }
}

impl Traffic {
    /// Judges a datagram on socket `number`; the stamp of one that has reached its end.
    fn take(&mut self, number: usize, datagram: Datagram<'_>) -> Option<Stamp> {
        let (here, payload) = match self.clients.get(number) {
            Some(client) => {
                // A late answer to a retransmitted request.
                if datagram.from == self.server && is_answer(datagram.bytes) {
                    return None;
                }
                let payload = packet::payload_from(client.peer, datagram.bytes);
                let payload = payload.filter(|_| datagram.from == self.server);
                (End::Client(number), payload)
            }
            None => (End::Peer, Some(datagram.bytes)),
        };
        let stamp = payload
            .and_then(Stamp::parse)
            .filter(|stamp| stamp.run == self.run);
        let arrival = stamp.and_then(|stamp| self.arrive(here, datagram.from, stamp));
        if arrival.is_none() {
            self.foreign += 1;
        }
        arrival.flatten()
    }

    /// None: this packet has no business here.
    fn arrive(&mut self, here: End, from: SocketAddr, stamp: Stamp) -> Option<Option<Stamp>> {
        let route = self.routes.get_mut(usize::try_from(stamp.flow).ok()?)?;
        let client = self.clients.get(route.client)?;
        if here == End::Peer && from != client.relayed {
            return None;
        }
        if self.echo && here == route.to {
            self.returns.push(stamp);
            return Some(None);
        }
        let end = if self.echo { route.from } else { route.to };
        if here != end || !route.flow.arrived(stamp.number) {
            return None;
        }
        self.arrived += 1;
        Some(Some(stamp))
    }
}

fn is_answer(bytes: &[u8]) -> bool {
    stun_wire::is_stun(bytes)
        && Message::parse(bytes)
            .is_ok_and(|message| matches!(message.class(), Class::Success | Class::Error))
}

/// What cannot be seen from one option alone.
fn check(args: &TurnArgs) -> Result<(), LoadError> {
    if args.pairs && !args.clients.is_multiple_of(2) {
        return Err(LoadError::OddPairs);
    }
    if args.wire && args.direction == Direction::Echo {
        return Err(LoadError::WireEcho);
    }
    if args.wire && args.server.is_ipv6() {
        return Err(LoadError::WireFamily(args.server.ip()));
    }
    if args.offload && !cfg!(target_os = "linux") {
        return Err(LoadError::Offload);
    }
    Ok(())
}

/// A flow for each client, or for each pair; with both directions one each way.
fn routes(args: &TurnArgs) -> Vec<Route> {
    let clients = usize::from(args.clients);
    let ends = if args.pairs { clients / 2 } else { clients };
    let ways: &[bool] = match args.direction {
        Direction::Up | Direction::Echo => &[true],
        Direction::Down => &[false],
        Direction::Both => &[true, false],
    };
    let burst = usize::from(args.burst);
    let share = (usize::from(args.window) / (ends * ways.len()).max(1)).max(burst);
    let window = if args.rate.is_some() || args.is_flood() {
        u64::MAX
    } else {
        u64::try_from(share).unwrap_or(1)
    };
    let route = |number: usize, is_up: bool| {
        let (client, other) = if args.pairs {
            (2 * number, End::Client(2 * number + 1))
        } else {
            (number, End::Peer)
        };
        let (from, to) = if is_up {
            (End::Client(client), other)
        } else {
            (other, End::Client(client))
        };
        Route {
            flow: Flow::new(window),
            from,
            to,
            client,
        }
    };
    let each_way = |number| ways.iter().map(move |is_up| route(number, *is_up));
    (0..ends).flat_map(each_way).collect()
}

/// How far an even rate has come.
#[derive(Debug, Default)]
struct Pace {
    sent: u64,
    next_route: usize,
}

/// Packets due after so long.
fn due_by(elapsed: Duration, rate: u32) -> u64 {
    let due = elapsed.as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// When so many are due.
fn time_of(packets: u64, rate: u32) -> Duration {
    let nanos = u128::from(packets) * 1_000_000_000;
    Duration::from_nanos(u64::try_from(nanos.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
