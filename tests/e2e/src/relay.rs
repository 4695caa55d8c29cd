//! A relay for clients that no one here wrote: on loopback over UDP, TCP and TLS, with credentials as signaling mints them, and
//! its account of what they did.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use credentials::{Credential, DEFAULT_LIFE, Secret};
use net_io::clock;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::binaries;
use crate::daemon::sum_of;
use crate::deployment::{SECRET, write_secret};
use crate::local::{LocalDaemon, free_port};
use crate::wait::{self, PATIENCE};

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    daemon: LocalDaemon,
    tls: SocketAddr,
    authority: PathBuf,
    directory: TempDir,
}

/// What carries a client's messages to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection in clear.
    Tcp,
    /// A connection with TLS; the certificate names `localhost` and 127.0.0.1.
    Tls,
}

/// What clients must at least have done at the relay once they are gone.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Over this transport, and none over another.
    pub transport: Transport,
    /// Allocations; a browser may make more, one for each network.
    pub allocations: u32,
    /// Payloads towards peers, and as many towards clients.
    pub each_way: u32,
    /// Allocations that a client leaves behind without a word, to end by themselves.
    pub abandoned: u32,
    /// Why single packets may have been dropped; for any other reason none was.
    pub tolerated_drops: &'static [&'static str],
}

impl Transport {
    /// The name of it, as metrics and the clients' scripts have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl Relay {
    /// A relay as its example configures it: peers are other players of this relay and nobody else here.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn start() -> Result<Self> {
        Self::with("")
    }

    /// A relay for coturn's tools: their peer is a program on this very machine, their channel numbers are those of RFC 5766, and
    /// they send at once, so that the peer counts as silent for a while.
    ///
    /// # Errors
    /// When it does not come up; the error holds what it said.
    pub fn for_coturns_tools() -> Result<Self> {
        Self::with(
            "peers.allow-loopback-for-tests = true
protocol.rfc5766-channels = true
quota.silent-peer-packets = 1000",
        )
    }

    fn with(more: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = certify(directory.path())?;
        let tls = free_port()?;
        let daemon = LocalDaemon::start(binaries::TURN, &[], |address, _| {
            let path = directory.path().display();
            Ok(format!(
                r#"listen = ["udp://{address}", "tcp://{address}", "tls://{tls}"]
relay-addresses = ["127.0.0.1"]
tls = {{ certificate = "{path}/certificate.pem", key = "{path}/key.pem" }}
credentials.secrets = [{{ id = "k1", file = "{}" }}]
{more}"#,
                write_secret(directory.path())?.display()
            ))
        })?;
        Ok(Self {
            daemon,
            tls,
            authority,
            directory,
        })
    }

    /// Where it serves clients of this transport.
    #[must_use]
    pub fn address(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Udp | Transport::Tcp => self.daemon.address(),
            Transport::Tls => self.tls,
        }
    }

    /// Its `turn:` or `turns:` address (RFC 7065).
    #[must_use]
    pub fn url(&self, transport: Transport) -> String {
        let address = self.address(transport);
        match transport {
            Transport::Udp => format!("turn:{address}?transport=udp"),
            Transport::Tcp => format!("turn:{address}?transport=tcp"),
            Transport::Tls => format!("turns:{address}?transport=tcp"),
        }
    }

    /// The certificate of the authority that signed its own.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// What signaling would give a player.
    #[must_use]
    pub fn credential(&self) -> Credential {
        let secret = Secret {
            id: Some("k1".to_owned()),
            key: SECRET.as_bytes().to_vec(),
        };
        credentials::mint(&secret, "foreigner", clock::unix() + DEFAULT_LIFE)
    }

    /// A directory for files of the test, gone with the relay.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has counted, for the message of a failure.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn account(&self) -> Result<String> {
        let scrape = self.daemon.metrics()?;
        let moved = |line: &&str| {
            line.starts_with("rallypoint_turn_")
                && line.contains("_total{")
                && !line.ends_with(" 0")
        };
        let lines: Vec<_> = scrape.lines().filter(moved).collect();
        Ok(lines.join("\n"))
    }

    /// Waits until the relay's counters tell this of clients that are gone: every allocation but the abandoned is ended, every received packet
    /// has its one verdict.
    ///
    /// # Errors
    /// When they do not; the error holds the difference and the scrape.
    pub fn served(&self, expected: &Expected) -> Result<()> {
        let waited = wait::until("the relay's account", PATIENCE, || {
            let faults = differences(&self.daemon.metrics()?, expected)?;
            Ok(faults.is_empty().then_some(()))
        });
        waited.with_context(|| {
            let faults = self
                .daemon
                .metrics()
                .and_then(|scrape| differences(&scrape, expected));
            format!("{faults:?}\n{}", self.account().unwrap_or_default())
        })
    }
}

/// What a scrape tells otherwise than expected.
fn differences(scrape: &str, expected: &Expected) -> Result<Vec<String>> {
    let count = |name: &str, labels: &[&str]| {
        let name = format!("rallypoint_turn_{name}");
        sum_of(scrape, &name, labels).with_context(|| format!("no {name} {labels:?}"))
    };
    let mut faults = Vec::new();
    let mut ensure = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let transport = format!(r#"transport="{}""#, expected.transport.name());
    let made = count("allocations_created_total", &[&transport])?;
    let all = count("allocations_created_total", &[])?;
    let ended = count("allocations_ended_total", &[])?;
    ensure(
        made >= f64::from(expected.allocations)
            && made == all
            && ended + f64::from(expected.abandoned) == all,
        format!("{made} allocations over {transport}, {all} in all, {ended} ended"),
    );
    for direction in ["to_peer", "to_client"] {
        let label = format!(r#"direction="{direction}""#);
        let relayed = count("relayed_packets_total", &[&label])?;
        ensure(
            relayed >= f64::from(expected.each_way),
            format!("{relayed} packets {direction}"),
        );
    }
    for side in ["client", "peer"] {
        let label = format!(r#"side="{side}""#);
        let received = count("received_packets_total", &[&label])?;
        let verdicts = count("verdicts_total", &[&label])?;
        ensure(
            received == verdicts,
            format!("{received} packets from {side}, {verdicts} verdicts"),
        );
    }
    let mut dropped = count("dropped_packets_total", &[])?;
    for reason in expected.tolerated_drops {
        dropped -= count("dropped_packets_total", &[&format!(r#"reason="{reason}""#)])?;
    }
    ensure(dropped == 0.0, format!("{dropped} packets dropped"));
    Ok(faults)
}

/// Writes `authority.pem`, `certificate.pem` and `key.pem`, and answers where the first is.
fn certify(directory: &Path) -> Result<PathBuf> {
    let mut authority = CertificateParams::new([])?;
    // Without a name of its own it would look like the certificate that it signs.
    let name = "authority of an end-to-end test";
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let signed_by_itself = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;

    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    write("certificate.pem", certificate.pem())?;
    let key = write("key.pem", key.serialize_pem())?;
    // The relay refuses a key that others can read.
    std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    write("authority.pem", signed_by_itself.pem())
}
