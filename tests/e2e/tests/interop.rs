//! Our servers and our ICE agent with programs and libraries that no one here wrote. Loopback only, no root.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::local::{LocalDaemon, TEST_USER, free_port};
use e2e::netns::run;
use e2e::processes::Process;
use e2e::requirements::{self, Need};
use e2e::wait::{self, PATIENCE};
use stun::agent::TransactionId;
use stun::message::{BINDING_REQUEST, Getter as _, Message};
use stun::xoraddr::XorMappedAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn as _;

/// Messages that a foreign client exchanges: enough for its channel to be bound on the way.
const ROUNDS: u32 = 300;

#[tokio::test]
async fn the_stun_crate_learns_its_address_over_udp_and_tcp() -> Result<()> {
    let stun = LocalDaemon::stun()?;
    let mut request = Message::new();
    request.build(&[Box::<TransactionId>::default(), Box::new(BINDING_REQUEST)])?;

    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(&request.raw, stun.address()).await?;
    let mut buffer = vec![0; 1500];
    let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await??;
    ensure!(from == stun.address(), "answered by {from}");
    buffer.truncate(length);
    ensure!(
        mapped(&request, buffer)? == socket.local_addr()?,
        "over UDP"
    );

    let mut stream = TcpStream::connect(stun.address()).await?;
    let seen_as = stream.local_addr()?;
    stream.write_all(&request.raw).await?;
    let mut answer = vec![0; 20];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
    let rest = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    answer.resize(20 + rest, 0);
    timeout(PATIENCE, stream.read_exact(&mut answer[20..])).await??;
    ensure!(mapped(&request, answer)? == seen_as, "over TCP");
    Ok(())
}

#[test]
fn coturns_stun_client_learns_its_address() -> Result<()> {
    if !requirements::met(&[Need::Tool("turnutils_stunclient")])? {
        return Ok(());
    }
    let stun = LocalDaemon::stun()?;
    let port = stun.address().port().to_string();
    let mut command = Command::new("turnutils_stunclient");
    let said = run(command.args(["-p", &port, "127.0.0.1"]), "")?;
    ensure!(said.contains("UDP reflexive addr: 127.0.0.1:"), "{said}");
    Ok(())
}

/// Debian's `stun` speaks RFC 3489, whose requests carry no magic cookie: RFC 8489 has dropped them, and so have we, before
/// they take a place in the queue. The system's count is seen with the next datagram that gets one.
#[test]
fn classic_stun_is_counted_and_not_answered() -> Result<()> {
    if !requirements::met(&[Need::Tool("stun")])? {
        return Ok(());
    }
    let stun = LocalDaemon::stun()?;
    let dropped = "rallypoint_udp_receive_queue_dropped_total";
    let client = Command::new("stun")
        .arg(stun.address().to_string())
        .output()?;
    let said = String::from_utf8_lossy(&client.stdout).into_owned();
    ensure!(
        said.contains("Blocked or could not reach STUN server"),
        "{said}"
    );
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    wait::until("classic requests are counted", PATIENCE, || {
        // Each port meets the one or the other shard.
        std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(&binding, stun.address())?;
        Ok((stun.metric(dropped, &[])? >= 1.0).then_some(()))
    })
}

#[tokio::test]
async fn the_turn_crate_exchanges_data_through_our_relay() -> Result<()> {
    let turn = LocalDaemon::turn()?;
    let client = foreign_client(turn.address(), TEST_USER.1).await?;
    let relay = timeout(PATIENCE, client.allocate()).await??;
    let relayed = relay.local_addr()?;
    let peer = UdpSocket::bind("127.0.0.1:0").await?;
    let peer_address = peer.local_addr()?;

    let mut buffer = [0; 1500];
    for round in 0..ROUNDS {
        let question = format!("question {round}");
        timeout(PATIENCE, relay.send_to(question.as_bytes(), peer_address)).await??;
        let (length, from) = timeout(PATIENCE, peer.recv_from(&mut buffer)).await??;
        ensure!(
            from == relayed,
            "the peer hears from {from}, not from {relayed}"
        );
        ensure!(
            &buffer[..length] == question.as_bytes(),
            "{question} arrived altered"
        );

        let answer = format!("answer {round}");
        peer.send_to(answer.as_bytes(), relayed).await?;
        let (length, from) = timeout(PATIENCE, relay.recv_from(&mut buffer)).await??;
        ensure!(
            from == peer_address,
            "the client hears from {from}, not from {peer_address}"
        );
        ensure!(
            &buffer[..length] == answer.as_bytes(),
            "{answer} arrived altered"
        );
    }

    let to_peer = [r#"direction="to_peer""#];
    let packets = "rallypoint_turn_relayed_packets_total";
    turn.metric_reaches(packets, &to_peer, f64::from(ROUNDS))?;
    timeout(PATIENCE, client.close()).await??;
    Ok(())
}

#[tokio::test]
async fn wrong_integrity_is_refused_and_counted() -> Result<()> {
    let turn = LocalDaemon::turn()?;
    let client = foreign_client(turn.address(), "not the password").await?;
    let Err(refusal) = timeout(PATIENCE, client.allocate()).await? else {
        anyhow::bail!("an allocation with the wrong password");
    };
    ensure!(
        refusal.to_string().contains("401") || refusal.to_string().contains("nauth"),
        "{refusal}"
    );
    let reason = [r#"reason="bad_integrity""#];
    turn.metric_reaches("rallypoint_turn_auth_failures_total", &reason, 1.0)?;
    let created = turn.metric("rallypoint_turn_allocations_created_total", &[])?;
    ensure!(created == 0.0, "{created} allocations");
    client.close().await?;

    // The right password still gets in.
    let client = foreign_client(turn.address(), TEST_USER.1).await?;
    timeout(PATIENCE, client.allocate()).await??;
    client.close().await?;
    Ok(())
}

#[test]
fn coturns_load_client_loses_nothing_over_udp() -> Result<()> {
    uclient_loses_nothing(&[])?;
    Ok(())
}

#[test]
fn coturns_load_client_loses_nothing_over_tcp() -> Result<()> {
    uclient_loses_nothing(&["-t"])?;
    Ok(())
}

#[test]
fn coturns_load_client_loses_nothing_with_indications() -> Result<()> {
    uclient_loses_nothing(&["-s"])?;
    Ok(())
}

#[test]
fn coturns_load_clients_reach_each_other_on_one_relay() -> Result<()> {
    uclient_loses_nothing(&["-y", "-m", "2"])?;
    Ok(())
}

/// RFC 6062: two clients with TCP allocations connect to each other's relayed addresses.
#[test]
fn coturns_load_clients_meet_over_tcp_allocations() -> Result<()> {
    let Some(turn) = uclient_loses_nothing(&["-T", "-m", "2"])? else {
        return Ok(());
    };
    let made = "rallypoint_turn_peer_connections_total";
    for origin in ["connect", "peer"] {
        let label = format!("origin=\"{origin}\"");
        let count = turn.metric(made, &[&label])?;
        ensure!(count >= 1.0, "{count} connections by {origin}");
    }
    let framing = [r#"framing="connection""#];
    let bytes = turn.metric("rallypoint_turn_relayed_bytes_total", &framing)?;
    ensure!(bytes >= 2.0 * 100.0 * 170.0, "{bytes} bytes");
    Ok(())
}

fn uclient_loses_nothing(arguments: &[&str]) -> Result<Option<LocalDaemon>> {
    let needs = [
        Need::Tool("turnutils_uclient"),
        Need::Tool("turnutils_peer"),
    ];
    if !requirements::met(&needs)? {
        return Ok(None);
    }
    let turn = LocalDaemon::turn()?;
    let peer_port = free_port()?.port().to_string();
    let mut peer = Command::new("turnutils_peer");
    let _peer = Process::start(
        "turnutils_peer",
        peer.args(["-L", "127.0.0.1", "-p", &peer_port]),
    )?;
    let (name, password) = TEST_USER;
    let port = turn.address().port().to_string();
    let mut client = Command::new("turnutils_uclient");
    client
        .args(["-v", "-u", name, "-w", password, "-p", &port])
        .args([
            "-e",
            "127.0.0.1",
            "-r",
            &peer_port,
            "-n",
            "100",
            "-l",
            "170",
        ])
        .args(arguments)
        .arg("127.0.0.1");
    let said = run(&mut client, "")?;
    let sent = number_after(&said, "tot_send_msgs=")?;
    let received = number_after(&said, "tot_recv_msgs=")?;
    ensure!(
        sent >= 100 && sent == received,
        "{sent} sent, {received} received\n{said}"
    );
    ensure!(said.contains("Total lost packets 0 "), "{said}");
    Ok(Some(turn))
}

/// The last number that follows `label` in the report: the total.
fn number_after(report: &str, label: &str) -> Result<u64> {
    let rest = report
        .rsplit(label)
        .next()
        .filter(|rest| rest.len() < report.len());
    let rest = rest.with_context(|| format!("no `{label}` in\n{report}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

async fn foreign_client(relay: SocketAddr, password: &str) -> Result<Client> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let client = Client::new(ClientConfig {
        stun_serv_addr: relay.to_string(),
        turn_serv_addr: relay.to_string(),
        username: TEST_USER.0.to_owned(),
        password: password.to_owned(),
        realm: "rallypoint".to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    });
    let client = client.await?;
    client.listen().await?;
    Ok(client)
}

/// The mapped address in an answer that belongs to the request, read by the foreign codec.
fn mapped(request: &Message, answer: Vec<u8>) -> Result<SocketAddr> {
    let mut message = Message::new();
    message.raw = answer;
    message.decode()?;
    ensure!(
        message.transaction_id == request.transaction_id,
        "an answer to something else"
    );
    let mut address = XorMappedAddress::default();
    address.get_from(&message)?;
    Ok(SocketAddr::new(address.ip, address.port))
}
