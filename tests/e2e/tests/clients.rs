//! Other people's TURN clients, which may use the relay and nothing else: coturn's load client, aioice, aiortc, Chromium. Loopback
//! only, no root. `docs/interop.md` has the versions and the clients that CI does not run.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::browser::{Brand, Browser};
use e2e::local::free_port;
use e2e::netns::run;
use e2e::page::Page;
use e2e::processes::Process;
use e2e::relay::{Expected, Relay, Transport};
use e2e::requirements::{self, Need};
use e2e::wait::PATIENCE;
use e2e::workspace;
use serde_json::{Value, json};

/// How many messages a client sends and gets back.
const MESSAGES: u32 = 100;

/// `turnutils_uclient` lets the last message of a flow lie in its TLS library when it came together with the one before: with
/// two flows a client, and against coturn's own server as well. The relay's account shows that all were sent to it.
const UNREAD_OVER_TLS: u32 = 2;

/// What comes before the other side has its permission, and what comes when it has closed and is no player of this relay any
/// more: a few packets of ICE and DTLS, which are repeated, or were a farewell.
const BEFORE_AND_AFTER: &[&str] = &["no_permission", "peer_denied", "unknown_relay"];

#[test]
fn coturns_load_client_loses_nothing_over_udp() -> Result<()> {
    uclient(Transport::Udp, &[], 1)
}

#[test]
fn coturns_load_client_loses_nothing_over_tcp() -> Result<()> {
    uclient(Transport::Tcp, &[], 1)
}

#[test]
fn coturns_load_client_loses_nothing_over_tls() -> Result<()> {
    uclient(Transport::Tls, &[], 1)
}

#[test]
fn coturns_load_client_loses_nothing_over_udp_with_indications() -> Result<()> {
    uclient(Transport::Udp, &["-s"], 1)
}

#[test]
fn coturns_load_client_loses_nothing_over_tcp_with_indications() -> Result<()> {
    uclient(Transport::Tcp, &["-s"], 1)
}

#[test]
fn coturns_load_client_loses_nothing_over_tls_with_indications() -> Result<()> {
    uclient(Transport::Tls, &["-s"], 1)
}

#[test]
fn coturns_load_clients_reach_each_other_over_udp() -> Result<()> {
    uclient(Transport::Udp, &["-y", "-m", "2"], 2)
}

#[test]
fn coturns_load_clients_reach_each_other_over_tcp() -> Result<()> {
    uclient(Transport::Tcp, &["-y", "-m", "2"], 2)
}

#[test]
fn coturns_load_clients_reach_each_other_over_tls() -> Result<()> {
    uclient(Transport::Tls, &["-y", "-m", "2"], 2)
}

#[test]
fn aioice_connects_over_udp() -> Result<()> {
    aioice(Transport::Udp)
}

#[test]
fn aioice_connects_over_tcp() -> Result<()> {
    aioice(Transport::Tcp)
}

#[test]
fn aioice_connects_over_tls() -> Result<()> {
    aioice(Transport::Tls)
}

#[test]
fn aiortc_opens_a_data_channel_over_udp() -> Result<()> {
    aiortc(Transport::Udp)
}

#[test]
fn aiortc_opens_a_data_channel_over_tcp() -> Result<()> {
    aiortc(Transport::Tcp)
}

#[test]
fn aiortc_opens_a_data_channel_over_tls() -> Result<()> {
    aiortc(Transport::Tls)
}

#[test]
fn chromium_opens_a_data_channel_over_udp() -> Result<()> {
    browser(Brand::Chromium, Transport::Udp)
}

#[test]
fn chromium_opens_a_data_channel_over_tcp() -> Result<()> {
    browser(Brand::Chromium, Transport::Tcp)
}

#[test]
fn chromium_opens_a_data_channel_over_tls() -> Result<()> {
    browser(Brand::Chromium, Transport::Tls)
}

#[test]
#[ignore = "a second browser, not in CI: needs firefox-esr and certutil"]
fn firefox_opens_a_data_channel_over_udp() -> Result<()> {
    browser(Brand::Firefox, Transport::Udp)
}

#[test]
#[ignore = "a second browser, not in CI: needs firefox-esr and certutil"]
fn firefox_opens_a_data_channel_over_tcp() -> Result<()> {
    browser(Brand::Firefox, Transport::Tcp)
}

#[test]
#[ignore = "a second browser, not in CI: needs firefox-esr and certutil"]
fn firefox_opens_a_data_channel_over_tls() -> Result<()> {
    browser(Brand::Firefox, Transport::Tls)
}

fn uclient(transport: Transport, arguments: &[&str], clients: u32) -> Result<()> {
    let needs = [
        Need::Tool("turnutils_uclient"),
        Need::Tool("turnutils_peer"),
    ];
    if !requirements::met(&needs)? {
        return Ok(());
    }
    let relay = Relay::for_coturns_tools()?;
    let peer_port = free_port()?.port().to_string();
    let mut peer = Command::new("turnutils_peer");
    peer.args(["-L", "127.0.0.1", "-p", &peer_port]);
    let _peer = Process::start("turnutils_peer", &mut peer)?;

    let credential = relay.credential();
    let port = relay.address(transport).port().to_string();
    let mut client = Command::new("turnutils_uclient");
    client
        .arg("-v")
        .args(["-u", &credential.username, "-w", &credential.password])
        .args(["-p", &port, "-e", "127.0.0.1", "-r", &peer_port])
        .args(["-n", &MESSAGES.to_string(), "-l", "170"])
        .args(match transport {
            Transport::Udp => &[][..],
            Transport::Tcp => &["-t"],
            Transport::Tls => &["-t", "-S"],
        })
        .args(arguments)
        .arg("127.0.0.1");
    let said = run(&mut client, "")?;
    let sent = number_after(&said, "tot_send_msgs=")?;
    let received = number_after(&said, "tot_recv_msgs=")?;
    let unread = if transport == Transport::Tls && clients > 1 {
        UNREAD_OVER_TLS * clients
    } else {
        0
    };
    ensure!(
        sent >= MESSAGES * clients && received <= sent && sent - received <= unread,
        "{sent} sent, {received} received\n{}\n{said}",
        relay.account()?
    );
    if unread == 0 {
        ensure!(said.contains("Total lost packets 0 "), "{said}");
    }
    relay.served(&Expected {
        transport,
        allocations: clients,
        each_way: sent,
        // It begins with an allocation on a socket that it then closes for another.
        abandoned: u32::from(transport == Transport::Udp),
        tolerated_drops: &[],
    })
}

/// The last number that follows `label` in the report: the total.
fn number_after(report: &str, label: &str) -> Result<u32> {
    let (_, rest) = report
        .rsplit_once(label)
        .with_context(|| format!("no `{label}` in\n{report}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn aioice(transport: Transport) -> Result<()> {
    python(
        "aioice_pair.py",
        transport,
        &json!({
            "local": ["relay"],
            "selected": [["relay", "relay"], ["relay", "relay"]],
            "echoed": MESSAGES,
        }),
    )
}

fn aiortc(transport: Transport) -> Result<()> {
    python(
        "aiortc_pair.py",
        transport,
        &json!({
            "local": ["relay"],
            "states": ["completed", "completed"],
            "echoed": MESSAGES,
        }),
    )
}

/// Runs a script whose two clients meet over the relay, and compares what it reports.
fn python(script: &str, transport: Transport, expected: &Value) -> Result<()> {
    if !requirements::met(&[Need::Python])? {
        return Ok(());
    }
    let relay = Relay::start()?;
    let credential = relay.credential();
    let python = requirements::python().context("where the tests are built")?;
    let mut command = Command::new(python);
    command
        .arg(workspace::root().join("tests/e2e/clients").join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SSL_CERT_FILE", relay.authority())
        .args(["--port", &relay.address(transport).port().to_string()])
        .args(["--transport", transport.name()])
        .args(["--username", &credential.username])
        .args(["--password", &credential.password])
        .args(["--messages", &MESSAGES.to_string()]);
    let said = run(&mut command, "")?;
    let reported: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(reported == *expected, "{reported}\ninstead of\n{expected}");
    relay.served(&pair_over(transport))
}

/// A page with both sides in one browser.
fn browser(brand: Brand, transport: Transport) -> Result<()> {
    let needs = [Need::Tool(brand.program()), Need::Tool("certutil")];
    if !requirements::met(&needs)? {
        return Ok(());
    }
    let relay = Relay::start()?;
    let page = Page::serve()?;
    let credential = relay.credential();
    let server = match (brand, transport) {
        // It wants a name in a relay's certificate, where Chromium is content with an address.
        (Brand::Firefox, Transport::Tls) => relay.url(transport).replace("127.0.0.1", "localhost"),
        _ => relay.url(transport),
    };
    let url = page.url(&[
        ("url", &server),
        ("username", &credential.username),
        ("credential", &credential.password),
        ("messages", &MESSAGES.to_string()),
    ]);
    let home = relay.directory().join("home");
    let browser = Browser::open(brand, &home, relay.authority(), &url)?;
    let reported = page.result(PATIENCE).with_context(|| browser.report())?;
    let pair = json!({"local": "relay", "remote": "relay", "relayProtocol": transport.name()});
    let expected = json!({"candidates": ["relay"], "pairs": [pair, pair], "echoed": MESSAGES});
    ensure!(
        reported == expected,
        "{reported}\ninstead of\n{expected}\n{}",
        browser.report()
    );
    // Its connections are closed by the page; the browser itself lives until the relay has heard of it.
    relay.served(&pair_over(transport))?;
    browser.close()
}

/// Two clients who sent each other `MESSAGES`; ICE and DTLS come on top.
fn pair_over(transport: Transport) -> Expected {
    Expected {
        transport,
        allocations: 2,
        each_way: 2 * MESSAGES,
        abandoned: 0,
        tolerated_drops: BEFORE_AND_AFTER,
    }
}
