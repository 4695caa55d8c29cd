//! What the admin API answers, as JSON has it. Whoever asks can read it back with the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// The commit it was built from, or `unknown`.
    pub revision: String,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// As `/readyz` says.
    pub ready: bool,
    /// No new allocations are made.
    pub draining: bool,
    /// When those that are left will be ended, if they will.
    pub drain_seconds_left: Option<u64>,
    /// Users who are kept out.
    pub blocked_users: usize,
    /// Users with an allocation, over all shards.
    pub users: usize,
    /// The sum over the shards that answered.
    pub totals: Levels,
    /// Each shard.
    pub shards: Vec<ShardStatus>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardStatus {
    /// Its number; its thread is called `turn-N`.
    pub shard: usize,
    /// How it is.
    pub state: ShardState,
    /// Absent unless it answered.
    pub levels: Option<Levels>,
}

/// How a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// It answered.
    Ok,
    /// Its thread has ended.
    Gone,
    /// It has not answered in time. What it was asked to do it may do yet.
    Silent,
}

/// A shard that has not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingShard {
    /// Its number.
    pub shard: usize,
    /// Why.
    pub state: ShardState,
}

/// Levels at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// Allocations that exist.
    pub allocations: usize,
    /// Allocations that wait for a socket.
    pub pending: usize,
    /// Ports held for a RESERVATION-TOKEN.
    pub reservations: usize,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
    /// TCP connections with peers.
    pub peer_connections: usize,
    /// Relay ports in use.
    pub ports_in_use: usize,
    /// Relay ports there are.
    pub ports_limit: usize,
    /// Relay sockets that ended allocations have left for the next ones.
    pub spare_sockets: usize,
}

/// `GET /v1/allocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationPage {
    /// In the order of shards and places.
    pub allocations: Vec<AllocationEntry>,
    /// The cursor of the next page, if there is one.
    pub next: Option<String>,
    /// Shards whose allocations are not among them.
    pub missing_shards: Vec<MissingShard>,
}

/// One allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationEntry {
    /// By which it is kicked.
    pub id: String,
    /// The subject of the credential, or a test user's name.
    pub user: String,
    /// Who serves it.
    pub shard: usize,
    /// Where it is used from, masked.
    pub client: MaskedAddress,
    /// How the client reaches the relay: `udp`, `tcp` or `tls`.
    pub transport: String,
    /// `ipv4` or `ipv6`, of the client's address.
    pub family: String,
    /// What is relayed: `udp`, or `tcp` (RFC 6062).
    pub relays: String,
    /// Relayed addresses, as bound on this host.
    pub relayed: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Since then.
    pub age_seconds: u64,
    /// When it ends unless it is refreshed, in seconds since 1970.
    pub expires: u64,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
    /// What it has carried.
    pub traffic: Carried,
}

/// An address that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedAddress {
    /// The /16 of an IPv4 address, the /32 of an IPv6 address.
    pub network: String,
    /// The same for the same address as long as the process runs, under a key that nobody knows.
    pub hash: String,
}

/// Payloads carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Packets to peers.
    pub to_peer_packets: u64,
    /// Bytes to peers.
    pub to_peer_bytes: u64,
    /// Packets to the client.
    pub to_client_packets: u64,
    /// Bytes to the client.
    pub to_client_bytes: u64,
}

/// `POST /v1/users/{user}/kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserKicked {
    /// Who.
    pub user: String,
    /// Allocations that were ended.
    pub ended: usize,
    /// For how long no new one is made, if so.
    pub blocked_seconds: Option<u64>,
    /// Shards that were told and have not answered.
    pub missing_shards: Vec<MissingShard>,
}

/// `POST /v1/allocations/{id}/kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocationKicked {
    /// Which.
    pub id: String,
    /// Always 1: another answer is an error.
    pub ended: usize,
}

/// `GET /v1/blocks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// Who is kept out, and for how many seconds yet.
    pub blocked: BTreeMap<String, u64>,
    /// Shards that have not said whom they keep out.
    pub missing_shards: Vec<MissingShard>,
}

/// `DELETE /v1/users/{user}/block`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unblocked {
    /// Who.
    pub user: String,
    /// False: nobody kept it out.
    pub was_blocked: bool,
    /// Shards that were told and have not answered.
    pub missing_shards: Vec<MissingShard>,
}

/// `GET` and `PATCH /v1/quotas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Every key of `[quota]` and its value, as the file would have it.
    pub quotas: BTreeMap<String, Value>,
    /// Whose they are.
    pub from: QuotaSource,
    /// What that means.
    pub note: String,
}

/// Whose quotas are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaSource {
    /// The file's.
    File,
    /// An operator's, until the file is read again.
    Operator,
}

/// `POST` and `DELETE /v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drained {
    /// No new allocations are made.
    pub draining: bool,
    /// When those that are left will be ended, if they will.
    pub seconds_left: Option<u64>,
    /// Allocations there are, those that wait for a socket included.
    pub allocations: u32,
}

/// `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadOutcome {
    /// Keys that are in force.
    pub changed: Vec<String>,
    /// Keys that differ from what runs, and wait for a restart.
    pub need_restart: Vec<String>,
}
