//! The deployment of the README: STUN, relay and signaling on three servers of their own, each with its own
//! configuration file made from the example in `deploy/config`.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::binaries::{self, program};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::lab::{Home, Lab, Server};
use crate::player::Player;

/// The shared secret between relay and signaling. Only for tests: every deployment makes its own.
pub const SECRET: &str = "4f1d0e6a93c85b7720ab94d6cf3e1857a2c06b9de84f7351";

/// Three servers and their daemons, all ready. The daemons are dropped before the servers they run on.
#[derive(Debug)]
pub struct Deployment {
    /// The STUN server.
    pub stun: Daemon,
    /// The TURN relay.
    pub turn: Daemon,
    /// The signaling server.
    pub signal: Daemon,
    /// Where they run.
    pub servers: Servers,
    directory: TempDir,
}

/// The machines of a [`Deployment`].
#[derive(Debug)]
pub struct Servers {
    /// 203.0.113.10
    pub stun: Server,
    /// 203.0.113.20
    pub turn: Server,
    /// 203.0.113.30
    pub signal: Server,
}

impl Deployment {
    /// Puts the three servers into the lab and waits until each says that it is ready.
    ///
    /// # Errors
    /// When a daemon does not come up; the error holds what it said.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let servers = Servers {
            stun: lab.server(10)?,
            turn: lab.server(20)?,
            signal: lab.server(30)?,
        };
        let secret = write_secret(path)?;
        let stun_config = stun_config(&servers.stun)?.write(path, "stun")?;
        let turn_config = turn_config(&servers.turn, &secret)?.write(path, "turn")?;
        let signal_config = signal_config(&servers, &secret)?.write(path, "signal")?;

        let start = |server: &Server, name: &str, config: &Path, admin: u16| {
            let admin = (Ipv4Addr::LOCALHOST, admin).into();
            Daemon::start(server.host().machine(), &program(name)?, config, admin)
        };
        Ok(Self {
            stun: start(&servers.stun, binaries::STUN, &stun_config, 9478)?,
            turn: start(&servers.turn, binaries::TURN, &turn_config, 9479)?,
            signal: start(&servers.signal, binaries::SIGNAL, &signal_config, 9480)?,
            servers,
            directory,
        })
    }

    /// A player in a home, told where signaling is in the family it has.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn player(&self, home: &Home, room: &str, arguments: &[&str]) -> Result<Player> {
        let signal = match home.external4() {
            Ok(_) => self.servers.signal.address4(),
            Err(_) => self.servers.signal.address6(),
        };
        let url = format!("ws://{}/v1/ws", SocketAddr::new(signal, 8765));
        Player::start(&home.host().machine(), &url, room, arguments)
    }

    /// A directory for files of the test, gone with the deployment.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Writes the secret that relay and signaling share, as only its owner may read it.
pub(crate) fn write_secret(directory: &Path) -> Result<PathBuf> {
    let secret = directory.join("turn-secret");
    std::fs::write(&secret, SECRET).context("the shared secret")?;
    // The daemons refuse a secret that others can read.
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    Ok(secret)
}

fn stun_config(server: &Server) -> Result<Config> {
    let (four, six) = (server.address4(), server.address6());
    Config::example("rallypoint-stun")?.with(&format!(
        r#"listen = ["udp://{four}:3478", "udp://[{six}]:3478", "tcp://{four}:3478", "tcp://[{six}]:3478"]"#
    ))
}

/// The lab's addresses are for documentation; a relay on the internet need not be told to serve its players.
fn turn_config(server: &Server, secret: &Path) -> Result<Config> {
    let (four, six) = (server.address4(), server.address6());
    Config::example("rallypoint-turn")?.without("tls").with(&format!(
        r#"listen = ["udp://{four}:3478", "udp://[{six}]:3478", "tcp://{four}:3478", "tcp://[{six}]:3478"]
relay-addresses = ["{four}", "{six}"]
credentials.secrets = [{{ id = "k1", file = "{}" }}]
peers.allow = ["198.51.100.0/24", "2001:db8::/32"]"#,
        secret.display()
    ))
}

fn signal_config(servers: &Servers, secret: &Path) -> Result<Config> {
    let (four, six) = (servers.signal.address4(), servers.signal.address6());
    let (stun4, stun6) = (servers.stun.address4(), servers.stun.address6());
    let (turn4, turn6) = (servers.turn.address4(), servers.turn.address6());
    Config::example("rallypoint-signal")?.without("tls").with(&format!(
        r#"listen = ["http://{four}:8765", "http://[{six}]:8765"]
stun = [{{ urls = ["stun:{stun4}:3478", "stun:[{stun6}]:3478"] }}]
[[relay]]
region = "lab"
urls = ["turn:{turn4}:3478?transport=udp", "turn:{turn4}:3478?transport=tcp", "turn:[{turn6}]:3478?transport=udp", "turn:[{turn6}]:3478?transport=tcp"]
secret = {{ id = "k1", file = "{}" }}"#,
        secret.display()
    ))
}
