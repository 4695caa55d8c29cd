//! `docs/signaling-protocol.md` and the code name the same things.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use signal_wire::{
    ClientBody, ClientMessage, CloseCode, ErrorCode, PROTOCOL_VERSION, SUBPROTOCOL, ServerBody,
    ServerMessage, limits,
};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../docs/signaling-protocol.md");

#[test]
fn the_tables_list_every_message_error_and_close_code_and_no_other() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        first_column("Messages to the server"),
        names(ClientBody::TYPES)
    );
    assert_eq!(
        first_column("Messages to the client"),
        names(ServerBody::TYPES)
    );
    let errors: BTreeSet<_> = ErrorCode::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(first_column("Error codes"), errors);
    let mut closes: BTreeSet<_> = CloseCode::ALL
        .iter()
        .map(|code| code.code().to_string())
        .collect();
    // What the WebSocket layer itself answers.
    closes.extend(["1002".to_owned(), "1007".to_owned()]);
    assert_eq!(first_column("Close codes"), closes);
}

#[test]
fn every_example_is_a_message_and_every_message_has_an_example() {
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    for line in DOCUMENT.lines() {
        if let Some(text) = line.strip_prefix("→ {").map(|rest| format!("{{{rest}")) {
            let message = ClientMessage::from_json(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            seen.0.insert(message.body.type_name());
        } else if let Some(text) = line.strip_prefix("← {").map(|rest| format!("{{{rest}")) {
            let message = ServerMessage::from_json(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            seen.1.insert(message.body.type_name());
        }
    }
    assert_eq!(seen.0, ClientBody::TYPES.iter().copied().collect());
    assert_eq!(seen.1, ServerBody::TYPES.iter().copied().collect());
}

#[test]
fn the_limits_are_the_codes() {
    let config = signaling_lobby::Config::default();
    let rows = [
        ("frame", format!("{} bytes", limits::MESSAGE_BYTES)),
        ("batch", format!("{} messages", limits::BATCH_MESSAGES)),
        ("`name`", format!("{} characters", limits::NAME_CHARS)),
        ("`game`", format!("{} bytes", limits::GAME_BYTES)),
        ("`build`, `sdk`", format!("{} bytes", limits::BUILD_BYTES)),
        (
            "`passphrase`",
            format!("{} bytes", limits::PASSPHRASE_BYTES),
        ),
        ("`conn`", format!("{} bytes", limits::CONNECTION_BYTES)),
        (
            "`data` of a signal",
            format!("{} bytes", limits::SIGNAL_DATA_BYTES),
        ),
        (
            "signed description",
            format!("{} bytes", limits::DESCRIPTION_BYTES),
        ),
        ("candidate", format!("{} bytes", limits::CANDIDATE_BYTES)),
        (
            "`max`",
            format!("{} to {}", limits::LOBBY_MEMBERS_MIN, config.lobby_members),
        ),
        ("grace time", format!("{} s", config.grace.as_secs())),
        (
            "ping interval",
            format!("{} s", config.ping_interval.as_secs()),
        ),
    ];
    for (what, limit) in rows {
        let row = format!("| {what} | {limit} ");
        assert!(DOCUMENT.contains(&row), "no row {row:?}");
    }
    assert!(DOCUMENT.contains(SUBPROTOCOL));
    assert!(DOCUMENT.contains(&format!("`{PROTOCOL_VERSION}`")));
}

/// The names in code quotes in the first column of the table under a heading.
fn first_column(heading: &str) -> BTreeSet<String> {
    let (_, section) = DOCUMENT
        .split_once(&format!("## {heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}
