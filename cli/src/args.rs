//! The command line of `rallypoint`.

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ops::logging::LogConfig;

use crate::admin::args::AdminArgs;
use crate::load::args::LoadArgs;

/// Gets players connected: run the services, be a player, watch the demo.
#[derive(Debug, Parser)]
#[command(name = "rallypoint", version, about)]
pub struct Cli {
    /// What is logged to stderr: error, warn, info, debug, trace, or such as "warn,signaling=debug" [default: warn, and
    /// nothing beside the demo's live view]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log_level)]
    log: Option<LogConfig>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The TURN client library warns of every refused permission, such as one for a private address; the path diary tells it.
const DEFAULT_LOG: &str = "warn,turn_client_proto=error";

impl Cli {
    /// What is logged.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        let default = match &self.command {
            Command::Demo(args) if args.is_live() => "off",
            Command::Demo(_)
            | Command::Up(_)
            | Command::Play(_)
            | Command::Load(_)
            | Command::Admin(_) => DEFAULT_LOG,
        };
        self.log
            .clone()
            .unwrap_or_else(|| log_level(default).expect("the defaults are levels"))
    }
}

impl DemoArgs {
    /// Whether the demo takes the terminal over.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.plain && std::io::stdout().is_terminal()
    }
}

/// What the tool can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run STUN, TURN and signaling in this process, for development
    ///
    /// Everything listens on loopback with a random secret that is gone when it ends (Ctrl-C). For real players, run
    /// rallypoint-stun, rallypoint-turn and rallypoint-signal with a configuration each.
    Up(UpArgs),
    /// Be one player: join a room, connect to the other player in it, talk
    ///
    /// Sends numbered messages on an unreliable channel and echoes the other's; carries a file on a reliable one. Both
    /// players stay until both are done. Exit code 0: connected, and everything complete.
    Play(PlayArgs),
    /// Connect four pairs of players behind emulated NATs and draw what happened
    ///
    /// No root, no network beyond loopback, some seconds. Exit code 0: every pair took the path its NATs allow, and all
    /// reliable messages arrived in order, also across the cut of a direct path.
    Demo(DemoArgs),
    /// Load a TURN or STUN server and tell what it can do
    ///
    /// For servers of your own: bounded in clients, packets in flight and seconds, but a flood within that. Any server
    /// that speaks the protocols is loaded alike.
    Load(LoadArgs),
    /// See and steer a relay that runs: who is relayed, kicks, quotas, drain, reload
    ///
    /// Over the admin API of rallypoint-turn (docs/admin-api.md), which is on where the relay's `[admin]` section names a
    /// token. Exit code 1: refused, not reached, or some shards have not answered.
    Admin(AdminArgs),
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// Allow an address that other machines can reach; the services have development limits and no TLS
    #[arg(long)]
    pub expose: bool,
    /// Port of STUN, UDP and TCP (0: any free one, as for all ports)
    #[arg(long, value_name = "PORT", default_value_t = 3479)]
    pub stun_port: u16,
    /// Port of TURN, UDP and TCP
    #[arg(long, value_name = "PORT", default_value_t = 3478)]
    pub turn_port: u16,
    /// Port of signaling, HTTP and WebSocket
    #[arg(long, value_name = "PORT", default_value_t = 8765)]
    pub signal_port: u16,
    /// Port of the STUN server's metrics
    #[arg(long, value_name = "PORT", default_value_t = 9478)]
    pub stun_admin_port: u16,
    /// Port of the relay's metrics
    #[arg(long, value_name = "PORT", default_value_t = 9479)]
    pub turn_admin_port: u16,
    /// Port of the signaling server's metrics
    #[arg(long, value_name = "PORT", default_value_t = 9480)]
    pub signal_admin_port: u16,
    /// Print one JSON line with all addresses when ready, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Options of `play`.
#[derive(Debug, Clone, Args)]
pub struct PlayArgs {
    /// The signaling server, ws:// or wss://
    #[arg(long, value_name = "URL", env = "RALLYPOINT_SIGNAL")]
    pub signal: String,
    /// The room's passphrase: whoever knows it is the other player
    #[arg(long, value_name = "PASSPHRASE")]
    pub room: String,
    /// Your name in the room; two players of one name are refused
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Which game's rooms to look in
    #[arg(long, value_name = "GAME", default_value = "play")]
    pub game: String,
    /// Messages to send on the unreliable channel
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub count: u32,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u16).range(5..=1000))]
    pub size: u16,
    /// Messages a second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub hz: u32,
    /// Stay connected for this long at least
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub hold: Duration,
    /// Use no other path than a relay, and tell the other player no other address
    #[arg(long)]
    pub relay_only: bool,
    /// Send this file to the other player on the reliable channel
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Write the file that the other player sends; it appears when it is complete and its SHA-256 is right
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// One JSON object a line for each event
    #[arg(long)]
    pub json: bool,
    /// Give up when this long nothing has come of what is due: no other player, no connection, no progress
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Lines instead of the live view; so it is anyway when stdout is no terminal
    #[arg(long)]
    pub plain: bool,
    /// Where demo.svg and demo.json are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// The daemons' `[log]` section knows what a level is.
fn log_level(text: &str) -> Result<LogConfig, String> {
    ops::config::parse(&format!("level = {text:?}")).map_err(|problems| problems.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "a number of seconds, such as 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn play_takes_all_that_the_issue_names() {
        let cli = parse(
            "rallypoint play --signal ws://127.0.0.1:8765/v1/ws --room jump-rocket --name anna --count 5 --size 64 \
             --hz 10 --hold 1.5 --relay-only --input a --output b --json --timeout 7",
        )
        .expect("it parses");
        let Command::Play(play) = cli.command else {
            panic!("not play");
        };
        assert_eq!((play.count, play.size, play.hz), (5, 64, 10));
        assert_eq!(play.hold, Duration::from_millis(1500));
        assert_eq!(play.timeout, Duration::from_secs(7));
        assert!(play.relay_only && play.json);
    }

    #[test]
    fn default_log_is_a_level() {
        let cli = parse("rallypoint demo --plain").expect("it parses");
        assert_ne!(cli.log(), LogConfig::default());
        let cli = parse("rallypoint up --log debug").expect("it parses");
        assert_eq!(cli.log(), log_level("debug").expect("a level"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "rallypoint",
            "rallypoint dance",
            "rallypoint play --room x",
            "rallypoint play --signal ws://x --room x --hz 0",
            "rallypoint play --signal ws://x --room x --size 4",
            "rallypoint play --signal ws://x --room x --hold -1",
            "rallypoint up --bind nowhere",
            "rallypoint up --stun-port 65536",
            "rallypoint up --log loud",
            "rallypoint load",
            "rallypoint admin",
            "rallypoint admin kick",
            "rallypoint admin kick anna --allocation 0-1",
            "rallypoint admin kick --allocation 0-1 --block 1h",
            "rallypoint admin quotas allocations",
            "rallypoint admin status --token 5d0f7b8e2c914a63",
            "rallypoint load stun",
            "rallypoint load stun --server 127.0.0.1:3478 --seconds 121",
            "rallypoint load stun --server 127.0.0.1:3478 --window 4097",
            "rallypoint load turn --server 127.0.0.1:3478 --user u --password p",
            "rallypoint load turn --server 127.0.0.1:3478 --user u --password p --pairs --size 23",
            "rallypoint load turn --server 127.0.0.1:3478 --user u --password p --pairs --rate 9 --window 9",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
