//! A real file of several megabytes from one player to another, both behind symmetric NATs.

use std::path::Path as FilePath;

use anyhow::{Context as _, Result, ensure};
use e2e::core::Protocol;
use e2e::meeting::Meeting;
use e2e::nat::Access;
use e2e::netns::run;

/// More than fits into any buffer on the way.
const SIZE: usize = 5_000_000;

#[test]
fn a_file_arrives_unchanged_and_unread_over_the_relay() -> Result<()> {
    let Some(meeting) = Meeting::new(Access::Symmetric, Access::Symmetric)? else {
        return Ok(());
    };
    let directory = meeting.deployment.directory();
    let (input, output) = (directory.join("sent"), directory.join("received"));
    let bytes = real_file()?;
    std::fs::write(&input, &bytes)?;
    let capture = meeting.lab.core().capture(&directory.join("core.pcap"))?;

    let before = meeting.lab.core().traffic()?;
    let (input, output) = (input.to_string_lossy(), output.to_string_lossy());
    let (anna, ben) = meeting.players(
        "several-megabytes",
        &["--timeout", "60", "--input", &input],
        &["--timeout", "60", "--output", &output],
    )?;
    anna.done()?;
    ben.done()?;

    run(
        std::process::Command::new("cmp").args([&*input, &*output]),
        "",
    )?;
    let traffic = meeting.lab.core().traffic()?.since(&before);
    let size = bytes.len() as u64;
    let up = meeting.to_relay(&traffic, &meeting.anna, Protocol::Udp);
    let down = traffic.sent(
        meeting.deployment.servers.turn.address4(),
        meeting.ben.external4()?,
    );
    ensure!(
        up.bytes > size && down.bytes > size,
        "{size} bytes went elsewhere:\n{traffic}"
    );
    let direct = traffic.sent(meeting.anna.external4()?, meeting.ben.external4()?);
    ensure!(
        direct.bytes < size / 100,
        "{direct:?} between the routers:\n{traffic}"
    );
    for player in [&anna, &ben] {
        let said = player.paths();
        ensure!(
            said.iter().all(|path| path == "relay") && !said.is_empty(),
            "it says {said:?}"
        );
    }

    let stun = (meeting.deployment.servers.stun.address4(), 9).into();
    let recording = capture.finish(meeting.deployment.servers.turn.host(), stun)?;
    ensure!(
        recording.len() as u64 > 2 * size,
        "the recording is too short to prove anything"
    );
    // Samples from all over the file: none of them is on the wire.
    let step = bytes.len() / 64;
    for start in (0..bytes.len() - 64).step_by(step) {
        let sample = bytes.get(start..start + 32).context("a sample")?;
        let telling = sample
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
            > 8;
        ensure!(
            !telling || !recording.contains(sample),
            "{sample:02x?} of {start} in clear"
        );
    }
    Ok(())
}

/// A file that exists anyway: this test's own program, repeated if it should be small.
fn real_file() -> Result<Vec<u8>> {
    let program = std::env::current_exe()?;
    let program: &FilePath = program.as_ref();
    let once = std::fs::read(program).with_context(|| program.display().to_string())?;
    let mut bytes = once.clone();
    while bytes.len() < SIZE {
        bytes.extend_from_slice(&once);
    }
    bytes.truncate(SIZE);
    Ok(bytes)
}
