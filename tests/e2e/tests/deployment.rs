//! The deployment that the README describes, acted out: three servers, two players behind symmetric NATs, and what the
//! three `/metrics` say about it.

use anyhow::{Context as _, Result, ensure};
use e2e::daemon::{Daemon, sum_of};
use e2e::meeting::{COUNT, Meeting, Path, SIZE};
use e2e::nat::Access;
use e2e::netns::run;
use e2e::requirements::{self, Need};
use e2e::wait::PATIENCE;

/// What a session must move, daemon by daemon: counter, labels, by at least how much.
const STUN_MOVES: &[(&str, &[&str], u64)] = &[
    ("rallypoint_stun_requests_total", &[r#"transport="udp""#], 2),
    (
        "rallypoint_stun_responses_total",
        &[r#"class="success""#],
        2,
    ),
    (
        "rallypoint_stun_received_bytes_total",
        &[r#"transport="udp""#],
        2 * 20,
    ),
    (
        "rallypoint_stun_sent_bytes_total",
        &[r#"transport="udp""#],
        2 * 32,
    ),
];
/// Both players' messages and echoes are relayed.
const TURN_MOVES: &[(&str, &[&str], u64)] = &[
    ("rallypoint_turn_requests_total", &[], 4),
    (
        "rallypoint_turn_responses_total",
        &[r#"class="success""#],
        4,
    ),
    ("rallypoint_turn_allocations_created_total", &[], 2),
    // Each way may lead over an allocation of its own, in at either end of it.
    ("rallypoint_turn_relayed_bytes_total", &[], 2 * COUNT * SIZE),
    ("rallypoint_turn_relayed_packets_total", &[], 2 * COUNT),
    (
        "rallypoint_turn_relayed_packets_total",
        &[r#"direction="to_client""#],
        1,
    ),
    (
        "rallypoint_turn_relayed_packets_total",
        &[r#"direction="to_peer""#],
        1,
    ),
];
const SIGNAL_MOVES: &[(&str, &[&str], u64)] = &[
    ("rallypoint_signal_connections_total", &[], 2),
    ("rallypoint_signal_messages_total", &[], 10),
    ("rallypoint_signal_turn_credentials_issued_total", &[], 2),
];

#[test]
fn three_servers_connect_two_players_and_their_metrics_tell() -> Result<()> {
    if !requirements::met(&[Need::Lab, Need::Tool("curl"), Need::Tool("promtool")])? {
        return Ok(());
    }
    let Some(meeting) = Meeting::new(Access::Symmetric, Access::Symmetric)? else {
        return Ok(());
    };
    let deployment = &meeting.deployment;
    let daemons = [
        (&deployment.stun, STUN_MOVES),
        (&deployment.turn, TURN_MOVES),
        (&deployment.signal, SIGNAL_MOVES),
    ];
    let mut before = Vec::new();
    for (daemon, _) in &daemons {
        before.push(scrape(daemon)?);
    }

    let session = meeting.play(Path::Relayed, &[])?;
    session.ensure_unreadable()?;

    for ((daemon, moves), before) in daemons.iter().zip(&before) {
        for (name, labels, least) in *moves {
            let was = sum_of(before, name, labels).with_context(|| {
                format!("{name} {labels:?} is registered from the start:\n{before}")
            })?;
            daemon.metric_reaches(name, labels, was + f64::from(u32::try_from(*least)?))?;
        }
        scrape(daemon)?;
    }
    Ok(())
}

#[test]
fn daemons_end_cleanly_when_they_are_told_to() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::FullCone, Access::FullCone)? else {
        return Ok(());
    };
    let deployment = &meeting.deployment;
    for daemon in [&deployment.signal, &deployment.turn, &deployment.stun] {
        daemon.shut_down(PATIENCE)?;
    }
    Ok(())
}

/// As an operator does it: `curl` on the server, `promtool` on what came.
fn scrape(daemon: &Daemon) -> Result<String> {
    let url = format!("http://{}/metrics", daemon.admin());
    let mut curl = daemon.machine().command("curl");
    let metrics = run(curl.args(["--fail", "--silent", "--show-error", &url]), "")?;
    let said = run(
        std::process::Command::new("promtool").args(["check", "metrics"]),
        &metrics,
    )?;
    ensure!(said.trim().is_empty(), "promtool: {said}");
    Ok(metrics)
}
