//! The daemons on loopback, on ports that were free: for what needs no NAT and no root.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Deref;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::binaries::{self, program};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::deployment::write_secret;
use crate::netns::Machine;
use crate::player::Player;

/// A foreign client's long-term credentials at the relay.
pub const TEST_USER: (&str, &str) = ("foreigner", "correct-horse-battery");

/// One daemon on loopback.
#[derive(Debug)]
pub struct LocalDaemon {
    daemon: Daemon,
    address: SocketAddr,
    _directory: TempDir,
}

/// All three, knowing each other as far as they have to.
#[derive(Debug)]
pub struct Local {
    /// The STUN server.
    pub stun: LocalDaemon,
    /// The TURN relay.
    pub turn: LocalDaemon,
    /// The signaling server.
    pub signal: LocalDaemon,
    directory: TempDir,
}

impl LocalDaemon {
    /// A STUN server, over UDP and TCP.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn stun() -> Result<Self> {
        Self::stun_by(&[])
    }

    /// As [`LocalDaemon::stun`], by way of another command as in [`Daemon::start_by`].
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn stun_by(prefix: &[&str]) -> Result<Self> {
        Self::start(binaries::STUN, prefix, |address, _| {
            Ok(format!(
                r#"listen = ["udp://{address}", "tcp://{address}"]"#
            ))
        })
    }

    /// A relay, over UDP and TCP, which also serves [`TEST_USER`], the channel numbers of RFC 5766 and the TCP
    /// allocations of RFC 6062. Two foreign clients may
    /// start a second apart: the later one counts as silent until then.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn turn() -> Result<Self> {
        Self::turn_by(&[], "")
    }

    /// As [`LocalDaemon::turn`], by way of another command as in [`Daemon::start_by`], with more lines of configuration.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn turn_by(prefix: &[&str], more: &str) -> Result<Self> {
        let (name, password) = TEST_USER;
        Self::start(binaries::TURN, prefix, |address, directory| {
            let secret = write_secret(directory)?;
            Ok(format!(
                r#"listen = ["udp://{address}", "tcp://{address}"]
relay-addresses = ["127.0.0.1"]
credentials.secrets = [{{ id = "k1", file = "{}" }}]
peers.allow-loopback-for-tests = true
protocol.rfc5766-channels = true
protocol.tcp-relaying = true
quota.silent-peer-packets = 1000
test-user = [{{ name = "{name}", password = "{password}" }}]
{more}"#,
                secret.display()
            ))
        })
    }

    /// A signaling server that tells its players of these two.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn signal(stun: &Self, turn: &Self) -> Result<Self> {
        let (stun, turn) = (stun.address, turn.address);
        Self::start(binaries::SIGNAL, &[], |address, directory| {
            let secret = write_secret(directory)?;
            Ok(format!(
                r#"listen = ["http://{address}"]
stun = [{{ urls = ["stun:{stun}"] }}]
[[relay]]
region = "here"
urls = ["turn:{turn}?transport=udp", "turn:{turn}?transport=tcp"]
secret = {{ id = "k1", file = "{}" }}"#,
                secret.display()
            ))
        })
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it and starts it again with the same configuration.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.restart()
    }

    pub(crate) fn start(
        name: &str,
        prefix: &[&str],
        changes: impl FnOnce(SocketAddr, &Path) -> Result<String>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (address, admin) = (free_port()?, free_port()?);
        let config = Config::example(name)?
            .without("tls")
            .with(&format!("admin.listen = \"{admin}\""))?
            .with(&changes(address, directory.path())?)?
            .write(directory.path(), name)?;
        let daemon = Daemon::start_by(prefix, Machine::here(), &program(name)?, &config, admin)?;
        Ok(Self {
            daemon,
            address,
            _directory: directory,
        })
    }
}

impl Deref for LocalDaemon {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl Local {
    /// Starts the three and waits until each says that it is ready.
    ///
    /// # Errors
    /// When one does not come up; the error holds what it said.
    pub fn start() -> Result<Self> {
        let (stun, turn) = (LocalDaemon::stun()?, LocalDaemon::turn()?);
        let signal = LocalDaemon::signal(&stun, &turn)?;
        let directory = tempfile::tempdir()?;
        Ok(Self {
            stun,
            turn,
            signal,
            directory,
        })
    }

    /// A player on loopback.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn player(&self, room: &str, arguments: &[&str]) -> Result<Player> {
        let url = format!("ws://{}/v1/ws", self.signal.address());
        Player::start(&Machine::here(), &url, room, arguments)
    }

    /// A directory for files of the test, gone with the deployment.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A port of 127.0.0.1 that nobody has, neither for datagrams nor for streams, and that was not given out before: of those that
/// the system gives to nobody who asks for none (32768 and above).
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<SocketAddr> {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let random = RandomState::new().hash_one(0_u8) % 10_000;
        AtomicU16::new(20_000 + u16::try_from(random).unwrap_or(0))
    });
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Ordering::Relaxed)));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of loopback is free")
}
