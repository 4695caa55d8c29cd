//! `rallypoint load`: packets, requests and allocations in bulk, for measuring a TURN or STUN server, ours or any other.
//!
//! One thread holds both ends, so that one clock stamps a packet where it leaves and reads the stamp where it arrives.
//! Everything is bounded: clients, packets in flight, seconds, memory. Nothing is sent but to the server named, and from
//! the peer to where the server relays.
//!
//! - `turn.rs` drives relayed packets, `cycles.rs` allocations, `hold.rs` holds many of them, `stun.rs` drives Binding
//!   requests;
//! - under them `session.rs` (a client's requests), `packet.rs` (what is on the wire), `flow.rs` (window and loss),
//!   `net.rs` (sockets), `wire.rs` (frames that leave by no socket);
//! - `stopwatch.rs`, `sample.rs` and `memory.rs` measure, `report.rs` tells.

pub mod args;

mod cycles;
mod descriptors;
mod flow;
mod hold;
mod memory;
mod net;
mod packet;
mod report;
mod sample;
mod session;
mod stopwatch;
mod stun;
mod turn;
mod wire;

pub use session::SessionError;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use stun_wire::TransactionId;

use self::args::{ClientNet, LoadArgs, Target, TurnArgs};
use self::net::Net;
use self::session::{Session, User};
use crate::output;

/// Waits for an answer before a request is sent once more; five of them are more patience than a loaded server needs.
const RETRANSMISSIONS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A socket could not be had.
    #[error("{address}: {error}")]
    Bind {
        /// Where it was to be bound.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// The system's poll failed.
    #[error("poll: {0}")]
    Poll(io::Error),
    /// The server refused, or is none.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The server did not answer.
    #[error("{server} does not answer {request}")]
    Silent {
        /// The server.
        server: SocketAddr,
        /// What it was asked.
        request: &'static str,
    },
    /// The server's CPU time cannot be read.
    #[error("CPU time of process {0}: {1}")]
    Cpu(u32, io::Error),
    /// The server's memory cannot be read.
    #[error("memory of the server: {0}")]
    Memory(io::Error),
    /// More sockets than this process may have.
    #[error(
        "{needed} open files are needed and {limit} allowed: raise the hard limit (ulimit -Hn, LimitNOFILE=, or \
         prlimit --nofile={needed})"
    )]
    Descriptors {
        /// How many.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// A secret that cannot be read or protects nothing.
    #[error("{file}: {error}")]
    Secret {
        /// Where it was to be.
        file: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// Half a pair.
    #[error("--pairs needs an even number of clients")]
    OddPairs,
    /// What arrives is not all read, so it cannot be sent back.
    #[error("--wire cannot be combined with --direction echo")]
    WireEcho,
    /// Frames are made of IPv4 alone.
    #[error("--wire knows IPv4 only, and {0} is not")]
    WireFamily(IpAddr),
    /// Frames cannot be sent.
    #[error("--wire to {to}: {error}")]
    Wire {
        /// Where they were to go.
        to: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// No packet socket.
    #[error("--wire: a packet socket on {interface}: {error} (it needs CAP_NET_RAW)")]
    WireSocket {
        /// What it was to be bound to.
        interface: String,
        /// The system's words.
        error: io::Error,
    },
    /// Longer than Ethernet carries.
    #[error("--wire: with --size {0} packets are longer than a frame")]
    WireSize(u16),
    /// Nobody's addresses are wanted.
    #[error("--allocations with --wire needs --client-net: addresses that clients have")]
    NoClientNet,
    /// The system would answer for the clients.
    #[error("--client-net {net} has this host's own address {own} in it")]
    OwnClientNet {
        /// The network.
        net: ClientNet,
        /// The address.
        own: IpAddr,
    },
    /// The path to take neighbours' addresses from has not been walked.
    #[error("--wire: nothing that the peer sends arrives through {0}")]
    WirePeer(SocketAddr),
    /// The system does not count what a socket drops.
    #[error("--wire: drops of a socket: {0}")]
    Drops(io::Error),
    /// No trains here.
    #[error("--offload exists on Linux only")]
    Offload,
    /// No peer.
    #[error("--peer-bind is missing")]
    NoPeer,
}

/// Loads a server and tells how it did.
///
/// # Errors
/// Nothing could be measured.
pub fn run(args: &LoadArgs) -> Result<(), LoadError> {
    match &args.target {
        Target::Turn(turn) => {
            let (json, text) = if turn.allocations {
                cycles::measure(turn)?.told()
            } else {
                turn::measure(turn)?.told()
            };
            output::line(if turn.run.json { &json } else { &text });
        }
        Target::Hold(hold) => {
            let (json, text) = hold::measure(hold)?.told();
            output::line(if hold.json { &json } else { &text });
        }
        Target::Stun(stun) => {
            let (json, text) = stun::measure(stun)?.told();
            output::line(if stun.run.json { &json } else { &text });
        }
    }
    Ok(())
}

impl TurnArgs {
    fn login(&self) -> User<'_> {
        User {
            name: &self.user,
            password: &self.password,
        }
    }
}

/// Transaction ids of one run: none comes twice.
#[derive(Debug)]
struct Ids {
    run: u32,
    next: u64,
}

impl Ids {
    fn new() -> Result<Self, LoadError> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(LoadError::Random)?;
        Ok(Self {
            run: u32::from_be_bytes(run),
            next: 0,
        })
    }

    fn next(&mut self) -> TransactionId {
        let id = numbered_id(self.run, self.next);
        self.next += 1;
        id
    }
}

/// The transaction id of request `number` of a run.
fn numbered_id(run: u32, number: u64) -> TransactionId {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&run.to_be_bytes());
    id[4..].copy_from_slice(&number.to_be_bytes());
    TransactionId(id)
}

/// Asks one request of a session's on socket `number` and waits for the answer.
fn ask(
    net: &mut Net,
    number: usize,
    server: SocketAddr,
    (session, user): (&mut Session, User<'_>),
    id: TransactionId,
) -> Result<(), LoadError> {
    let mut request = Vec::new();
    let name = session.step().name();
    session.write_request(user, id, &mut request);
    for patience in RETRANSMISSIONS {
        net.push(number, server, &[&request]);
        net.flush();
        let asked = net_io::clock::mono();
        while let Some(left) = patience.checked_sub(asked.elapsed()) {
            let mut answered = Ok(false);
            net.receive(left, |at, datagram| {
                if at == number && datagram.from == server && matches!(answered, Ok(false)) {
                    answered = session.take_answer(user, id, datagram.bytes);
                }
            })?;
            if answered? {
                return Ok(());
            }
        }
    }
    Err(LoadError::Silent {
        server,
        request: name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_differ_by_run_and_number() {
        let mut ids = Ids { run: 7, next: 0 };
        let (first, second) = (ids.next(), ids.next());
        assert_eq!((first, second), (numbered_id(7, 0), numbered_id(7, 1)));
        assert_ne!(first, second);
        assert_ne!(numbered_id(7, 1), numbered_id(8, 1));
    }
}
