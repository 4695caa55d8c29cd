//! Many allocations at once, held: does the server give them, keep them, and what do they cost its memory?
//!
//! Each is of a client at an address and port of its own. They are made, renewed and ended with a window of clients
//! waiting for answers. In between the server's process is looked at: before the first request, with all of them and
//! after the last has ended, each time once it has settled.

pub(crate) mod args;
mod report;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use net_io::{Datagram, clock};
use stun_wire::channel_data::ChannelData;

use self::args::HoldArgs;
use self::report::{Cost, Held, Probe};
use super::memory::{self, Memory};
use super::net::{Net, unspecified};
use super::packet::{self, CHANNEL, Stamp};
use super::session::{Session, SessionError, Step, User};
use super::{LoadError, RETRANSMISSIONS, descriptors, numbered_id};

/// How often requests without an answer are looked for.
const CHECK: Duration = Duration::from_millis(20);
/// Making, renewing or ending all of them goes on no longer than this. Permissions live longer, so that what was made
/// first is there when the last is made.
const LONGEST_ROUND: Duration = Duration::from_secs(120);
/// How long credentials are good for: longer than all rounds and the longest hold.
const CREDENTIAL_LIFE: Duration = Duration::from_secs(2 * 3600);
/// Allocations that are probed at a time: no queue has to take more packets.
const PROBED_AT_ONCE: usize = 64;
/// For the packets of a probe.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// One client, on the socket of the same number.
#[derive(Debug)]
struct Client {
    login: usize,
    session: Session,
    /// Of the request that an answer is due to: the same id makes the same bytes.
    request: u64,
    asked: Instant,
    tries: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is due.
    Quiet,
    /// An answer is due.
    Waiting,
    /// It has come.
    Answered,
    /// The server refused, or is silent.
    Failed,
}

/// A whole run.
struct Run<'a> {
    args: &'a HoldArgs,
    logins: Logins,
    net: Net,
    run: u32,
    requests: u64,
    peer: SocketAddr,
    clients: Vec<Client>,
    refusal: Option<SessionError>,
}

/// One for all clients, or one for each.
enum Logins {
    One { name: String, password: String },
    Each(Vec<credentials::Credential>),
}

/// What becomes of clients in a round.
struct Round {
    done: usize,
    seconds: f64,
}

/// Makes allocations, holds them, ends them.
pub(super) fn measure(args: &HoldArgs) -> Result<Held, LoadError> {
    descriptors::make_room(u64::from(args.allocations) + 1)?;
    let mut run = Run::new(args)?;
    let outcome = run.drive();
    if outcome.is_err() {
        // As far as the server answers; otherwise they end by themselves.
        let _ = run.release();
    }
    outcome
}

impl<'a> Run<'a> {
    /// All sockets are open when this returns, so that what the system holds grows by the server's alone from there on.
    fn new(args: &'a HoldArgs) -> Result<Self, LoadError> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(LoadError::Random)?;
        let any = [unspecified(args.server.ip())];
        let sources: &[IpAddr] = match args.client_bind.as_slice() {
            [] => &any,
            sources => sources,
        };
        let mut net = Net::new()?;
        let mut clients = Vec::new();
        let now = clock::mono();
        for (number, source) in (0..usize::from(args.allocations)).zip(sources.iter().cycle()) {
            net.add(*source)?;
            clients.push(Client {
                login: number,
                session: Session::new(args.peer_bind),
                request: 0,
                asked: now,
                tries: 0,
                state: State::Quiet,
            });
        }
        let number = net.add(args.peer_bind)?;
        let peer = net.local_addr(number).ok_or(LoadError::NoPeer)?;
        for client in &mut clients {
            client.session.set_peer(peer);
        }
        Ok(Self {
            args,
            logins: Logins::of(args)?,
            net,
            run: u32::from_be_bytes(run),
            requests: 0,
            peer,
            clients,
            refusal: None,
        })
    }

    fn drive(&mut self) -> Result<Held, LoadError> {
        let idle = self.look()?;
        let made = self.round(|_| true, |session| session.step() == Step::Release)?;
        if made.done == 0 {
            return Err(self.hopeless());
        }
        let (renewals, expired) = self.hold()?;
        let probe = self.args.probe.then(|| self.probe()).transpose()?;
        let held = self.look()?;
        let ended = self.release()?;
        let released = self.look()?;
        let each = u64::try_from(made.done).unwrap_or(u64::MAX);
        let server = match (self.args.server_pid, idle, held, released) {
            (Some(pid), Some(idle), Some(held), Some(released)) => Some(Cost {
                peak_rss: memory::peak_rss(pid).map_err(LoadError::Memory)?,
                bytes_per_allocation: Some(share(held.rss.saturating_sub(idle.rss), each)),
                idle,
                held,
                released,
            }),
            _ => None,
        };
        Ok(Held {
            wanted: self.args.allocations,
            held: made.done,
            refusal: self.refusal.as_ref().map(ToString::to_string),
            setup_seconds: made.seconds,
            renewals,
            expired,
            probe,
            released: ended.done,
            release_seconds: ended.seconds,
            server,
        })
    }

    fn look(&self) -> Result<Option<Memory>, LoadError> {
        let pid = self.args.server_pid;
        pid.map(Memory::settled)
            .transpose()
            .map_err(LoadError::Memory)
    }

    /// Waits, and renews what gets old. The rounds, and how many allocations were not renewed in one of them.
    fn hold(&mut self) -> Result<(u32, usize), LoadError> {
        let began = clock::mono();
        let (mut renewed, mut rounds, mut expired) = (began, 0, 0);
        while let Some(left) = self.args.seconds.checked_sub(began.elapsed()) {
            let due = self.args.refresh.saturating_sub(renewed.elapsed());
            if !due.is_zero() {
                self.net.receive(due.min(left), |_, _| {})?;
                continue;
            }
            renewed = clock::mono();
            let held = self.held().count();
            self.each_held(Session::renew);
            let is_held = |client: &Client| client.session.step() == Step::Refresh;
            let round = self.round(is_held, |session| session.step() == Step::Release)?;
            expired += held - round.done;
            rounds += 1;
        }
        Ok((rounds, expired))
    }

    /// Ends all that was allocated, also where a permission or channel was refused.
    fn release(&mut self) -> Result<Round, LoadError> {
        for client in &mut self.clients {
            if client.session.relayed().is_some() {
                client.session.release();
                client.state = State::Quiet;
            }
        }
        let is_there = |client: &Client| client.session.relayed().is_some();
        self.round(is_there, |session| session.step() == Step::Done)
    }

    /// Asks what each of these clients has to ask until its session is where it should be. At the deadline those that are
    /// not are left where they are.
    fn round(
        &mut self,
        who: impl Fn(&Client) -> bool,
        is_there: impl Fn(&Session) -> bool,
    ) -> Result<Round, LoadError> {
        let began = clock::mono();
        let who: Vec<usize> = self.numbers(who).collect();
        let mut next = who.iter().copied();
        let mut asking: Vec<usize> = Vec::new();
        let (mut done, mut failed) = (0, 0);
        let mut next_check = CHECK;
        let finished = loop {
            let room = usize::from(self.args.window).saturating_sub(asking.len());
            for number in next.by_ref().take(room) {
                self.ask(number);
                asking.push(number);
            }
            if asking.is_empty() {
                break clock::mono();
            }
            self.net.flush();
            self.receive_answers()?;
            if began.elapsed() >= next_check {
                self.ask_again(&asking);
                next_check = began.elapsed() + CHECK;
            }
            let mut still = std::mem::take(&mut asking);
            still.retain(|number| {
                let Some(client) = self.clients.get_mut(*number) else {
                    return false;
                };
                let there = is_there(&client.session);
                match client.state {
                    State::Waiting => return true,
                    State::Answered if !there => {
                        self.ask(*number);
                        return true;
                    }
                    State::Answered => done += 1,
                    State::Quiet | State::Failed => failed += 1,
                }
                false
            });
            asking = still;
            // As many failures as wait at a time and not one success: the server is not for us.
            let hopeless = done == 0 && failed >= usize::from(self.args.window);
            if hopeless || began.elapsed() >= LONGEST_ROUND {
                break clock::mono();
            }
        };
        let seconds = finished.saturating_duration_since(began).as_secs_f64();
        Ok(Round { done, seconds })
    }

    fn ask(&mut self, number: usize) {
        self.requests += 1;
        let request = self.requests;
        if let Some(client) = self.clients.get_mut(number) {
            client.request = request;
            client.tries = 0;
            client.state = State::Waiting;
        }
        self.send(number);
    }

    /// Sends a client's request, for the first time or once more.
    fn send(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else {
            return;
        };
        client.tries += 1;
        client.asked = clock::mono();
        let mut request = Vec::new();
        let id = numbered_id(self.run, client.request);
        client
            .session
            .write_request(self.logins.of_client(client.login), id, &mut request);
        self.net.push(number, self.args.server, &[&request]);
    }

    fn ask_again(&mut self, asking: &[usize]) {
        for number in asking {
            let Some(client) = self.clients.get_mut(*number) else {
                continue;
            };
            if client.state != State::Waiting {
                continue;
            }
            match RETRANSMISSIONS.get(client.tries - 1) {
                Some(patience) if client.asked.elapsed() < *patience => {}
                Some(_) if client.tries < RETRANSMISSIONS.len() => self.send(*number),
                _ => client.state = State::Failed,
            }
        }
    }

    fn receive_answers(&mut self) -> Result<(), LoadError> {
        let (clients, logins, run) = (&mut self.clients, &self.logins, self.run);
        let (server, refusal) = (self.args.server, &mut self.refusal);
        self.net.receive(CHECK, |number, datagram| {
            let is_due = |client: &&mut Client| client.state == State::Waiting;
            let Some(client) = clients.get_mut(number).filter(is_due) else {
                return;
            };
            if datagram.from != server {
                return;
            }
            let id = numbered_id(run, client.request);
            let login = logins.of_client(client.login);
            match client.session.take_answer(login, id, datagram.bytes) {
                Ok(false) => {}
                Ok(true) => client.state = State::Answered,
                Err(error) => {
                    client.state = State::Failed;
                    *refusal = Some(error);
                }
            }
        })
    }

    /// A packet each way over every allocation, some at a time.
    fn probe(&mut self) -> Result<Probe, LoadError> {
        let held: Vec<usize> = self.held().collect();
        let mut probe = Probe { up: 0, down: 0 };
        for some in held.chunks(PROBED_AT_ONCE) {
            for number in some {
                let payload = self.stamp(*number);
                let header = ChannelData::header(CHANNEL, payload.len())
                    .expect("a stamp's length fits into 16 bits");
                self.net
                    .push(*number, self.args.server, &[&header, &payload]);
            }
            probe.up += self.count(some.len(), true)?;
            let peer = self.clients.len();
            for number in some {
                let relayed = self
                    .clients
                    .get(*number)
                    .and_then(|one| one.session.relayed());
                if let Some(relayed) = relayed {
                    let payload = self.stamp(*number);
                    self.net.push(peer, relayed, &[&payload]);
                }
            }
            probe.down += self.count(some.len(), false)?;
        }
        Ok(probe)
    }

    fn stamp(&self, number: usize) -> [u8; packet::STAMP_LEN] {
        let stamp = Stamp {
            run: self.run,
            flow: u32::try_from(number).unwrap_or(u32::MAX),
            number: 0,
            sent: Duration::ZERO,
        };
        stamp.bytes()
    }

    /// Packets that have come to where they belong, when all have or nothing more comes.
    fn count(&mut self, expected: usize, at_peer: bool) -> Result<usize, LoadError> {
        self.net.flush();
        let mut came = 0;
        let mut last = clock::mono();
        while came < expected
            && let Some(left) = PROBE_PATIENCE.checked_sub(last.elapsed())
        {
            let (clients, run, server, peer) =
                (&self.clients, self.run, self.args.server, self.peer);
            self.net.receive(left, |number, datagram| {
                let arrived = if at_peer {
                    number == clients.len() && is_from_relayed(clients, run, datagram)
                } else {
                    let payload = packet::payload_from(peer, datagram.bytes);
                    datagram.from == server && flow_of(run, payload) == Some(number)
                };
                if arrived {
                    came += 1;
                    last = clock::mono();
                }
            })?;
        }
        Ok(came)
    }

    /// Clients with all they should have.
    fn held(&self) -> impl Iterator<Item = usize> {
        let is_held = |client: &Client| {
            client.session.step() == Step::Release && client.state == State::Answered
        };
        self.numbers(is_held)
    }

    fn each_held(&mut self, act: impl Fn(&mut Session)) {
        let held: Vec<usize> = self.held().collect();
        for number in held {
            if let Some(client) = self.clients.get_mut(number) {
                act(&mut client.session);
            }
        }
    }

    fn numbers(&self, who: impl Fn(&Client) -> bool) -> impl Iterator<Item = usize> {
        let clients = self.clients.iter().enumerate();
        clients.filter_map(move |(number, client)| who(client).then_some(number))
    }

    fn hopeless(&self) -> LoadError {
        let server = self.args.server;
        self.refusal.clone().map_or_else(
            || LoadError::Silent {
                server,
                request: "Allocate",
            },
            LoadError::from,
        )
    }
}

impl Logins {
    fn of(args: &HoldArgs) -> Result<Self, LoadError> {
        let Some(file) = &args.secret else {
            return Ok(Self::One {
                name: args.user.clone().unwrap_or_default(),
                password: args.password.clone().unwrap_or_default(),
            });
        };
        let named = |error| LoadError::Secret {
            file: file.clone(),
            error,
        };
        let key = std::fs::read_to_string(file).map_err(named)?;
        let secret = credentials::Secret {
            id: None,
            key: key.trim_end().as_bytes().to_vec(),
        };
        secret
            .check()
            .map_err(|error| named(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let (_, now) = clock::now();
        let until = now + CREDENTIAL_LIFE.as_secs();
        let mint = |number| credentials::mint(&secret, &format!("load-{number}"), until);
        Ok(Self::Each((0..args.allocations).map(mint).collect()))
    }

    fn of_client(&self, number: usize) -> User<'_> {
        let (name, password) = match self {
            Self::One { name, password } => (name.as_str(), password.as_str()),
            Self::Each(all) => all.get(number).map_or(("", ""), |credential| {
                (&credential.username, &credential.password)
            }),
        };
        User { name, password }
    }
}

/// Whether a packet at the peer came from the relayed address of the client that sent it.
fn is_from_relayed(clients: &[Client], run: u32, datagram: Datagram<'_>) -> bool {
    let client = flow_of(run, Some(datagram.bytes)).and_then(|number| clients.get(number));
    client.is_some_and(|client| client.session.relayed() == Some(datagram.from))
}

fn flow_of(run: u32, payload: Option<&[u8]>) -> Option<usize> {
    let stamp = Stamp::parse(payload?).filter(|stamp| stamp.run == run)?;
    usize::try_from(stamp.flow).ok()
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^53 bytes")]
fn share(bytes: u64, count: u64) -> f64 {
    (bytes as f64 / count as f64).round()
}
