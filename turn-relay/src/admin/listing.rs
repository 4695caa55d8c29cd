//! Pages of allocations over all shards: bounded in length, with the clients' addresses masked.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use turn_relay_proto::{AllocationHandle, AllocationView, Now, Relay, RelayAddr, Transport};

use super::shapes::{AllocationEntry, Carried, MaskedAddress};

/// Where a list goes on: a shard, and a place on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) shard: usize,
    pub(super) place: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.place)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (shard, place) = text.split_once('-').ok_or(())?;
        Ok(Self {
            shard: shard.parse().map_err(|_| ())?,
            place: place.parse().map_err(|_| ())?,
        })
    }
}

/// How an allocation is called over all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AllocationId {
    pub(super) shard: usize,
    pub(super) handle: AllocationHandle,
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.handle)
    }
}

impl FromStr for AllocationId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (shard, handle) = text.split_once('-').ok_or(())?;
        Ok(Self {
            shard: shard.parse().map_err(|_| ())?,
            handle: handle.parse().map_err(|_| ())?,
        })
    }
}

/// Hides who an address is, and tells two of them apart while the process runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Mask(RandomState);

impl Mask {
    pub(super) fn of(&self, ip: IpAddr) -> MaskedAddress {
        let ip = ip.to_canonical();
        let network = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                format!("{}/16", Ipv4Addr::new(a, b, 0, 0))
            }
            IpAddr::V6(ip) => {
                let [a, b, ..] = ip.segments();
                format!("{}/32", Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0))
            }
        };
        let hash = self.0.hash_one(ip);
        MaskedAddress {
            network,
            hash: format!("{hash:016x}"),
        }
    }
}

/// What one shard has from a place on, at most `limit` of them, and the place behind the last if
/// there are more.
pub(super) fn on_shard(
    relay: &Relay,
    now: Now,
    from: Cursor,
    user: Option<&str>,
    limit: usize,
    mask: &Mask,
) -> (Vec<AllocationEntry>, Option<Cursor>) {
    let rest = relay.allocations_from(from.place);
    let mut theirs = rest.filter(|view| user.is_none_or(|user| view.user == user));
    let mut entries = Vec::new();
    let mut behind = from;
    for view in theirs.by_ref().take(limit) {
        behind.place = view.handle.place().saturating_add(1);
        entries.push(entry(from.shard, &view, now, mask));
    }
    let next = theirs.next().map(|_| behind);
    (entries, next)
}

fn entry(shard: usize, view: &AllocationView<'_>, now: Now, mask: &Mask) -> AllocationEntry {
    let age = now.mono.saturating_duration_since(view.created).as_secs();
    let left = view.expires.saturating_duration_since(now.mono).as_secs();
    let client = view.client.remote;
    let relayed = view.relayed.iter().flatten();
    let traffic = view.traffic;
    let handle = view.handle;
    AllocationEntry {
        id: AllocationId { shard, handle }.to_string(),
        user: view.user.to_owned(),
        shard,
        client: mask.of(client.ip()),
        transport: match view.client.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
        .to_owned(),
        family: if client.is_ipv4() { "ipv4" } else { "ipv6" }.to_owned(),
        relays: if view.relays_tcp { "tcp" } else { "udp" }.to_owned(),
        relayed: relayed.map(|RelayAddr(addr)| addr.to_string()).collect(),
        created: now.unix.saturating_sub(age),
        age_seconds: age,
        expires: now.unix.saturating_add(left),
        permissions: view.permissions,
        channels: view.channels,
        traffic: Carried {
            to_peer_packets: traffic.to_peer_packets,
            to_peer_bytes: traffic.to_peer_bytes,
            to_client_packets: traffic.to_client_packets,
            to_client_bytes: traffic.to_client_bytes,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked_and_told_apart() {
        let mask = Mask::default();
        let of = |text: &str| mask.of(text.parse().unwrap());
        assert_eq!(of("198.51.100.7").network, "198.51.0.0/16");
        assert_eq!(of("::ffff:198.51.100.7"), of("198.51.100.7"));
        assert_eq!(of("2001:db8:1:2::3").network, "2001:db8::/32");
        assert_eq!(of("198.51.100.7"), of("198.51.100.7"));
        assert_ne!(of("198.51.100.7").hash, of("198.51.100.8").hash);
        let elsewhere = Mask::default().of("198.51.100.7".parse().unwrap());
        assert_ne!(of("198.51.100.7").hash, elsewhere.hash, "another key");
    }

    #[test]
    fn cursors_and_ids_are_read_back_and_nothing_else_is() {
        let cursor = Cursor {
            shard: 3,
            place: 70_000,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let id: AllocationId = "1-00000002deadbeef".parse().unwrap();
        assert_eq!((id.shard, id.handle.place()), (1, 2));
        assert_eq!(id.to_string(), "1-00000002deadbeef");
        for wrong in ["", "1", "1-", "-1", "a-1", "1-2-3", "1-4294967296"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(()), "{wrong}");
            assert_eq!(wrong.parse::<AllocationId>(), Err(()), "{wrong}");
        }
    }
}
