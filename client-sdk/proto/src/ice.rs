//! The ICE agent of one session, over the crate `is`: the only file that names it.
//!
//! Adds what the crate leaves to its user: a bounded list of the other player's candidates, giving one of them up when its
//! path has died and trying it again later, and a word for each pair the first time it is checked and answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};

use crate::types::CandidateKind;

/// The other player's candidates that one session keeps; more are refused.
pub const MAX_REMOTE_CANDIDATES: usize = 32;
/// Pairs whose first check and first answer are told to the diary.
const MAX_TOLD_PAIRS: usize = 256;
/// RFC 8445 §14.3 asks for 500 ms; RFC 8489 §6.2.1 lets a client that knows better start lower, and game paths are short.
const FIRST_RTO: Duration = Duration::from_millis(100);
const LONGEST_RTO: Duration = Duration::from_millis(1500);
/// RFC 8445 §14.2: the least pace of checks.
const PACE: Duration = Duration::from_millis(5);

/// What the agent found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// An address is the other player's: it proved knowledge of the password. Session bytes may be taken from it.
    Validated(SocketAddr),
    /// Session bytes leave from here to there from now on.
    Nominated {
        /// One of our bases: a socket's address or an address on a relay.
        local: SocketAddr,
        /// The other player's address.
        remote: SocketAddr,
    },
    /// A pair was checked for the first time.
    CheckSent {
        /// Our base.
        local: SocketAddr,
        /// The other player's address.
        remote: SocketAddr,
    },
    /// A pair's check was answered: the path works both ways.
    CheckAnswered {
        /// Our base.
        local: SocketAddr,
        /// The other player's address.
        remote: SocketAddr,
        /// Whether it is the pair's first answer.
        first: bool,
    },
}

/// Why a candidate of the other player was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateError {
    /// It does not parse, or is not for UDP.
    Malformed,
    /// There are [`MAX_REMOTE_CANDIDATES`] already.
    TooMany,
}

/// The ICE agent of one session.
#[derive(Debug)]
pub struct Agent {
    inner: IceAgent,
    /// Our candidates, each with its base.
    local: Vec<(SocketAddr, Candidate)>,
    remote: Vec<Candidate>,
    asked: BTreeSet<(SocketAddr, SocketAddr)>,
    answered: BTreeSet<(SocketAddr, SocketAddr)>,
    told: Vec<AgentEvent>,
}

impl Agent {
    /// An agent with fresh random credentials.
    #[must_use]
    pub fn new(controlling: bool) -> Self {
        let mut inner = IceAgent::new(IceCreds::new());
        inner.set_controlling(controlling);
        inner.set_initial_stun_rto(FIRST_RTO);
        inner.set_max_stun_rto(LONGEST_RTO);
        inner.set_timing_advance(PACE);
        Self {
            inner,
            local: Vec::new(),
            remote: Vec::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    /// Our username fragment and password, for the description.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        let credentials = self.inner.local_credentials();
        (&credentials.ufrag, &credentials.pass)
    }

    /// Sets who nominates; may be called until the other player's credentials are known.
    pub fn set_controlling(&mut self, controlling: bool) {
        self.inner.set_controlling(controlling);
    }

    /// Takes the other player's credentials; checks start with them.
    pub fn set_remote_credentials(&mut self, ufrag: &str, pwd: &str) {
        self.inner.set_remote_credentials(IceCreds {
            ufrag: ufrag.to_owned(),
            pass: pwd.to_owned(),
        });
    }

    /// Adds a candidate of ours; the answer is the line for the other player, `None` when it adds nothing.
    pub fn add_local(
        &mut self,
        kind: CandidateKind,
        address: SocketAddr,
        base: SocketAddr,
    ) -> Option<String> {
        let candidate = match kind {
            CandidateKind::Host => Candidate::host(address, "udp"),
            CandidateKind::ServerReflexive => Candidate::server_reflexive(address, base, "udp"),
            CandidateKind::Relayed => Candidate::relayed(address, base, "udp"),
            CandidateKind::PeerReflexive => return None,
        };
        let candidate = candidate.ok()?;
        let line = self
            .inner
            .add_local_candidate(candidate.clone())?
            .to_sdp_string();
        let base = if kind == CandidateKind::ServerReflexive {
            base
        } else {
            address
        };
        self.local.push((base, candidate));
        Some(line)
    }

    /// Adds a candidate of the other player from its line.
    ///
    /// # Errors
    /// [`CandidateError`]: nothing was added.
    pub fn add_remote(
        &mut self,
        line: &str,
    ) -> Result<(CandidateKind, SocketAddr), CandidateError> {
        let candidate = Candidate::from_sdp_string(line).map_err(|_| CandidateError::Malformed)?;
        if candidate.proto() != Protocol::Udp || candidate.addr().port() == 0 {
            return Err(CandidateError::Malformed);
        }
        if self.remote.len() >= MAX_REMOTE_CANDIDATES {
            return Err(CandidateError::TooMany);
        }
        let learnt = (kind_of(&candidate), candidate.addr());
        self.remote.push(candidate.clone());
        self.inner.add_remote_candidate(candidate);
        Ok(learnt)
    }

    /// The addresses the other player told.
    #[must_use]
    pub fn remote_addresses(&self) -> Vec<SocketAddr> {
        self.remote.iter().map(Candidate::addr).collect()
    }

    /// What kind of candidate the other player's address is: peer-reflexive unless they told it.
    #[must_use]
    pub fn remote_kind(&self, address: SocketAddr) -> CandidateKind {
        self.remote
            .iter()
            .find(|candidate| candidate.addr() == address)
            .map_or(CandidateKind::PeerReflexive, kind_of)
    }

    /// Takes a STUN message from `from` that arrived on our base `to`. False when it is not for this session.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let Ok(message) = StunMessage::parse(bytes) else {
            return false;
        };
        let answer = message.is_successful_binding_response();
        let packet = StunPacket {
            proto: Protocol::Udp,
            source: from,
            destination: to,
            message,
        };
        let mine = self.inner.handle_packet(now, packet);
        if mine && answer {
            let known = self.answered.contains(&(to, from));
            if known || self.answered.len() < MAX_TOLD_PAIRS {
                self.answered.insert((to, from));
                self.told.push(AgentEvent::CheckAnswered {
                    local: to,
                    remote: from,
                    first: !known,
                });
            }
        }
        mine
    }

    /// Sends due checks.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    /// The next time [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    /// The next check or answer to send: from our base, to the other player's address.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let transmit = self.inner.poll_transmit()?;
        let pair = (transmit.source, transmit.destination);
        let bytes: Vec<u8> = transmit.contents.into();
        if stun_wire::Message::parse(&bytes)
            .is_ok_and(|message| message.class() == stun_wire::Class::Request)
            && self.asked.len() < MAX_TOLD_PAIRS
            && self.asked.insert(pair)
        {
            self.told.push(AgentEvent::CheckSent {
                local: pair.0,
                remote: pair.1,
            });
        }
        Some((pair.0, pair.1, bytes))
    }

    /// The next thing found out.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        if !self.told.is_empty() {
            return Some(self.told.remove(0));
        }
        loop {
            match self.inner.poll_event()? {
                IceAgentEvent::DiscoveredRecv { source, .. } => {
                    return Some(AgentEvent::Validated(source));
                }
                IceAgentEvent::NominatedSend {
                    source,
                    destination,
                    ..
                } => {
                    return Some(AgentEvent::Nominated {
                        local: source,
                        remote: destination,
                    });
                }
                IceAgentEvent::IceRestart(_) | IceAgentEvent::IceConnectionStateChange(_) => {}
            }
        }
    }

    /// Gives up all pairs to the other player's address `remote`. The agent nominates the next best pair that has answered.
    pub fn give_up_remote(&mut self, remote: SocketAddr) {
        let known: Vec<_> = self
            .inner
            .remote_candidates()
            .filter(|candidate| candidate.addr() == remote)
            .collect();
        for candidate in &known {
            self.inner.invalidate_candidate(candidate);
        }
    }

    /// Gives up all pairs from our base `local`.
    pub fn give_up_local(&mut self, local: SocketAddr) {
        for (base, candidate) in &self.local {
            if *base == local {
                self.inner.invalidate_candidate(candidate);
            }
        }
    }

    /// Checks a pair that was given up again.
    pub fn try_again(&mut self, local: SocketAddr, remote: SocketAddr) {
        for (base, candidate) in &self.local {
            if *base == local {
                self.inner.add_local_candidate(candidate.clone());
            }
        }
        let told = self
            .remote
            .iter()
            .find(|candidate| candidate.addr() == remote)
            .cloned();
        // A peer-reflexive address was never told; checking it again needs a candidate all the same.
        let candidate = told.or_else(|| Candidate::host(remote, "udp").ok());
        if let Some(candidate) = candidate {
            self.inner.add_remote_candidate(candidate);
        }
    }

    /// Round-trip time of the last check on the nominated pair.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.inner.nominated_pair_rtt()
    }
}

fn kind_of(candidate: &Candidate) -> CandidateKind {
    match candidate.kind() {
        is::CandidateKind::Host => CandidateKind::Host,
        is::CandidateKind::ServerReflexive => CandidateKind::ServerReflexive,
        is::CandidateKind::PeerReflexive => CandidateKind::PeerReflexive,
        is::CandidateKind::Relayed => CandidateKind::Relayed,
    }
}
