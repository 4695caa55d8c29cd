//! The daemon itself: its command line, its end, and what it writes to its log.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Client, PATIENCE, native, request};
use signal_wire::ServerBody;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rallypoint-signal");

#[test]
fn config_check_names_every_fault_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signal.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["config", "check", file.to_str().unwrap()])
    };
    let bad = check("listne = []\n[limits]\nconnections = 0\n[tls]\ncertificate = \"c\"\n");
    assert_eq!(bad.status.code(), Some(78));
    let text = String::from_utf8(bad.stderr).unwrap();
    for key in ["listne", "limits.connections", "tls.key"] {
        assert!(text.contains(key), "no {key} in {text}");
    }
    let good = check("listen = [\"http://127.0.0.1:0\"]\n");
    assert!(good.status.success(), "{good:?}");
}

#[test]
fn the_default_configuration_is_printed_and_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signal.toml");
    std::fs::write(&file, run(&["config", "default"]).stdout).unwrap();
    assert!(
        run(&["config", "check", file.to_str().unwrap()])
            .status
            .success()
    );
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        format!("rallypoint-signal {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[cfg(unix)]
#[tokio::test]
async fn sigterm_drains_and_the_log_holds_no_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signal.toml");
    let config = "listen = [\"http://127.0.0.1:0\"]\nadmin = { listen = \"off\" }\n\
                  log = { level = \"trace\" }\n";
    std::fs::write(&file, config).unwrap();
    let mut daemon = tokio::process::Command::new(PROGRAM)
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let mut lines = Vec::new();
    let addr = timeout(PATIENCE, listening(&mut log, &mut lines))
        .await
        .expect("started in time");

    let mut ann = Client::connect(addr, native(addr)).await.unwrap();
    ann.hello("Ann").await;
    ann.join("jump-rocket", 2).await;
    assert!(matches!(
        ann.try_join("Very Secret", 2).await,
        ServerBody::Error(_)
    ));
    ann.send(r#"{"type":"lobby.join","data":{"passphrase":"broken-json"}"#)
        .await;
    assert!(matches!(ann.body().await, ServerBody::Error(_)));
    let mut tank = Client::connect(addr, request(addr, "/")).await.unwrap();
    tank.send(r#"{"join":"laser-dragon"}"#).await;
    tank.text().await;
    tank.send(r#"{"playerMove":"private-words"}"#).await;

    let pid = i32::try_from(daemon.id().unwrap()).unwrap();
    assert_eq!(kill(pid), 0);
    assert!(matches!(ann.body().await, ServerBody::ServerDrain(_)));
    assert_eq!(ann.close_code().await, Some(1001));
    assert_eq!(tank.close_code().await, Some(1001));
    let status = timeout(PATIENCE, daemon.wait())
        .await
        .expect("an end in time")
        .unwrap();
    assert!(status.success(), "{status}");

    while let Some(line) = log.next_line().await.unwrap() {
        lines.push(line);
    }
    let log = lines.join("\n");
    assert!(
        log.contains("a random one is used until the next start"),
        "{log}"
    );
    for secret in ["rocket", "Secret", "broken-json", "dragon", "private-words"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// Reads the log up to the line that names the listener.
async fn listening<R: tokio::io::AsyncRead + Unpin>(
    log: &mut Lines<BufReader<R>>,
    lines: &mut Vec<String>,
) -> SocketAddr {
    loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("ended: {lines:?}"));
        lines.push(line.clone());
        if let Some((_, addr)) = line.split_once("listening on http://") {
            return addr.trim().parse().unwrap();
        }
    }
}

#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "signals have no safe call in the standard library"
)]
fn kill(pid: i32) -> i32 {
    // SAFETY: a system call without memory; the process is our own child, not yet waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) }
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}
