//! Our ICE agent connects with an agent of `webrtc-ice`, which shares no code with it, in both roles. Loopback, no root.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use client_sdk_proto::CandidateKind;
use client_sdk_proto::ice::{Agent, AgentEvent};
use e2e::wait::PATIENCE;
use net_io::clock;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc_ice::agent::Agent as ForeignAgent;
use webrtc_ice::agent::agent_config::AgentConfig;
use webrtc_ice::candidate::Candidate;
use webrtc_ice::candidate::candidate_base::unmarshal_candidate;
use webrtc_ice::mdns::MulticastDnsMode;
use webrtc_ice::network_type::NetworkType;
use webrtc_util::Conn;

#[tokio::test]
async fn we_control_and_the_foreign_agent_answers() -> Result<()> {
    timeout(PATIENCE, connect(Role::Controlling)).await?
}

#[tokio::test]
async fn the_foreign_agent_controls_and_we_answer() -> Result<()> {
    timeout(PATIENCE, connect(Role::Controlled)).await?
}

/// Ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Controlling,
    Controlled,
}

async fn connect(role: Role) -> Result<()> {
    let (foreign, mut candidates) = foreign_agent(role == Role::Controlled).await?;
    let (foreign_ufrag, foreign_pwd) = foreign.get_local_user_credentials().await;

    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let base = socket.local_addr()?;
    let mut agent = Agent::new(role == Role::Controlling);
    let line = agent
        .add_local(CandidateKind::Host, base, base)
        .context("a candidate of ours")?;
    let (ufrag, pwd) = agent.credentials();
    let (ufrag, pwd) = (ufrag.to_owned(), pwd.to_owned());
    agent.set_remote_credentials(&foreign_ufrag, &foreign_pwd);

    let ours: Arc<dyn Candidate + Send + Sync> =
        Arc::new(unmarshal_candidate(line.trim_start_matches("candidate:"))?);
    foreign.add_remote_candidate(&ours)?;
    foreign.gather_candidates()?;
    while let Some(candidate) = candidates.recv().await {
        let taken = agent.add_remote(&format!("candidate:{candidate}"));
        taken.map_err(|error| anyhow!("{candidate}: {error:?}"))?;
    }

    let theirs = tokio::spawn(async move {
        let (_never_cancelled, cancel) = mpsc::channel(1);
        let conversation: Arc<dyn Conn + Send + Sync> = match role {
            Role::Controlling => foreign.accept(cancel, ufrag, pwd).await?,
            Role::Controlled => foreign.dial(cancel, ufrag, pwd).await?,
        };
        let mut buffer = [0; 1500];
        conversation
            .send(b"a question of the foreign agent")
            .await?;
        let length = conversation.recv(&mut buffer).await?;
        ensure!(
            &buffer[..length] == b"our answer",
            "{:?}",
            &buffer[..length]
        );
        foreign.close().await?;
        Ok(())
    });

    let peer = drive(&mut agent, &socket).await?;
    ensure!(peer.ip().is_loopback(), "nominated {peer}");
    theirs.await?
}

/// Runs our agent on its socket until it has nominated a pair and answered the question that came over it.
async fn drive(agent: &mut Agent, socket: &UdpSocket) -> Result<SocketAddr> {
    let base = socket.local_addr()?;
    let mut nominated = None;
    let mut asked_by = None;
    let mut buffer = [0; 1500];
    loop {
        agent.handle_timeout(clock::mono());
        while let Some((_, to, bytes)) = agent.poll_transmit() {
            socket.send_to(&bytes, to).await?;
        }
        while let Some(event) = agent.poll_event() {
            if let AgentEvent::Nominated { local, remote } = event {
                ensure!(local == base, "nominated {local}, which is not ours");
                nominated = Some(remote);
            }
        }
        if let (Some(remote), Some(from)) = (nominated, asked_by) {
            ensure!(
                remote == from,
                "nominated {remote}, but the data came from {from}"
            );
            socket.send_to(b"our answer", remote).await?;
            return Ok(remote);
        }
        let due = agent
            .poll_timeout()
            .map_or(PATIENCE, |at| at.saturating_duration_since(clock::mono()));
        // Nothing arrived: something is due.
        let Ok(received) = timeout(due, socket.recv_from(&mut buffer)).await else {
            continue;
        };
        let (length, from) = received?;
        let bytes = &buffer[..length];
        if bytes == b"a question of the foreign agent" {
            asked_by = Some(from);
        } else {
            ensure!(
                agent.handle_packet(clock::mono(), from, base, bytes),
                "{bytes:02x?} from {from}"
            );
        }
    }
}

/// A foreign agent on loopback, and its candidates as they are gathered, up to the last.
async fn foreign_agent(controlling: bool) -> Result<(ForeignAgent, mpsc::Receiver<String>)> {
    let agent = ForeignAgent::new(AgentConfig {
        network_types: vec![NetworkType::Udp4],
        multicast_dns_mode: MulticastDnsMode::Disabled,
        is_controlling: controlling,
        include_loopback: true,
        ip_filter: Arc::new(Some(Box::new(|address| address.is_loopback()))),
        ..AgentConfig::default()
    });
    let agent = agent.await?;
    let (found, candidates) = mpsc::channel(16);
    let found = std::sync::Mutex::new(Some(found));
    agent.on_candidate(Box::new(move |candidate| {
        let mut found = found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match candidate {
            Some(candidate) => {
                let sent = found
                    .as_ref()
                    .map(|found| found.try_send(candidate.marshal()));
                assert!(
                    sent.is_some_and(|sent| sent.is_ok()),
                    "a candidate after the last"
                );
            }
            None => *found = None,
        }
        Box::pin(async {})
    }));
    Ok((agent, candidates))
}
