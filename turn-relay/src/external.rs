//! `external-addresses = "auto"`: what each relay address looks like from outside, as at least two STUN servers say.
//!
//! A relay that tells its players a wrong address serves nobody and looks healthy. So nothing is guessed: silence,
//! servers that disagree, and an address that no peer policy would let anybody reach each end the start, and the error
//! names the relay address, every server and what it said. Relay addresses are as fixed as their sockets: when the
//! answers change while the relay runs, that is logged and counted, and a restart takes them over.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use net_io::clock;
use ops::label;
use ops::metrics::{CounterVec, Registry};
use stun_wire::attribute::{ErrorCode, XorMappedAddress};
use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};
use turn_relay_proto::{PeerPolicy, RelayConfig};

use crate::config::{Config, Discovery, ExternalAddresses, Shared, StunServer, relay_config};
use crate::server::BindError;

/// RFC 8489 §6.2.1, cut short: an RTO of 500 ms, three requests in place of seven, and no answer after 3.5 s.
const PATIENCE: Patience = Patience {
    requests: [
        Duration::ZERO,
        Duration::from_millis(500),
        Duration::from_millis(1500),
    ],
    end: Duration::from_millis(3500),
};

/// When requests leave, from the first one on, and when answers are no longer waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    requests: [Duration; 3],
    end: Duration,
}

/// The longest answer that is looked at.
const MAX_ANSWER: usize = 2048;

/// What a relay address looks like from outside could not be found out.
#[derive(Debug, thiserror::Error)]
#[error("external-addresses = \"auto\": {address}: {fault}{}", said(.answers))]
pub struct DiscoveryError {
    /// The relay address.
    pub address: IpAddr,
    fault: Fault,
    answers: Vec<(StunServer, Answer)>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be asked from: {0}")]
    Socket(io::Error),
    #[error("at least two servers have to answer")]
    Silence,
    #[error("{0} is one server under two names")]
    SameServer(SocketAddr),
    #[error("the servers disagree")]
    Disagreement,
    #[error("{0} is no address that players on the internet can reach (and not in peers.allow)")]
    NotPublic(IpAddr),
}

/// What came of asking one server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Address(IpAddr),
    Refused(u16),
    Silent(SocketAddr),
    Unsent(String),
    Unresolved(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "says {ip}"),
            Self::Refused(code) => write!(f, "refuses with error {code}"),
            Self::Silent(address) => write!(f, "does not answer at {address}"),
            Self::Unsent(error) => write!(f, "cannot be asked: {error}"),
            Self::Unresolved(error) => write!(f, "has no address of this family: {error}"),
        }
    }
}

fn said(answers: &[(StunServer, Answer)]) -> String {
    let one = |(server, answer): &(StunServer, Answer)| format!("; {server} {answer}");
    answers.iter().map(one).collect()
}

/// The relay addresses that are seen as others, and what they are seen as; asks only with `"auto"`.
pub(crate) fn resolve(config: &Config) -> Result<Vec<(IpAddr, IpAddr)>, DiscoveryError> {
    match &config.external_addresses {
        ExternalAddresses::Listed(pairs) => Ok(pairs.clone()),
        ExternalAddresses::Auto(discovery) => {
            let found = discover(config, discovery, PATIENCE)?;
            for (inside, outside) in &found {
                tracing::info!(relay_address = %inside, external_address = %outside, "seen from outside as");
            }
            Ok(found)
        }
    }
}

/// All relay addresses at once: the start takes no longer for sixteen than for one.
fn discover(
    config: &Config,
    discovery: &Discovery,
    patience: Patience,
) -> Result<Vec<(IpAddr, IpAddr)>, DiscoveryError> {
    let policy = form_policy(config);
    let asked = config
        .relay_addresses
        .iter()
        .filter(|ip| ip.is_ipv4() || discovery.ipv6);
    let found: Result<Vec<_>, _> = thread::scope(|scope| {
        let threads: Vec<_> = asked
            .map(|inside| {
                let policy = &policy;
                scope.spawn(move || {
                    discover_one(*inside, &discovery.stun, policy, patience)
                        .map(|outside| (*inside, outside))
                })
            })
            .collect();
        let ended = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(ended).collect()
    });
    // What is seen as itself needs no mapping.
    Ok(found?
        .into_iter()
        .filter(|(inside, outside)| inside != outside)
        .collect())
}

/// Judges the form of an address alone: that it is ours is no reason to let it pass, nor to refuse it.
fn form_policy(config: &Config) -> PeerPolicy {
    let shared = Shared::new(config, Vec::new(), Vec::new());
    let mut peers = relay_config(config, &shared, 0..=0);
    peers.relay_addresses = Vec::new();
    peers.peers.allow_only = false;
    PeerPolicy::new(&RelayConfig { ..peers })
}

fn discover_one(
    address: IpAddr,
    servers: &[StunServer],
    policy: &PeerPolicy,
    patience: Patience,
) -> Result<IpAddr, DiscoveryError> {
    let fault = |fault, answers| DiscoveryError {
        address,
        fault,
        answers,
    };
    let answers = match ask(address, servers, patience) {
        Ok(answers) => answers,
        Err(error) => return Err(fault(error, Vec::new())),
    };
    let addresses: Vec<IpAddr> = answers
        .iter()
        .filter_map(|(_, answer)| match answer {
            Answer::Address(ip) => Some(*ip),
            Answer::Refused(_) | Answer::Silent(_) | Answer::Unsent(_) | Answer::Unresolved(_) => {
                None
            }
        })
        .collect();
    let Some((first, others)) = addresses.split_first() else {
        return Err(fault(Fault::Silence, answers));
    };
    if others.iter().any(|other| other != first) {
        return Err(fault(Fault::Disagreement, answers));
    }
    if policy.judge_ip(*first).is_err() {
        return Err(fault(Fault::NotPublic(*first), answers));
    }
    if others.is_empty() {
        return Err(fault(Fault::Silence, answers));
    }
    Ok(*first)
}

/// A transaction with one server.
struct Question {
    to: SocketAddr,
    transaction: TransactionId,
    answer: Option<Answer>,
}

/// Asks every server from one socket on `address`; each gets a transaction of its own.
fn ask(
    address: IpAddr,
    servers: &[StunServer],
    patience: Patience,
) -> Result<Vec<(StunServer, Answer)>, Fault> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0)).map_err(Fault::Socket)?;
    let mut questions = Vec::new();
    let mut seen = BTreeSet::new();
    for server in servers {
        let question = match lookup(server, address) {
            Ok(to) if !seen.insert(to) => return Err(Fault::SameServer(to)),
            Ok(to) => Ok(Question {
                to,
                transaction: random_transaction().map_err(Fault::Socket)?,
                answer: None,
            }),
            Err(error) => Err(Answer::Unresolved(error.to_string())),
        };
        questions.push(question);
    }
    let mut open: Vec<&mut Question> = questions.iter_mut().flatten().collect();
    converse(&socket, &mut open, patience).map_err(Fault::Socket)?;
    let answers = questions.into_iter().map(|question| match question {
        Ok(question) => question.answer.unwrap_or(Answer::Silent(question.to)),
        Err(unresolved) => unresolved,
    });
    Ok(servers.iter().cloned().zip(answers).collect())
}

fn lookup(server: &StunServer, from: IpAddr) -> io::Result<SocketAddr> {
    let mut found = server.host_and_port().to_socket_addrs()?;
    found
        .find(|to| to.is_ipv4() == from.is_ipv4())
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// RFC 8489 §5: uniformly random, so that nobody off the path can answer in a server's place.
fn random_transaction() -> io::Result<TransactionId> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(TransactionId(bytes))
}

fn converse(
    socket: &UdpSocket,
    questions: &mut [&mut Question],
    patience: Patience,
) -> io::Result<()> {
    let begin = clock::mono();
    let mut requests = patience.requests.into_iter().peekable();
    let mut buffer = [0; MAX_ANSWER];
    while questions.iter().any(|question| question.answer.is_none()) {
        let passed = clock::mono().saturating_duration_since(begin);
        if requests.next_if(|at| *at <= passed).is_some() {
            for question in questions.iter_mut().filter(|open| open.answer.is_none()) {
                if let Err(error) = socket.send_to(&request(question.transaction), question.to) {
                    question.answer = Some(Answer::Unsent(error.to_string()));
                }
            }
            continue;
        }
        let next = requests.peek().copied().unwrap_or(patience.end);
        let Some(wait) = next.checked_sub(passed).filter(|wait| !wait.is_zero()) else {
            return Ok(());
        };
        socket.set_read_timeout(Some(wait))?;
        // An error is a time-out, or an ICMP error that anybody may have sent: the clock decides.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let bytes = buffer.get(..len).unwrap_or_default();
            for question in questions.iter_mut().filter(|open| open.answer.is_none()) {
                question.answer = answer_to(question, from, bytes);
            }
        }
    }
    Ok(())
}

fn request(transaction: TransactionId) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Request, Method::BINDING, transaction);
    writer.fingerprint();
    writer.finish();
    out
}

/// Only XOR-MAPPED-ADDRESS counts: boxes on the path rewrite the plain one (RFC 8489 §14.2).
fn answer_to(question: &Question, from: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let message = Message::parse(bytes).ok()?;
    let is_ours = from == question.to
        && message.transaction_id() == question.transaction
        && message.method() == Method::BINDING;
    if !is_ours {
        return None;
    }
    match message.class() {
        Class::Success => {
            let mapped = message.attribute::<XorMappedAddress>().ok()??;
            Some(Answer::Address(mapped.0.ip()))
        }
        Class::Error => {
            let error = message.attribute::<ErrorCode<'_>>().ok()??;
            Some(Answer::Refused(error.code))
        }
        Class::Request | Class::Indication => None,
    }
}

label! {
    /// What came of asking again while the relay runs.
    pub(crate) enum Check: "outcome" {
        Confirmed = "confirmed",
        Changed = "changed",
        Failed = "failed",
    }
}

/// The thread that asks again from time to time. It ends by itself when this is dropped, at the latest after
/// [`PATIENCE`]; nobody waits for it.
#[derive(Debug)]
pub(crate) struct ExternalWatch(
    #[expect(dead_code, reason = "it ends the thread by its drop")] Sender<()>,
);

impl ExternalWatch {
    /// Declares the count of checks, and begins them if the addresses were found out at start.
    pub(crate) fn start(
        config: &Config,
        found: &[(IpAddr, IpAddr)],
        registry: &Registry,
    ) -> Result<Option<Self>, BindError> {
        let checks = registry.counter_vec::<Check>(
            "rallypoint_turn_external_address_checks_total",
            "Looks at whether relay addresses are still seen from outside as they were at start.",
        )?;
        let ExternalAddresses::Auto(discovery) = &config.external_addresses else {
            return Ok(None);
        };
        let (config, discovery, found) = (config.clone(), discovery.clone(), found.to_vec());
        let (stop, stopped) = mpsc::channel::<()>();
        thread::Builder::new()
            .name("turn-external".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(discovery.recheck) == Err(RecvTimeoutError::Timeout) {
                    check(&config, &discovery, &found, &checks);
                }
            })
            .map_err(BindError::Start)?;
        Ok(Some(Self(stop)))
    }
}

fn check(
    config: &Config,
    discovery: &Discovery,
    found: &[(IpAddr, IpAddr)],
    checks: &CounterVec<Check>,
) {
    match discover(config, discovery, PATIENCE) {
        Ok(now) if now == found => checks.with(Check::Confirmed).inc(),
        Ok(now) => {
            checks.with(Check::Changed).inc();
            tracing::warn!(
                ?now,
                at_start = ?found,
                "relay addresses are seen from outside as others than at start: players get wrong addresses until a restart"
            );
        }
        Err(error) => {
            checks.with(Check::Failed).inc();
            tracing::warn!(%error, "cannot tell whether relay addresses are still seen as at start");
        }
    }
}

#[cfg(test)]
mod tests;
