//! Options of `load`, each with its bound: a slip of the finger is no flood for an hour.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ops::config::IpPrefix;

pub use super::hold::args::HoldArgs;

/// The longest run; permissions live longer (RFC 8656 section 9), so none has to be refreshed.
const LONGEST_SECONDS: f64 = 120.0;
const SHORTEST_SECONDS: f64 = 0.1;

/// Options of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to load.
    #[command(subcommand)]
    pub target: Target,
}

/// What is loaded.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// Relay packets through a TURN server, or make and end allocations on it
    ///
    /// Both ends are in this process: the clients, and the peer they relay to. As many packets as --window are in flight
    /// at any time, or as many are sent a second as --rate says. Whatever was lost, or came to another flow than its own,
    /// is counted.
    ///
    /// With --wire and without --rate it is a flood: a sixteenth more is offered than comes through, so that the
    /// server always has more to do than it can, at little cost here. Few of the packets that arrive are then read and checked,
    /// from each socket in turn; the others are counted by the system, which drops them at the socket they came to.
    Turn(TurnArgs),
    /// Hold many allocations on a TURN server at once and tell what they cost its memory
    ///
    /// Each is of a client at an address and port of its own, with a permission and a channel. The process of
    /// --server-pid is looked at before, with all of them, and after they have ended: each time once its memory has not
    /// changed for a second, or after five. This process needs as many file descriptors.
    Hold(HoldArgs),
    /// Send Binding requests to a STUN server and count the answers
    Stun(StunArgs),
}

/// Options of `load turn`.
#[derive(Debug, Clone, Args)]
pub struct TurnArgs {
    /// The TURN server, UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub server: SocketAddr,
    /// Name of a user with a long-term credential
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// That user's password
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "RALLYPOINT_LOAD_PASSWORD",
        hide_env_values = true
    )]
    pub password: String,
    /// Address of this host that the peer is bound to; the relay sends there
    #[arg(long, value_name = "ADDRESS", required_unless_present = "pairs")]
    pub peer_bind: Option<IpAddr>,
    /// Allocations at once; with --pairs an even number
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// Bytes that the application sends, without any header
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u16).range(24..=1400))]
    pub size: u16,
    /// Which way packets go
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    pub direction: Direction,
    /// Packets a second from all clients together, evenly spaced; latency is told
    #[arg(long, value_name = "PACKETS", conflicts_with = "window", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Packets in flight of all clients together
    #[arg(long, value_name = "PACKETS", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub window: u16,
    /// What the clients put their packets in
    #[arg(long, value_enum, default_value_t = Framing::Channel)]
    pub framing: Framing,
    /// Packets that a client sends one behind the other before it is the next one's turn
    #[arg(long, value_name = "PACKETS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub burst: u16,
    /// Send ready-made Ethernet frames, which is cheaper than sockets: Linux, IPv4, CAP_NET_RAW, and a server that is not on
    /// this host's loopback; the system still receives. With --allocations answers are taken as frames too: see --client-net
    #[arg(long, conflicts_with_all = ["window", "offload"])]
    pub wire: bool,
    /// Send each burst as one and take as one what arrives so (UDP GSO and GRO): Linux
    #[arg(long, requires = "burst")]
    pub offload: bool,
    /// Both ends are clients of the relay: every packet crosses two allocations, and counts once
    #[arg(long)]
    pub pairs: bool,
    /// No packets: 401, Allocate, CreatePermission, ChannelBind, Refresh to 0, from a new port each time
    #[arg(long, conflicts_with_all = ["pairs", "rate", "burst", "direction", "framing", "size", "window", "offload"])]
    pub allocations: bool,
    /// With --allocations --wire: the addresses that clients have, which are nobody's and which the server reaches through
    /// this host; of 198.18.0.0/15, the network for benchmarks (RFC 2544)
    #[arg(long, value_name = "ADDRESS/BITS", requires_all = ["allocations", "wire"])]
    pub client_net: Option<ClientNet>,
    /// What every run has.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `load stun`.
#[derive(Debug, Clone, Args)]
pub struct StunArgs {
    /// The STUN server, UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub server: SocketAddr,
    /// Requests in flight
    #[arg(long, value_name = "REQUESTS", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub window: u16,
    /// What every run has.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What every run has.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// How long is measured, at most 120; some tenths of a second before that are not counted
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = duration)]
    pub seconds: Duration,
    /// Process of the server on this machine: its CPU time is told for each packet
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From clients to the peer
    Up,
    /// From the peer to clients
    Down,
    /// Half of them each way, in turn
    Both,
    /// From clients to the peer and back; a round trip counts as two packets
    Echo,
}

/// What the clients put their packets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// ChannelData
    Channel,
    /// Send and Data indications
    Send,
}

/// Addresses for clients that are nobody's: a prefix of IPv4 with two hosts at least, within RFC 2544's network for
/// benchmarks, so that no packet of ours claims to come from anybody's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientNet {
    prefix: IpPrefix,
    first: Ipv4Addr,
}

impl ClientNet {
    /// How many addresses are neither the network's own nor that for all.
    pub(crate) fn hosts(self) -> u32 {
        (1 << (32 - u32::from(self.prefix.length()))) - 2
    }

    /// One of these, by number.
    pub(crate) fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + 1 + number % self.hosts())
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        self.prefix.contains(ip)
    }
}

impl FromStr for ClientNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let address: Ipv4Addr = address.parse().ok()?;
            Some((address, bits.parse::<u8>().ok()?))
        });
        let (first, bits) = parsed.ok_or("a prefix such as 198.18.3.0/24")?;
        let is_for_benchmarks = first.octets()[0] == 198 && matches!(first.octets()[1], 18 | 19);
        if !is_for_benchmarks || !(15..=30).contains(&bits) {
            return Err("a prefix of 15 to 30 bits within 198.18.0.0/15".to_owned());
        }
        let prefix = IpPrefix::new(first.into(), bits)
            .ok_or_else(|| format!("{first} has bits beyond the first {bits}"))?;
        Ok(Self { prefix, first })
    }
}

impl fmt::Display for ClientNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

impl TurnArgs {
    /// More is offered than the server takes, without regard to what arrives.
    pub(crate) fn is_flood(&self) -> bool {
        self.wire && self.rate.is_none()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    seconds_within(text, SHORTEST_SECONDS..=LONGEST_SECONDS)
}

/// A number of seconds within bounds.
pub(crate) fn seconds_within(text: &str, bounds: RangeInclusive<f64>) -> Result<Duration, String> {
    let wanted = text.parse::<f64>().ok();
    wanted
        .filter(|seconds| bounds.contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            format!(
                "a number of seconds from {} to {}",
                bounds.start(),
                bounds.end()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_of_the_network_for_benchmarks() {
        let net: ClientNet = "198.18.3.0/24".parse().expect("a network");
        assert_eq!(net.to_string(), "198.18.3.0/24");
        assert_eq!(net.hosts(), 254);
        let ends = [net.host(0), net.host(253), net.host(254)];
        assert_eq!(ends.map(|host| host.octets()[3]), [1, 254, 1]);
        assert!(net.contains([198, 18, 3, 9].into()) && !net.contains([198, 18, 4, 9].into()));
        assert_eq!("198.18.0.0/15".parse().map(ClientNet::hosts), Ok(131_070));
        for text in [
            "198.18.3.0",
            "198.18.3.1/24",
            "198.18.3.0/31",
            "198.16.0.0/14",
            "198.20.0.0/24",
            "192.0.2.0/24",
            "fd00::/64",
            "198.18.3.0/x",
        ] {
            assert!(text.parse::<ClientNet>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_run_is_longer_than_two_minutes() {
        assert_eq!(duration("120"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        for text in ["120.1", "0", "-1", "NaN", "inf", "long"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
