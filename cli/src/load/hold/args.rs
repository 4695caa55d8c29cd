//! Options of `load hold`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::args::seconds_within;

/// The longest that allocations are held.
const LONGEST_HOLD: f64 = 3600.0;

/// Options of `load hold`.
#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    /// The TURN server, UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub server: SocketAddr,
    /// Name of a user with a long-term credential, whose all allocations are
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// That user's password
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "RALLYPOINT_LOAD_PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<String>,
    /// File with the secret that the server checks time-limited credentials with: each allocation is then of a user of
    /// its own, as in production
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "user",
        required_unless_present = "user"
    )]
    pub secret: Option<PathBuf>,
    /// Address of this host that permissions and channels lead to, and that --probe's peer is bound to
    #[arg(long, value_name = "ADDRESS")]
    pub peer_bind: IpAddr,
    /// Allocations, each with a permission and a channel
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub allocations: u16,
    /// Address of this host that clients are bound to; again for more of them, which then take turns. Each has the
    /// ports of net.ipv4.ip_local_port_range, some 28,000
    #[arg(long, value_name = "ADDRESS")]
    pub client_bind: Vec<IpAddr>,
    /// Clients that wait for an answer at any time
    #[arg(long, value_name = "CLIENTS", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub window: u16,
    /// How long all are held, at most 3600
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = held)]
    pub seconds: Duration,
    /// Allocations, permissions and channels are renewed this long after they were made or renewed
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = refresh)]
    pub refresh: Duration,
    /// Before the end, send a packet each way over every allocation and count what comes
    #[arg(long)]
    pub probe: bool,
    /// Process of the server on this machine: what it holds is told when idle, with all allocations, and after them
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

fn held(text: &str) -> Result<Duration, String> {
    seconds_within(text, 0.0..=LONGEST_HOLD)
}

/// Permissions live for five minutes (RFC 8656 section 9).
fn refresh(text: &str) -> Result<Duration, String> {
    seconds_within(text, 0.1..=180.0)
}
