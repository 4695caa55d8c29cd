//! The relay among routers and on a host with more addresses than its own.
//!
//! ```text
//!  client 203.0.113.20 ── core ── 203.0.113.10, .11 relay
//!                          └──── 198.51.100.1 router ──(1280 bytes)── 192.168.1.10 peer
//! ```

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use e2e::binaries::{self, program};
use e2e::config::Config;
use e2e::daemon::Daemon;
use e2e::lab::{HOME_ADDRESS, Lab, Server};
use e2e::local::TEST_USER;
use e2e::nat::Access;
use e2e::relayed::{Client, Peer, Told};
use e2e::requirements::{self, Need};
use e2e::wait::PATIENCE;
use stun_wire::attribute::Icmp;
use tempfile::TempDir;

const TURN_ADMIN: &str = "127.0.0.1:9479";

/// RFC 8656 §11.5: what a router says goes to the client that can do something about it.
#[test]
fn a_path_too_narrow_is_told_to_the_client_that_wants_no_fragments() -> Result<()> {
    if !requirements::met(&[Need::Lab])? {
        return Ok(());
    }
    let mut lab = Lab::new()?;
    let (server, machine) = (lab.server(10)?, lab.server(20)?);
    let home = lab.home(Access::FullCone)?;
    home.router().ip("link set lan mtu 1280")?;
    let relay = Relay::start(&server, "[\"198.51.100.0/24\"]")?;
    let mut client = relay.client(&machine)?;
    let relayed = client.allocate()?;
    client.permit(home.external4()?)?;
    let peer = Peer::new(&home.host().machine(), HOME_ADDRESS.into())?;
    peer.send(relayed, b"here")?;
    let (outside, told) = client.receive_indication()?;
    ensure!(told == Told::Data(b"here".to_vec()), "{told:?}");

    // The first packet of an allocation, and later one behind those that were to stay whole.
    client.bind_channel(outside)?;
    send_in_fragments(&client, &peer)?;

    // With the headers of UDP and IP: 1280 bytes, and one more.
    client.send_whole(outside, &[1; 1252])?;
    let arrived = peer.receive(PATIENCE)?;
    ensure!(
        arrived == Some((relayed, vec![1; 1252])),
        "what fits has not come: {arrived:?}"
    );
    client.send_whole(outside, &[2; 1253])?;
    let too_big = Icmp {
        icmp_type: 3,
        code: 4,
        data: 1280,
    };
    let told = client.receive_indication()?;
    ensure!(told == (outside, Told::Error(too_big)), "{told:?}");
    relay.daemon.metric_reaches(
        "rallypoint_turn_peer_icmp_errors_total",
        &["outcome=\"told\""],
        1.0,
    )?;

    send_in_fragments(&client, &peer)?;
    Ok(())
}

/// Whoever does not mind fragments gets everything through: what fits the relay's own link, and what does not.
fn send_in_fragments(client: &Client, peer: &Peer) -> Result<()> {
    for payload in [vec![3; 1400], vec![4; 4000]] {
        client.send(&payload)?;
        let arrived = peer.receive(PATIENCE)?;
        let is_right = arrived.is_some_and(|(_, bytes)| bytes == payload);
        ensure!(is_right, "{} bytes have not come", payload.len());
    }
    Ok(())
}

#[test]
fn another_address_of_the_relays_host_is_no_peer_unless_listed_by_itself() -> Result<()> {
    if !requirements::met(&[Need::Lab])? {
        return Ok(());
    }
    let mut lab = Lab::new()?;
    let (server, machine) = (lab.server(10)?, lab.server(20)?);
    let second = lab.second_address(&server, 11)?;
    let service = Peer::new(&server.host().machine(), second)?;
    let relay = Relay::start(&server, "[\"203.0.113.0/24\"]")?;
    let mut client = relay.client(&machine)?;
    client.allocate()?;
    let refused = client.bind_channel(service.address()?);
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("403")),
        "{refused:?}"
    );
    let neighbour = Peer::new(&machine.host().machine(), machine.address4())?;
    client.bind_channel(neighbour.address()?)?;
    drop((client, relay));

    let relay = Relay::start(&server, &format!("[\"{second}/32\"]"))?;
    let mut client = relay.client(&machine)?;
    client.allocate()?;
    client.bind_channel(service.address()?)?;
    client.send(b"meant to be reached")?;
    let arrived = service.receive(PATIENCE)?;
    ensure!(arrived.is_some_and(|(_, bytes)| bytes == b"meant to be reached"));
    Ok(())
}

/// A relay on a machine of the lab.
struct Relay {
    daemon: Daemon,
    address: IpAddr,
    _directory: TempDir,
}

impl Relay {
    /// One that relays to `allow`, a list of TOML.
    fn start(server: &Server, allow: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (name, password) = TEST_USER;
        let address = server.address4();
        let config = Config::example(binaries::TURN)?
            .without("tls")
            .without("credentials")
            .without("external-addresses")
            .with(&format!(
                r#"listen = ["udp://{address}:3478"]
relay-addresses = ["{address}"]
peers.allow = {allow}
test-user = [{{ name = "{name}", password = "{password}" }}]"#
            ))?
            .write(directory.path(), "turn")?;
        let daemon = Daemon::start(
            server.host().machine(),
            &program(binaries::TURN)?,
            &config,
            TURN_ADMIN.parse()?,
        )?;
        Ok(Self {
            daemon,
            address,
            _directory: directory,
        })
    }

    fn client(&self, machine: &Server) -> Result<Client> {
        let (name, password) = TEST_USER;
        let listener = SocketAddr::new(self.address, 3478);
        let at = machine.host().machine();
        Client::new(&at, machine.address4(), listener, name, password)
    }
}
