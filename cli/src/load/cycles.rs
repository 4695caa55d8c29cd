//! Allocation cycles: 401, Allocate, CreatePermission, ChannelBind, Refresh to 0, over and over, some at once.
//!
//! Each cycle is a new client at a new port, as players are; what it asked for is given back before the next.

use std::net::SocketAddr;
use std::time::Duration;

use stun_wire::TransactionId;

use super::args::TurnArgs;
use super::net::{Net, unspecified};
use super::report::Cycles;
use super::session::{Session, SessionError, Step, User};
use super::stopwatch::{Figures, Stopwatch};
use super::{Ids, LoadError, RETRANSMISSIONS, ask};

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
}

/// A whole run.
struct Run<'a> {
    user: User<'a>,
    server: SocketAddr,
    peer: SocketAddr,
    net: Net,
    ids: Ids,
    slots: Vec<Slot>,
    completed: u64,
    failed: u64,
    refusal: Option<SessionError>,
}

/// Makes and ends allocations for as long as wanted.
pub(super) fn measure(args: &TurnArgs) -> Result<Cycles, LoadError> {
    let ip = args.peer_bind.ok_or(LoadError::NoPeer)?;
    let mut run = Run {
        user: args.login(),
        server: args.server,
        peer: SocketAddr::new(ip, PEER_PORT),
        net: Net::new()?,
        ids: Ids::new()?,
        slots: Vec::new(),
        completed: 0,
        failed: 0,
        refusal: None,
    };
    let outcome = run.drive(args);
    run.release();
    Ok(Cycles::new(args.clients, run.failed, outcome?))
}

impl Run<'_> {
    fn drive(&mut self, args: &TurnArgs) -> Result<Figures, LoadError> {
        let mut watch = Stopwatch::start(&args.run);
        for number in 0..usize::from(args.clients) {
            self.net.add(unspecified(self.server.ip()))?;
            self.slots.push(Slot::new(self.peer));
            self.ask(number, &watch);
        }
        let mut next_check = CHECK;
        loop {
            self.net.flush();
            let (slots, user, server) = (&mut self.slots, self.user, self.server);
            let refusal = &mut self.refusal;
            self.net.receive(CHECK, |number, datagram| {
                if let Some(slot) = slots.get_mut(number).filter(|_| datagram.from == server) {
                    slot.take(user, datagram.bytes, refusal);
                }
            })?;
            if watch.elapsed() >= next_check {
                self.ask_again(&watch);
                next_check = watch.elapsed() + CHECK;
            }
            self.go_on(&watch)?;
            if let Some(figures) = watch.lap(|| Ok(self.completed))? {
                return Ok(figures);
            }
        }
    }

    /// What each client that has its answer does next.
    fn go_on(&mut self, watch: &Stopwatch) -> Result<(), LoadError> {
        for number in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(number) else {
                continue;
            };
            let done = slot.session.step() == Step::Done;
            match slot.state {
                State::Waiting => continue,
                State::Answered if !done => {}
                State::Answered => {
                    self.completed += 1;
                    *slot = Slot::new(self.peer);
                    self.net.replace(number, unspecified(self.server.ip()))?;
                }
                State::Failed => {
                    self.failed += 1;
                    self.give_up_if_hopeless()?;
                    // Its allocation, if it has one, is left to end by itself.
                    if let Some(slot) = self.slots.get_mut(number) {
                        *slot = Slot::new(self.peer);
                    }
                    self.net.replace(number, unspecified(self.server.ip()))?;
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
        self.net.push(number, self.server, &[&slot.request]);
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
                    self.net.push(number, self.server, &[&slot.request]);
                }
                _ => slot.state = State::Failed,
            }
        }
    }

    /// Waits for the answers that are due: an allocation that is not heard of cannot be given back.
    fn hear_the_last(&mut self) {
        let (user, server) = (self.user, self.server);
        let began = net_io::clock::mono();
        while self.slots.iter().any(|slot| slot.state == State::Waiting)
            && let Some(left) = LAST.checked_sub(began.elapsed())
        {
            let (slots, refusal) = (&mut self.slots, &mut self.refusal);
            let heard = self.net.receive(left.min(CHECK), |number, datagram| {
                if let Some(slot) = slots.get_mut(number).filter(|_| datagram.from == server) {
                    slot.take(user, datagram.bytes, refusal);
                }
            });
            if heard.is_err() {
                return;
            }
        }
    }

    /// Gives back what the last, unfinished cycles hold, as far as the server answers.
    fn release(&mut self) {
        self.hear_the_last();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.session.relayed().is_none() || slot.session.step() == Step::Done {
                continue;
            }
            slot.session.release();
            while slot.session.step() != Step::Done {
                let id = self.ids.next();
                if ask(
                    &mut self.net,
                    number,
                    self.server,
                    (&mut slot.session, self.user),
                    id,
                )
                .is_err()
                {
                    return;
                }
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
            state: State::Waiting,
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
