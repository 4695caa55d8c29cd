//! Which path two players take between which NATs, with real processes and three servers, judged at the core.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use e2e::core::Protocol;
use e2e::meeting::{COUNT, Meeting, Path, SIZE, Session};
use e2e::nat::Access;

/// Everything that each player sends at least: its messages and its echoes of the other's.
const PAYLOAD: u64 = 2 * COUNT * SIZE;

#[test]
fn full_cone_and_symmetric_go_direct() -> Result<()> {
    direct(Access::FullCone, Access::Symmetric)
}

#[test]
fn port_restricted_and_port_restricted_go_direct() -> Result<()> {
    direct(Access::PortRestricted, Access::PortRestricted)
}

#[test]
fn symmetric_and_symmetric_are_relayed() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::Symmetric, Access::Symmetric)? else {
        return Ok(());
    };
    let session = meeting.play(Path::Relayed, &[])?;
    ensure_relayed(&meeting, &session)
}

#[test]
fn blocked_udp_is_relayed_over_tcp() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::UdpBlocked, Access::PortRestricted)? else {
        return Ok(());
    };
    let session = meeting.play(Path::Relayed, &[])?;
    ensure_relayed(&meeting, &session)?;
    let tcp = meeting.to_relay(&session.traffic, &meeting.anna, Protocol::Tcp);
    let udp = meeting.to_relay(&session.traffic, &meeting.anna, Protocol::Udp);
    ensure!(
        tcp.bytes >= PAYLOAD,
        "over TCP: {tcp:?}\n{}",
        session.traffic
    );
    ensure!(udp.packets == 0, "over UDP: {udp:?}\n{}", session.traffic);
    Ok(())
}

#[test]
fn ipv6_only_and_dual_stack_go_direct_over_ipv6() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::Ipv6Only, Access::DualStack)? else {
        return Ok(());
    };
    let session = meeting.play(Path::Direct, &[])?;
    let (anna, ben) = (meeting.anna.address6()?, meeting.ben.address6()?);
    for (from, to) in [(anna, ben), (ben, anna)] {
        let sent = session.traffic.sent_over(Protocol::Udp, from, to);
        ensure!(
            sent.bytes >= PAYLOAD / 2,
            "{from} -> {to}: {sent:?}\n{}",
            session.traffic
        );
    }
    session.ensure_unreadable()
}

/// Who asks for the relay shows the other player no address but the relay's, although a direct path was possible.
#[test]
fn relay_only_hides_the_address_of_the_player() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::FullCone, Access::FullCone)? else {
        return Ok(());
    };
    let session = meeting.play(Path::Relayed, &["--relay-only"])?;
    ensure_relayed(&meeting, &session)?;
    let (anna, ben) = (meeting.anna.external4()?, meeting.ben.external4()?);
    for (from, to) in [(anna, ben), (ben, anna)] {
        let sent = session.traffic.sent(from, to);
        ensure!(
            sent.packets == 0,
            "{from} -> {to}: {sent:?}\n{}",
            session.traffic
        );
    }
    Ok(())
}

fn direct(anna: Access, ben: Access) -> Result<()> {
    let Some(meeting) = Meeting::new(anna, ben)? else {
        return Ok(());
    };
    let session = meeting.play(Path::Direct, &[])?;
    // Until the direct path is proven the relay carries the data; the greater part has to go direct.
    let sent = meeting.direct(&session.traffic);
    ensure!(sent.bytes >= PAYLOAD / 2, "{sent:?}\n{}", session.traffic);
    session.ensure_unreadable()
}

fn ensure_relayed(meeting: &Meeting, session: &Session) -> Result<()> {
    let traffic = &session.traffic;
    let relayed = meeting.relayed(traffic);
    ensure!(
        relayed.bytes >= PAYLOAD,
        "by the relay: {relayed:?}\n{traffic}"
    );
    let outside = |home: &e2e::lab::Home| -> Result<IpAddr> { home.external4() };
    let (anna, ben) = (outside(&meeting.anna)?, outside(&meeting.ben)?);
    for (from, to) in [(anna, ben), (ben, anna)] {
        // Connectivity checks towards an address that does not answer are all there may be.
        let sent = traffic.sent(from, to);
        ensure!(
            sent.bytes < PAYLOAD / 10,
            "{from} -> {to}: {sent:?}\n{traffic}"
        );
    }
    session.ensure_unreadable()
}
