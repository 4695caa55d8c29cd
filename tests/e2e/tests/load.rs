//! `rallypoint load turn --wire`: frames that leave by no socket, through a router, to a real relay.
//!
//! ```text
//!  203.0.113.10  rallypoint-turn ── core ── 203.0.113.20  clients and peer
//! ```
//!
//! That every packet is counted, and comes where it belongs, is asked; how fast is not.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use e2e::binaries::{self, program};
use e2e::config::Config;
use e2e::daemon::Daemon;
use e2e::lab::{Lab, Server};
use e2e::local::TEST_USER;
use e2e::requirements::{self, Need};
use serde_json::Value;
use tempfile::TempDir;

const TURN_ADMIN: &str = "127.0.0.1:9479";

#[test]
fn a_flood_of_frames_is_relayed_and_every_arrival_counted() -> Result<()> {
    let Some(bench) = Bench::new(&[Need::Lab])? else {
        return Ok(());
    };
    for options in [
        "",
        "--direction down",
        "--direction both --burst 16",
        "--pairs --direction both",
        "--framing send --size 99",
    ] {
        let told = bench.load(&format!("--wire --clients 4 {options}"))?;
        let count = |name: &str| told[name].as_u64().with_context(|| told.to_string());
        ensure!(count("foreign")? == 0, "{options}: {told}");
        let (relayed, checked) = (count("relayed")?, count("checked")?);
        ensure!(relayed > 0 && checked > 0, "{options}: {told}");
        // No packet is counted twice, and nothing else; more is offered, and arrives, than is measured.
        let (offered, arrived) = (count("offered")?, count("arrived")?);
        ensure!(offered >= arrived, "{options}: {told}");
        ensure!(
            offered - arrived == count("not_relayed")?,
            "{options}: {told}"
        );
        ensure!(arrived >= relayed.max(checked), "{options}: {told}");
        let is_told = told["down_share"].is_f64();
        let is_mixed = options.starts_with("--direction both");
        ensure!(is_told == is_mixed, "{options}: {told}");
    }
    Ok(())
}

#[test]
fn frames_at_an_even_rate_are_followed_one_by_one() -> Result<()> {
    let Some(bench) = Bench::new(&[Need::Lab])? else {
        return Ok(());
    };
    for direction in ["up", "down", "both"] {
        let told = bench.load(&format!(
            "--wire --rate 500 --clients 4 --direction {direction}"
        ))?;
        let counts = ["foreign", "lost", "unsent"].map(|name| told[name].as_u64());
        ensure!(counts == [Some(0); 3], "{direction}: {told}");
        ensure!(told["sent"].as_u64() > Some(0), "{direction}: {told}");
        ensure!(told["latency_us"]["p99"].is_u64(), "{direction}: {told}");
    }
    Ok(())
}

#[test]
fn clients_that_have_no_socket_get_allocations_and_give_them_back() -> Result<()> {
    let Some(bench) = Bench::new(&[Need::Lab])? else {
        return Ok(());
    };
    let net = "198.18.3.0/24";
    bench.lab.route_to(&bench.far, net)?;
    let told = bench.load(&format!(
        "--allocations --wire --client-net {net} --clients 8"
    ))?;
    ensure!(told["cycles"].as_u64() > Some(0), "{told}");
    ensure!(told["failed"].as_u64() == Some(0), "{told}");
    ensure!(told["last_refusal"].is_null(), "{told}");
    let made = bench
        .turn
        .metric("rallypoint_turn_allocations_created_total", &[])?;
    ensure!(made > 0.0, "{told}");
    bench
        .turn
        .metric_reaches("rallypoint_turn_allocations_ended_total", &[], made)?;
    Ok(())
}

#[test]
fn bursts_cross_a_cable_as_trains_without_loss() -> Result<()> {
    let Some(bench) = Bench::new(&[Need::Lab])? else {
        return Ok(());
    };
    for direction in ["up", "down"] {
        let told = bench.load(&format!(
            "--offload --burst 16 --window 64 --clients 4 --direction {direction}"
        ))?;
        let counts = ["foreign", "out_of_order"].map(|name| told[name].as_u64());
        ensure!(counts == [Some(0); 2], "{direction}: {told}");
        ensure!(told["relayed"].as_u64() > Some(0), "{direction}: {told}");
    }
    Ok(())
}

#[test]
fn without_the_capability_the_option_is_named() -> Result<()> {
    let Some(bench) = Bench::new(&[Need::Lab, Need::Tool("setpriv")])? else {
        return Ok(());
    };
    let output = bench.run(&["setpriv", "--bounding-set", "-net_raw"], "--wire")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && output.stdout.is_empty());
    let expected = "--wire: a packet socket on wan: ";
    ensure!(
        said.contains(expected) && said.contains("it needs CAP_NET_RAW"),
        "{said}"
    );
    Ok(())
}

/// A relay on one machine, and another that loads it.
struct Bench {
    turn: Daemon,
    relay: Server,
    far: Server,
    lab: Lab,
    _directory: TempDir,
}

impl Bench {
    fn new(needs: &[Need]) -> Result<Option<Self>> {
        if !requirements::met(needs)? {
            return Ok(None);
        }
        let mut lab = Lab::new()?;
        let (relay, far) = (lab.server(10)?, lab.server(20)?);
        let directory = tempfile::tempdir()?;
        let address = relay.address4();
        let (name, password) = TEST_USER;
        let config = Config::text(&format!(
            r#"listen = ["udp://{address}:3478"]
relay-addresses = ["{address}"]
threads = 1
test-user = [{{ name = "{name}", password = "{password}" }}]
[admin]
listen = "{TURN_ADMIN}"
[peers]
allow = ["203.0.113.0/24"]
[quota]
allocations-per-user = 1000
allocations-per-address = 1000
bandwidth-per-allocation = "unlimited"
bandwidth-per-user = "unlimited"
silent-peer-packets = "unlimited"
[limits]
exempt = ["203.0.113.0/24"]"#
        ))?
        .write(directory.path(), "turn")?;
        let machine = relay.host().machine();
        let turn = program(binaries::TURN)?;
        let turn = Daemon::start(machine, &turn, &config, TURN_ADMIN.parse()?)?;
        Ok(Some(Self {
            turn,
            relay,
            far,
            lab,
            _directory: directory,
        }))
    }

    fn load(&self, options: &str) -> Result<Value> {
        let output = self.run(&["env"], options)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{options}: {said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// By way of a command that ends by executing its last arguments.
    fn run(&self, prefix: &[&str], options: &str) -> Result<Output> {
        let (name, password) = TEST_USER;
        let (first, rest) = prefix.split_first().context("a prefix")?;
        let mut command: Command = self.far.host().command(first);
        command
            .args(rest)
            .arg(program(binaries::TOOL)?)
            .args(["load", "turn", "--json", "--seconds", "0.3"])
            .args(["--server", &format!("{}:3478", self.relay.address4())])
            .args(["--peer-bind", &self.far.address4().to_string()])
            .args(["--user", name, "--password", password])
            .args(options.split_whitespace());
        Ok(command.output()?)
    }
}
