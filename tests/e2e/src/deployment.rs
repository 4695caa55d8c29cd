//! The three daemons together, each with its own configuration file made from the example in `deploy/config`: on three
//! servers of the lab as the README describes it, or on loopback for what needs no root.

use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::binaries::binaries;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::lab::{Home, Lab, Server};
use crate::netns::Machine;
use crate::player::Player;

/// The shared secret between relay and signaling. Only for tests: every deployment makes its own.
const SECRET: &str = "4f1d0e6a93c85b7720ab94d6cf3e1857a2c06b9de84f7351";

/// A foreign client's long-term credentials at the relay of a [`Local`] deployment.
pub const TEST_USER: (&str, &str) = ("foreigner", "correct-horse-battery");

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

/// The three daemons on loopback, on ports that were free.
#[derive(Debug)]
pub struct Local {
    /// The STUN server.
    pub stun: Daemon,
    /// The TURN relay.
    pub turn: Daemon,
    /// The signaling server.
    pub signal: Daemon,
    /// Where the STUN server answers, over UDP and TCP.
    pub stun_address: SocketAddr,
    /// Where the relay answers, over UDP and TCP.
    pub turn_address: SocketAddr,
    /// Where signaling answers.
    pub signal_address: SocketAddr,
    directory: TempDir,
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

        let programs = binaries()?;
        let start = |server: &Server, program: &Path, config: &Path, admin: u16| {
            Daemon::start(server.host().machine(), program, config, loopback(admin))
        };
        Ok(Self {
            stun: start(&servers.stun, &programs.stun, &stun_config, 9478)?,
            turn: start(&servers.turn, &programs.turn, &turn_config, 9479)?,
            signal: start(&servers.signal, &programs.signal, &signal_config, 9480)?,
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

impl Local {
    /// Starts the three daemons on loopback and waits until each says that it is ready. The relay also serves
    /// [`TEST_USER`] and the channel numbers of RFC 5766.
    ///
    /// # Errors
    /// When a daemon does not come up; the error holds what it said.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let secret = write_secret(path)?;
        let (stun_address, stun_admin) = (free_port()?, free_port()?);
        let (turn_address, turn_admin) = (free_port()?, free_port()?);
        let (signal_address, signal_admin) = (free_port()?, free_port()?);

        let stun_config = Config::example("rallypoint-stun")?.with(&format!(
            r#"listen = ["udp://{stun_address}", "tcp://{stun_address}"]
admin.listen = "{stun_admin}""#
        ))?;
        let (name, password) = TEST_USER;
        let turn_config = Config::example("rallypoint-turn")?
            .without("tls")
            .with(&format!(
                r#"listen = ["udp://{turn_address}", "tcp://{turn_address}"]
relay-addresses = ["127.0.0.1"]
admin.listen = "{turn_admin}"
credentials.secrets = [{{ id = "k1", file = "{}" }}]
peers.allow-loopback-for-tests = true
protocol.rfc5766-channels = true
test-user = [{{ name = "{name}", password = "{password}" }}]"#,
                secret.display()
            ))?;
        let signal_config = Config::example("rallypoint-signal")?
            .without("tls")
            .with(&format!(
                r#"listen = ["http://{signal_address}"]
admin.listen = "{signal_admin}"
stun = [{{ urls = ["stun:{stun_address}"] }}]
[[relay]]
region = "here"
urls = ["turn:{turn_address}?transport=udp", "turn:{turn_address}?transport=tcp"]
secret = {{ id = "k1", file = "{}" }}"#,
                secret.display()
            ))?;

        let programs = binaries()?;
        let start = |program: &Path, config: &Config, name: &str, admin: SocketAddr| {
            Daemon::start(Machine::here(), program, &config.write(path, name)?, admin)
        };
        Ok(Self {
            stun: start(&programs.stun, &stun_config, "stun", stun_admin)?,
            turn: start(&programs.turn, &turn_config, "turn", turn_admin)?,
            signal: start(&programs.signal, &signal_config, "signal", signal_admin)?,
            stun_address,
            turn_address,
            signal_address,
            directory,
        })
    }

    /// A player on loopback.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn player(&self, room: &str, arguments: &[&str]) -> Result<Player> {
        Player::start(&Machine::here(), &self.signal_url(), room, arguments)
    }

    /// Where players find signaling.
    #[must_use]
    pub fn signal_url(&self) -> String {
        format!("ws://{}/v1/ws", self.signal_address)
    }

    /// A directory for files of the test, gone with the deployment.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A port of 127.0.0.1 that nobody has, neither for datagrams nor for streams, and that none of this process's calls got
/// before.
///
/// # Errors
/// When the operating system has none.
pub fn free_port() -> Result<SocketAddr> {
    use std::sync::{Mutex, PoisonError};
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = stream.local_addr()?;
        if UdpSocket::bind(address).is_ok() && !given.contains(&address.port()) {
            given.push(address.port());
            return Ok(address);
        }
    }
    anyhow::bail!("no port of loopback is free")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn write_secret(directory: &Path) -> Result<std::path::PathBuf> {
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
