//! Relayed packets: allocations, a flood or an even rate, and what came of each packet.
//!
//! ```text
//!            client 0 ──┐ ChannelData or    ┌─ relayed address 0 ──┐ plain UDP
//!            client 1 ──┤ indications    server                    ├── the peer
//!            client 2 ──┘                   └─ relayed address 2 ──┘
//! ```
//!
//! With `--pairs` there is no peer: clients 0 and 1 send to each other's relayed address, and so on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use net_io::Datagram;
use stun_wire::channel_data::ChannelData;
use stun_wire::{Class, Message};

use super::args::{Direction, Framing, TurnArgs};
use super::flow::Flow;
use super::net::{Net, unspecified};
use super::packet::{self, CHANNEL, STAMP_LEN, Stamp};
use super::report::Relayed;
use super::sample::Sample;
use super::session::{Session, Step};
use super::stopwatch::{Figures, Stopwatch};
use super::{Ids, LoadError, ask};

/// A flow without progress for so long has lost what is in flight.
const STALL: Duration = Duration::from_millis(100);
/// Packets sent before arrivals are looked at.
const MOST_AT_ONCE: u64 = 64;
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
    let outcome = run.set_up().and_then(|()| run.drive());
    run.release();
    let figures = outcome?;
    Ok(run.report(figures))
}

impl<'a> Run<'a> {
    fn new(args: &'a TurnArgs) -> Result<Self, LoadError> {
        if args.pairs && !args.clients.is_multiple_of(2) {
            return Err(LoadError::OddPairs);
        }
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
            net: Net::new()?,
            ids,
            sessions: Vec::new(),
            traffic,
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
        Ok(())
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
            if let Some(figures) = watch.lap(self.relayed())? {
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
            if sent == before || sent >= MOST_AT_ONCE {
                break;
            }
        }
        self.net.flush();
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
        self.net.flush();
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
            self.send(from, client, stamp);
        }
    }

    fn send(&mut self, from: End, client: usize, stamp: Stamp) {
        if let Some(head) = self.payload.first_chunk_mut::<STAMP_LEN>() {
            *head = stamp.bytes();
        }
        match from {
            End::Peer => {
                let number = self.traffic.clients.len();
                if let Some(client) = self.traffic.clients.get(client) {
                    self.net.push(number, client.relayed, &[&self.payload]);
                }
            }
            End::Client(number) => {
                let Some(client) = self.traffic.clients.get(number) else {
                    return;
                };
                match self.args.framing {
                    Framing::Channel => {
                        let header = ChannelData::header(CHANNEL, self.payload.len())
                            .expect("a size of at most 1400 fits into 16 bits");
                        self.net
                            .push(number, self.args.server, &[&header, &self.payload]);
                    }
                    Framing::Send => {
                        packet::write_send_indication(&mut self.framed, client.peer, &self.payload);
                        self.net.push(number, self.args.server, &[&self.framed]);
                    }
                }
            }
        }
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
        let unsent = self.net.unsent();
        Relayed {
            direction: args.direction,
            framing: args.framing,
            pairs: args.pairs,
            clients: args.clients,
            size: args.size,
            burst: args.burst,
            window: args.rate.is_none().then_some(args.window),
            rate: args.rate,
            seconds: figures.seconds,
            relayed: figures.done,
            relayed_per_second: figures.per_second,
            sent: self.sum(Flow::sent),
            lost: self.sum(Flow::missing).saturating_sub(unsent),
            unsent,
            out_of_order: self.sum(Flow::out_of_order),
            foreign: self.traffic.foreign,
            latency_us: self.traffic.latency.percentiles(),
            server_cpu_us_per_packet: figures.server_cpu_us,
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

/// A flow for each client, or for each pair.
fn routes(args: &TurnArgs) -> Vec<Route> {
    let clients = usize::from(args.clients);
    let flows = if args.pairs { clients / 2 } else { clients };
    let burst = usize::from(args.burst);
    let share = (usize::from(args.window) / flows.max(1)).max(burst);
    let window = if args.rate.is_some() {
        u64::MAX
    } else {
        u64::try_from(share).unwrap_or(1)
    };
    let route = |number: usize| {
        let (client, other) = if args.pairs {
            (2 * number, End::Client(2 * number + 1))
        } else {
            (number, End::Peer)
        };
        let (from, to) = match args.direction {
            Direction::Up | Direction::Echo => (End::Client(client), other),
            Direction::Down => (other, End::Client(client)),
        };
        let flow = Flow::new(window);
        Route {
            flow,
            from,
            to,
            client,
        }
    };
    (0..flows).map(route).collect()
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
