//! The internet between the homes: a router that counts every pair of addresses, can cut one, and records everything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Sub;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::capture::Capture;
use crate::netns::Namespace;

/// The core router.
#[derive(Debug)]
pub struct Core {
    namespace: Namespace,
}

/// Packets and bytes (with IP headers).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

/// Who is counted with whom.
type Pair = (IpAddr, IpAddr, Protocol);

/// The transport of a counted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
    /// Anything else, ICMP for the most part.
    Other,
}

/// What has crossed the core, by source and destination.
#[derive(Debug, Clone, Default)]
pub struct Traffic(BTreeMap<Pair, Count>);

impl Core {
    /// A core without lines.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create() -> Result<Self> {
        let namespace = Namespace::create("core")?;
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // Cuts come before the count: what did not get through is not traffic.
        namespace.nft(
            "table inet core {
  set cut4 { type ipv4_addr . ipv4_addr; }
  set cut6 { type ipv6_addr . ipv6_addr; }
  set pairs4 { type ipv4_addr . ipv4_addr . inet_proto; flags dynamic; size 65535; }
  set pairs6 { type ipv6_addr . ipv6_addr . inet_proto; flags dynamic; size 65535; }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip saddr . ip daddr @cut4 counter drop
    ip6 saddr . ip6 daddr @cut6 counter drop
    update @pairs4 { ip saddr . ip daddr . meta l4proto counter }
    update @pairs6 { ip6 saddr . ip6 daddr . meta l4proto counter }
  }
}",
        )?;
        Ok(Self { namespace })
    }

    /// The namespace, to attach lines to.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Everything that has crossed so far.
    ///
    /// # Errors
    /// When `nft` cannot be asked.
    pub fn traffic(&self) -> Result<Traffic> {
        let mut traffic = Traffic::default();
        for set in ["pairs4", "pairs6"] {
            let mut command = self.namespace.command("nft");
            command.args(["-n", "-j", "list", "set", "inet", "core", set]);
            let listing: Value = serde_json::from_str(&crate::netns::run(&mut command, "")?)?;
            for element in elements(&listing) {
                let (pair, count) =
                    counted(element).with_context(|| format!("an element of {set}: {element}"))?;
                traffic.0.insert(pair, count);
            }
        }
        Ok(traffic)
    }

    /// Drops everything between two addresses from here on, in both directions.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn cut(&self, one: IpAddr, other: IpAddr) -> Result<()> {
        let set = if one.is_ipv4() { "cut4" } else { "cut6" };
        self.namespace
            .nft(&format!(
                "add element inet core {set} {{ {one} . {other}, {other} . {one} }}"
            ))
            .map(drop)
    }

    /// Ends all cuts.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn mend(&self) -> Result<()> {
        self.namespace
            .nft("flush set inet core cut4\nflush set inet core cut6")
            .map(drop)
    }

    /// Records every packet that enters the core into `file`.
    ///
    /// # Errors
    /// When the recorder does not start.
    pub fn capture(&self, file: &Path) -> Result<Capture> {
        Capture::start(&self.namespace, file)
    }
}

impl Traffic {
    /// What went from `source` to `destination`, over any transport.
    #[must_use]
    pub fn sent(&self, source: IpAddr, destination: IpAddr) -> Count {
        self.sum(|pair| pair.0 == source && pair.1 == destination)
    }

    /// What went from `source` to `destination` over one transport.
    #[must_use]
    pub fn sent_over(&self, protocol: Protocol, source: IpAddr, destination: IpAddr) -> Count {
        self.sum(|pair| *pair == (source, destination, protocol))
    }

    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let added = |(pair, count): (&Pair, &Count)| {
            let before = earlier.0.get(pair).copied().unwrap_or_default();
            (*pair, *count - before)
        };
        Self(self.0.iter().map(added).collect())
    }

    fn sum(&self, wanted: impl Fn(&Pair) -> bool) -> Count {
        self.0
            .iter()
            .filter(|(pair, _)| wanted(pair))
            .fold(Count::default(), |sum, (_, count)| Count {
                packets: sum.packets + count.packets,
                bytes: sum.bytes + count.bytes,
            })
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// A table for the message of a failed assertion.
impl std::fmt::Display for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for ((source, destination, protocol), count) in &self.0 {
            writeln!(
                f,
                "  {source} -> {destination} {protocol:?}: {} packets, {} bytes",
                count.packets, count.bytes
            )?;
        }
        Ok(())
    }
}

/// The elements of the one set in nft's JSON.
fn elements(listing: &Value) -> impl Iterator<Item = &Value> {
    listing
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|object| object.pointer("/set/elem")?.as_array())
        .flatten()
}

/// `{"elem": {"val": {"concat": [source, destination, protocol]}, "counter": {"packets": n, "bytes": n}}}`
fn counted(element: &Value) -> Option<(Pair, Count)> {
    let element = element.get("elem")?;
    let address = |index: usize| {
        let text = element.pointer(&format!("/val/concat/{index}"))?;
        text.as_str()?.parse::<IpAddr>().ok()
    };
    // nft says a number or, where it knows one, a name.
    let protocol = match element
        .pointer("/val/concat/2")?
        .to_string()
        .trim_matches('"')
    {
        "17" | "udp" => Protocol::Udp,
        "6" | "tcp" => Protocol::Tcp,
        _ => Protocol::Other,
    };
    let number = |name: &str| element.pointer(&format!("/counter/{name}"))?.as_u64();
    let count = Count {
        packets: number("packets")?,
        bytes: number("bytes")?,
    };
    Some(((address(0)?, address(1)?, protocol), count))
}
