//! What nobody may read in a log or a scrape: passphrases, the shared secret, passwords. Loopback only, no root.

use anyhow::{Context as _, Result, ensure};
use e2e::config::Config;
use e2e::deployment::SECRET;
use e2e::local::{Local, LocalDaemon, TEST_USER};

const PASSPHRASE: &str = "hush-nobody-writes-this-down";

#[test]
fn logs_and_metrics_hold_no_secret_even_at_trace() -> Result<()> {
    let mut local = Local::start()?;
    for daemon in [&mut local.stun, &mut local.turn, &mut local.signal] {
        talk_more(daemon)?;
    }

    let arguments = ["--count", "20", "--relay-only", "--timeout", "60"];
    let anna = local.player(PASSPHRASE, &[&["--name", "anna"], &arguments[..]].concat())?;
    let ben = local.player(PASSPHRASE, &[&["--name", "ben"], &arguments[..]].concat())?;
    anna.done()?;
    ben.done()?;

    let mut said = String::new();
    for daemon in [&local.stun, &local.turn, &local.signal] {
        said += &daemon.process().stdout();
        said += &daemon.process().stderr();
        said += &daemon.metrics()?;
    }
    ensure!(
        said.contains("listening"),
        "nothing was logged, which proves nothing:\n{said}"
    );
    for secret in [PASSPHRASE, SECRET, TEST_USER.1] {
        let line = said.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{secret:?} in {line:?}");
    }
    Ok(())
}

/// Starts a daemon again with its log at trace.
fn talk_more(daemon: &mut LocalDaemon) -> Result<()> {
    let file = daemon.config().to_owned();
    let name = file
        .file_stem()
        .and_then(|name| name.to_str())
        .context("a name")?;
    let directory = file.parent().context("a directory")?;
    Config::text(&std::fs::read_to_string(&file)?)?
        .with("log.level = \"trace\"")?
        .write(directory, name)?;
    daemon.restart()
}
