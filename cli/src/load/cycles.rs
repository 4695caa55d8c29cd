//! Allocation cycles: 401, Allocate, CreatePermission, ChannelBind, Refresh to 0, over and over, some at once.
//!
//! Each cycle is a new client at a new port, as players are; what it asked for is given back before the next.

mod clients;

use std::net::SocketAddr;
use std::time::Duration;

use stun_wire::TransactionId;

use super::args::TurnArgs;
use super::report::{Cycles, Failures};
use super::session::{Session, SessionError, Step, User};
use super::stopwatch::{Figures, Stopwatch};
use super::{Ids, LoadError, RETRANSMISSIONS};
use clients::Clients;

/// How often requests without an answer are looked for.
const CHECK: Duration = Duration::from_millis(20);
/// For the last answers when time is up.
const LAST: Duration = Duration::from_millis(500);
/// Whom permissions and channels are for; nothing is ever sent there.
const PEER_PORT: u16 = 9999;

/// One client at a time, on the socket of the same number.
#[derive(Debug)]
struct Slot {
    session: Session,
    id: TransactionId,
    request: Vec<u8>,
    /// When it was last sent, and how often.
    asked: Duration,
    tries: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An answer is due.
    Waiting,
    /// It has come.
    Answered,
    /// The server refused, or is silent.
    Failed,
    /// Nothing is asked: not yet, or not any more.
    Idle,
}

/// A whole run.
struct Run<'a> {
    user: User<'a>,
    peer: SocketAddr,
    server: SocketAddr,
    clients: Clients,
    ids: Ids,
    slots: Vec<Slot>,
    completed: u64,
    failed: u64,
    refusal: Option<SessionError>,
}

/// Makes and ends allocations for as long as wanted.
pub(super) fn measure(args: &TurnArgs) -> Result<Cycles, LoadError> {
    let ip = args.peer_bind.ok_or(LoadError::NoPeer)?;
    let mut ids = Ids::new()?;
    let clients = if args.wire {
        let net = args.client_net.ok_or(LoadError::NoClientNet)?;
        Clients::as_frames(args.server, net, (args.login(), ids.next()))?
    } else {
        Clients::at_sockets(args.server)?
    };
    let mut run = Run {
        user: args.login(),
        peer: SocketAddr::new(ip, PEER_PORT),
        server: args.server,
        clients,
        ids,
        slots: Vec::new(),
        completed: 0,
        failed: 0,
        refusal: None,
    };
    let mut watch = Stopwatch::start(&args.run);
    let outcome = run.drive(args.clients, &mut watch);
    run.release(&watch);
    let failures = Failures {
        count: run.failed,
        last_refusal: run.refusal.map(|refusal| refusal.to_string()),
    };
    Ok(Cycles::new(args.clients, failures, outcome?))
}

impl Run<'_> {
    fn drive(&mut self, clients: u16, watch: &mut Stopwatch) -> Result<Figures, LoadError> {
        for number in 0..usize::from(clients) {
            self.clients.add()?;
            self.slots.push(Slot::new(self.peer));
            self.ask(number, watch);
        }
        let mut next_check = CHECK;
        loop {
            self.exchange(CHECK)?;
            if watch.elapsed() >= next_check {
                self.ask_again(watch);
                next_check = watch.elapsed() + CHECK;
            }
            self.go_on(watch)?;
            if let Some(figures) = watch.lap(|| Ok(self.completed))? {
                return Ok(figures);
            }
        }
    }

    /// Sends what is waiting and takes what comes within `patience`.
    fn exchange(&mut self, patience: Duration) -> Result<(), LoadError> {
        self.clients.flush();
        let (slots, user, refusal) = (&mut self.slots, self.user, &mut self.refusal);
        self.clients.receive(patience, |number, answer| {
            if let Some(slot) = slots.get_mut(number) {
                slot.take(user, answer, refusal);
            }
        })
    }

    /// What each client that has its answer does next.
    fn go_on(&mut self, watch: &Stopwatch) -> Result<(), LoadError> {
        for number in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(number) else {
                continue;
            };
            let done = slot.session.step() == Step::Done;
            match slot.state {
                State::Waiting | State::Idle => continue,
                State::Answered if !done => {}
                State::Answered => {
                    self.completed += 1;
                    *slot = Slot::new(self.peer);
                    self.clients.replace(number)?;
                }
                State::Failed => {
                    self.failed += 1;
                    // Its allocation, if it has one, is left to end by itself.
                    *slot = Slot::new(self.peer);
                    self.give_up_if_hopeless()?;
                    self.clients.replace(number)?;
                }
            }
            self.ask(number, watch);
        }
        Ok(())
    }

    /// As many failures as clients and not one success: the server is not for us.
    fn give_up_if_hopeless(&self) -> Result<(), LoadError> {
        let hopeless = self.completed == 0
            && self.failed >= u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        if !hopeless {
            return Ok(());
        }
        let server = self.server;
        Err(self.refusal.clone().map_or_else(
            || LoadError::Silent {
                server,
                request: "Allocate",
            },
            LoadError::from,
        ))
    }

    fn ask(&mut self, number: usize, watch: &Stopwatch) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.id = self.ids.next();
        slot.session
            .write_request(self.user, slot.id, &mut slot.request);
        slot.asked = watch.elapsed();
        slot.tries = 1;
        slot.state = State::Waiting;
        self.clients.push(number, &slot.request);
    }

    fn ask_again(&mut self, watch: &Stopwatch) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.state != State::Waiting {
                continue;
            }
            let waited = watch.elapsed().saturating_sub(slot.asked);
            match RETRANSMISSIONS.get(slot.tries - 1) {
                Some(patience) if waited < *patience => {}
                Some(_) if slot.tries < RETRANSMISSIONS.len() => {
                    slot.tries += 1;
                    slot.asked = watch.elapsed();
                    self.clients.push(number, &slot.request);
                }
                _ => slot.state = State::Failed,
            }
        }
    }

    /// Gives back what the last, unfinished cycles hold, as far as the server answers in time. An answer that is due is
    /// waited for: an allocation that is not heard of cannot be given back.
    fn release(&mut self, watch: &Stopwatch) {
        let until = watch.elapsed() + LAST;
        while watch.elapsed() < until {
            for number in 0..self.slots.len() {
                let Some(slot) = self.slots.get_mut(number) else {
                    continue;
                };
                if matches!(slot.state, State::Waiting | State::Idle) {
                    continue;
                }
                if slot.session.relayed().is_none() || slot.session.step() == Step::Done {
                    slot.state = State::Idle;
                    continue;
                }
                slot.session.release();
                self.ask(number, watch);
            }
            if self.slots.iter().all(|slot| slot.state == State::Idle) {
                return;
            }
            self.ask_again(watch);
            if self.exchange(CHECK).is_err() {
                return;
            }
        }
    }
}

impl Slot {
    fn new(peer: SocketAddr) -> Self {
        let mut session = Session::new(peer.ip());
        session.set_peer(peer);
        Self {
            session,
            id: TransactionId([0; 12]),
            request: Vec::new(),
            asked: Duration::ZERO,
            tries: 0,
            state: State::Idle,
        }
    }

    fn take(&mut self, user: User<'_>, bytes: &[u8], refusal: &mut Option<SessionError>) {
        if self.state != State::Waiting {
            return;
        }
        match self.session.take_answer(user, self.id, bytes) {
            Ok(false) => {}
            Ok(true) => self.state = State::Answered,
            Err(error) => {
                self.state = State::Failed;
                *refusal = Some(error);
            }
        }
    }
}
