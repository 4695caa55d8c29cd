//! The direct path is cut during play: traffic goes on over the relay, and both players are told of the gap.

use anyhow::{Context as _, Result, ensure};
use e2e::meeting::{Meeting, Path, SIZE};
use e2e::nat::Access;
use serde_json::Value;

/// A player whose path died must not be silent for longer than this. The goal is half a second on a quiet machine; this
/// machine may be busy.
const LONGEST_GAP_MS: f64 = 5000.0;

#[test]
fn play_goes_on_over_the_relay_when_the_direct_path_is_cut() -> Result<()> {
    let accesses = (Access::PortRestricted, Access::PortRestricted);
    let Some(meeting) = Meeting::new(accesses.0, accesses.1)? else {
        return Ok(());
    };
    let size = SIZE.to_string();
    let arguments = [
        "--count",
        "2000",
        "--hz",
        "100",
        "--size",
        &size,
        "--timeout",
        "60",
    ];
    let (anna, ben) = meeting.players("cut-me-off", &arguments, &arguments)?;
    anna.connected()?;
    ben.connected()?;
    meeting.settles_on(Path::Direct)?;

    meeting
        .lab
        .core()
        .cut(meeting.anna.external4()?, meeting.ben.external4()?)?;

    meeting.settles_on(Path::Relayed)?;
    for player in [&anna, &ben] {
        let changed = player.event_where("path_changed", says_relay)?;
        let gap = changed.get("gap_ms").and_then(Value::as_f64);
        let gap = gap.with_context(|| format!("a gap in {changed}"))?;
        ensure!(gap > 0.0 && gap < LONGEST_GAP_MS, "{changed}");
        println!("path given up after {gap} ms of silence: {changed}");
    }
    for player in [&anna, &ben] {
        let done = player.done()?;
        // Twenty seconds of messages, of which a gap is lost.
        ensure!(
            done.received * 10 >= done.sent * 7,
            "{done:?}\n{}",
            player.process().report()
        );
    }
    Ok(())
}

fn says_relay(event: &Value) -> bool {
    event.get("path").and_then(Value::as_str) == Some("relay")
}
