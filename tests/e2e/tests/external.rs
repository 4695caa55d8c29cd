//! `external-addresses = "auto"`: a relay in a cloud, behind a 1:1 NAT, asks two real STUN servers what it looks like.
//!
//! ```text
//!  relay 192.168.1.10 ── 1:1 NAT 198.51.100.1 ── core ── 203.0.113.10, .11  rallypoint-stun
//!                                                   └─── 203.0.113.20       client and peer
//! ```

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::binaries::{self, program};
use e2e::config::Config;
use e2e::daemon::Daemon;
use e2e::lab::{HOME_ADDRESS, Home, Lab, Server};
use e2e::local::TEST_USER;
use e2e::nat::Access;
use e2e::processes::Process;
use e2e::relayed::{Client, Flow, Peer};
use e2e::requirements::{self, Need};
use e2e::wait::PATIENCE;
use tempfile::TempDir;

const TURN_ADMIN: &str = "127.0.0.1:9479";
const CHECKS: &str = "rallypoint_turn_external_address_checks_total";

#[test]
fn a_relay_behind_a_one_to_one_nat_tells_its_outside_address() -> Result<()> {
    let Some(cloud) = Cloud::new()? else {
        return Ok(());
    };
    let relay = cloud.relay("recheck = \"1s\"")?;
    let mut flow = cloud.flow()?;
    ensure!(flow.relayed.ip() == cloud.outside, "told {}", flow.relayed);
    for _ in 0..20 {
        flow.carry()?;
    }
    relay.metric_reaches(CHECKS, &["outcome=\"confirmed\""], 1.0)?;
    Ok(())
}

#[test]
fn an_address_that_changes_later_is_logged_and_counted() -> Result<()> {
    let Some(cloud) = Cloud::new()? else {
        return Ok(());
    };
    let relay = cloud.relay("recheck = \"1s\"")?;
    cloud.seen_as(&[("", "198.51.100.77")])?;
    relay.metric_reaches(CHECKS, &["outcome=\"changed\""], 1.0)?;
    relay.process().wait_for_stderr("198.51.100.77", PATIENCE)?;

    cloud.seen_as(&[("udp dport 3478 drop", ""), ("", "198.51.100.1")])?;
    relay.metric_reaches(CHECKS, &["outcome=\"failed\""], 1.0)?;
    Ok(())
}

#[test]
fn servers_that_disagree_keep_the_relay_from_starting() -> Result<()> {
    let Some(cloud) = Cloud::new()? else {
        return Ok(());
    };
    cloud.seen_as(&[
        ("ip daddr 203.0.113.11", "198.51.100.77"),
        ("", "198.51.100.1"),
    ])?;
    cloud.refuses_with(&[
        "192.168.1.10",
        "disagree",
        "203.0.113.10:3478 says 198.51.100.1",
        "203.0.113.11:3478 says 198.51.100.77",
    ])
}

#[test]
fn a_silent_server_keeps_the_relay_from_starting() -> Result<()> {
    let Some(cloud) = Cloud::new()? else {
        return Ok(());
    };
    cloud.seen_as(&[
        ("ip daddr 203.0.113.11 udp dport 3478 drop", ""),
        ("", "198.51.100.1"),
    ])?;
    cloud.refuses_with(&[
        "192.168.1.10",
        "203.0.113.10:3478 says 198.51.100.1",
        "203.0.113.11:3478 does not answer",
    ])
}

#[test]
fn a_private_address_outside_keeps_the_relay_from_starting() -> Result<()> {
    let Some(cloud) = Cloud::new()? else {
        return Ok(());
    };
    cloud.seen_as(&[("", "100.64.0.9")])?;
    cloud.refuses_with(&["192.168.1.10", "100.64.0.9 is no address that players"])
}

#[test]
fn checking_a_configuration_asks_nobody() -> Result<()> {
    // Names that resolve nowhere: whoever asks finds out.
    let directory = tempfile::tempdir()?;
    let config = Config::example(binaries::TURN)?
        .without("tls")
        .without("credentials")
        .with(
            r#"external-addresses = "auto"
external.stun = ["one.invalid", "two.invalid"]
test-user = [{ name = "x", password = "y" }]"#,
        )?
        .write(directory.path(), "turn")?;
    let check = Command::new(program(binaries::TURN)?)
        .args(["config", "check"])
        .arg(&config)
        .output()?;
    ensure!(check.status.success(), "{check:?}");
    Ok(())
}

/// A cloud with a relay to be, two STUN servers outside it, and a client's machine.
struct Cloud {
    _stun: [Daemon; 2],
    home: Home,
    _servers: [Server; 2],
    client: Server,
    outside: IpAddr,
    _lab: Lab,
    directory: TempDir,
}

impl Cloud {
    fn new() -> Result<Option<Self>> {
        if !requirements::met(&[Need::Lab])? {
            return Ok(None);
        }
        let mut lab = Lab::new()?;
        let servers = [lab.server(10)?, lab.server(11)?];
        let client = lab.server(20)?;
        let home = lab.home(Access::FullCone)?;
        // More addresses that the router may show: their answers find the way back.
        for more in ["198.51.100.77", "100.64.0.9"] {
            lab.core()
                .namespace()
                .ip(&format!("route add {more}/32 via inet6 fe80::2 dev line4"))?;
            home.router().ip(&format!("addr add {more}/32 dev wan"))?;
        }
        let directory = tempfile::tempdir()?;
        let stun = [
            start_stun(&servers[0], &directory, "one")?,
            start_stun(&servers[1], &directory, "two")?,
        ];
        let cloud = Self {
            _stun: stun,
            outside: home.external4()?,
            home,
            _servers: servers,
            client,
            _lab: lab,
            directory,
        };
        cloud.seen_as(&[("", "198.51.100.1")])?;
        Ok(Some(cloud))
    }

    /// What matches is seen as that address, the first rule first; what comes in goes to the relay.
    fn seen_as(&self, rules: &[(&str, &str)]) -> Result<()> {
        let rules: String = rules
            .iter()
            .map(|(matching, outside)| match *outside {
                "" => format!("    {matching}\n"),
                _ => format!("    oifname \"wan\" {matching} snat ip to {outside}\n"),
            })
            .collect();
        let outside = self.outside;
        self.home.router().nft(&format!(
            r#"flush ruleset
table ip nat {{
  chain pre {{
    type nat hook prerouting priority dstnat;
    iifname "wan" ip daddr {outside} dnat ip to {HOME_ADDRESS}
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
{rules}  }}
}}"#
        ))?;
        Ok(())
    }

    fn config(&self, external: &str) -> Result<std::path::PathBuf> {
        let (name, password) = TEST_USER;
        Config::example(binaries::TURN)?
            .without("tls")
            .without("credentials")
            .with(&format!(
                r#"listen = ["udp://{HOME_ADDRESS}:3478"]
relay-addresses = ["{HOME_ADDRESS}"]
external-addresses = "auto"
peers.allow = ["198.51.100.0/24", "203.0.113.0/24"]
test-user = [{{ name = "{name}", password = "{password}" }}]
[external]
stun = ["203.0.113.10:3478", "203.0.113.11:3478"]
{external}"#
            ))?
            .write(self.directory.path(), "turn")
    }

    fn relay(&self, external: &str) -> Result<Daemon> {
        let config = self.config(external)?;
        let machine = self.home.host().machine();
        Daemon::start(
            machine,
            &program(binaries::TURN)?,
            &config,
            TURN_ADMIN.parse()?,
        )
    }

    fn flow(&self) -> Result<Flow> {
        let (user, password) = TEST_USER;
        let machine = self.client.host().machine();
        let relay = SocketAddr::new(self.outside, 3478);
        let client = Client::new(&machine, self.client.address4(), relay, user, password)?;
        Flow::between(client, Peer::new(&machine, self.client.address4())?)
    }

    fn refuses_with(&self, words: &[&str]) -> Result<()> {
        let config = self.config("")?;
        let mut command = self.home.host().command(program(binaries::TURN)?);
        let process = Process::start("refused", command.arg("--config").arg(config))?;
        let status = process.wait(PATIENCE)?;
        let said = process.stderr();
        ensure!(status.code() == Some(1), "it ended with {status}: {said}");
        for word in words {
            ensure!(said.contains(word), "`{word}` is not in: {said}");
        }
        Ok(())
    }
}

fn start_stun(server: &Server, directory: &TempDir, name: &str) -> Result<Daemon> {
    let config = Config::example(binaries::STUN)?
        .with(&format!("listen = [\"udp://{}:3478\"]", server.address4()))?
        .write(directory.path(), name)?;
    let admin = "127.0.0.1:9478".parse()?;
    Daemon::start(
        server.host().machine(),
        &program(binaries::STUN)?,
        &config,
        admin,
    )
}
