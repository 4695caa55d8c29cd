//! TURN (RFC 8656) over STUN (RFC 8489) as a state machine: no sockets, no clock, no threads.
//!
//! # The contract on one page
//!
//! **Calls in.** Whoever owns the sockets (the *shell*) reads both clocks once per batch and calls
//! - [`Relay::handle_client`] for each datagram (UDP) or frame (TCP, TLS) that a client sent to a
//!   listening socket,
//! - [`Relay::handle_peer`] for each datagram that arrived on a relay socket, and
//!   [`Relay::handle_peer_error`] for an ICMP error reported there,
//! - [`Relay::handle_socket`] to answer each [`Event::SocketWanted`], exactly once,
//! - for TCP allocations (RFC 6062) [`Relay::handle_incoming`] for each connection accepted on a
//!   relayed address, [`Relay::handle_connected`] to answer each [`Event::ConnectWanted`], exactly
//!   once, [`Relay::may_carry`] before and [`Relay::handle_carried`] after reading either end of a
//!   connection that is bound, and [`Relay::handle_connection_end`] when one is over,
//! - [`Relay::handle_disconnect`] when a client's TCP or TLS connection ends,
//! - [`Relay::handle_usage`] for what a kernel fast path carried by itself,
//! - [`Relay::handle_timeout`] when the deadline of [`Relay::poll_timeout`] has come.
//!
//! **Results out.** Every datagram ends in exactly one [`Verdict`]: forwarded, replied, absorbed or
//! dropped with a reason; the shell counts them and the counts add up to what was received. The
//! machine *decides*, the shell *moves bytes*: a forwarded payload is named as a range of the input
//! and goes out as `header ++ input[payload] ++ padding` ([`Forward`]). The bytes of a
//! [`Verdict::Reply`] are in the caller's `reply` buffer, which the machine clears first.
//!
//! **The drain rule.** After each batch of `handle_*` calls: drain [`Relay::poll_event`], act on the
//! events in order, answer sockets, drain [`Relay::poll_transmit`] (replies that had to wait for a
//! socket), then sleep until [`Relay::poll_timeout`].
//!
//! **Sockets are asked for and answered.** An Allocate request picks a random port and emits
//! [`Event::SocketWanted`]; its response leaves by `poll_transmit` after the answer. `InUse` makes
//! the machine ask for another port, a few times, then the client reads 508. Each socket that was
//! `Opened` is given back by one [`Event::SocketFreed`]; one that was answered otherwise is not.
//! Between the two it may serve several allocations, one after the other ([`RelayConfig::spare_sockets`]).
//! When [`Event::SocketFreed`] and [`Event::SocketWanted`] name the same address, the order of the
//! events is the order of the acts.
//!
//! **TCP allocations** ask for listeners and connections in the same way ([`Event::ListenWanted`],
//! [`Event::ConnectWanted`]). After [`Event::ConnectionBound`] the shell splices two connections and
//! asks the machine only how much it may carry; a connection that exists is given back by one
//! [`Event::ConnectionEnded`]. A client's control and data connections have to meet the same
//! machine: the shell's listeners steer by source address.
//!
//! **Time** is two clocks ([`Now`]): lifetimes follow the monotonic one, credentials the wall clock,
//! so that a jump of the wall clock ends no allocation. **Randomness** is one seed. Everything else
//! that differs between test and production is [`RelayConfig`].
//!
//! # Reading order
//!
//! One packet: `demux` (what is it?) → `data` (two lookups → `Forward`), or → `relay` (dispatch) →
//! `auth` → `request/*` → `tables` → `Reply`. Beside them: `ports`, `peers`, `quota` with its
//! `ledger`, `limits`, `timers`, each with one job.

mod auth;
mod blocks;
mod clock;
mod config;
mod counters;
mod data;
mod demux;
mod hash;
mod ledger;
mod limits;
mod peer_connections;
mod peers;
mod ports;
mod quota;
mod relay;
mod request;
mod respond;
mod room;
mod spares;
mod tables;
mod timers;
mod verdict;

pub use blocks::MAX_BLOCKED_USERS;
pub use config::{
    Lifetimes, Limits, Prefix, PrefixError, Protocol, Quota, Realm, RealmError, RelayAddress,
    RelayConfig, StaticUser,
};
pub use counters::{AuthFailure, Counters, QuotaKind, RequestMethod};
pub use ledger::Ledger;
pub use peers::{PeerDenial, PeerPolicy, PeerRules};
pub use ports::LivePorts;
pub use relay::{AllocationHandle, AllocationView, Gauges, HandleError, Relay};
pub use verdict::{
    ConnectionEnd, Direction, DropReason, EndReason, Event, Family, Forward, Framing, Header,
    IncomingRefusal, Now, Path, PeerConnectionId, Reason, RelayAddr, SocketOutcome, Traffic,
    Transport, Verdict,
};
