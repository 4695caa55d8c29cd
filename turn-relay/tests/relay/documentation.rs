//! `docs/admin-api.md` and the code say the same: routes, error codes, bounds, and every command of
//! it with what it answers.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use turn_relay::admin::ROUTES;

use crate::client::{Client, Peer};
use crate::daemon::{ADMIN_TOKEN, Daemon, is_installed, skip};
use crate::harness::V4;

const DOCUMENT: &str = include_str!("../../../docs/admin-api.md");

/// Where a code of an error can stand.
const SOURCES: [&str; 4] = [
    include_str!("../../src/admin.rs"),
    include_str!("../../src/admin/orders.rs"),
    include_str!("../../../libs/ops/src/admin/door.rs"),
    include_str!("../../../libs/ops/src/admin/api.rs"),
];

#[test]
fn the_document_has_every_route_once_in_the_table_and_once_as_a_heading() {
    let routes: Vec<(String, &str)> = ROUTES
        .iter()
        .map(|route| {
            let call = format!("{} {}", route.method.as_str(), route.path);
            (call, route.handler)
        })
        .collect();
    for (call, handler) in &routes {
        let row = format!("| `{call}` | `{handler}` | ");
        assert_eq!(DOCUMENT.matches(&row).count(), 1, "{row}");
        let heading = format!("\n### `{call}`\n");
        assert_eq!(DOCUMENT.matches(&heading).count(), 1, "{heading}");
    }
    let headings = DOCUMENT.matches("\n### `").count();
    let rows = DOCUMENT.lines().filter(|line| line.contains("` | `"));
    assert_eq!((headings, rows.count()), (routes.len(), routes.len()));
    let handlers: BTreeSet<_> = routes.iter().map(|(_, handler)| handler).collect();
    assert_eq!(handlers.len(), routes.len(), "each is counted by itself");
}

#[test]
fn the_document_has_every_error_code_and_no_other() {
    let (_, table) = DOCUMENT.split_once("| code | status | when |\n").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented = BTreeSet::new();
    for row in rows {
        let mut cells = row.split('|');
        let code = cells.next().unwrap().trim_end_matches("` ");
        let statuses = cells.next().unwrap().split(',');
        documented.extend(statuses.map(|status| (code.to_owned(), status.trim().to_owned())));
    }
    // `ApiError::new(503, "busy", ...)`, however it is broken into lines.
    let mut made = BTreeSet::new();
    for source in SOURCES {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let words: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
        for call in words.split("::new(").skip(1) {
            let mut arguments = call.trim_start().split(',');
            let status = arguments.next().unwrap().trim().to_owned();
            let code = arguments.next().unwrap_or_default().trim();
            if status.parse::<u16>().is_ok() && code.starts_with('"') {
                made.insert((code.trim_matches('"').to_owned(), status));
            }
        }
    }
    assert_eq!(documented, made);
}

#[cfg(unix)]
#[test]
fn every_command_of_the_document_answers_what_stands_there() {
    if !is_installed("curl") {
        return skip("curl is not installed");
    }
    let daemon = Daemon::start("[[test-user]]\nname = \"anna\"\npassword = \"of anna\"\n");
    let mut clients: Vec<Client> = (0..2).map(|_| anna(&daemon)).collect();
    let peer = Peer::new(V4);
    for client in &mut clients {
        client.allocate();
        client.bind_channel(peer.addr(), 0x4000);
    }
    let listed = daemon.api("GET", "/v1/allocations", "").1;
    let id = listed["allocations"][0]["id"].as_str().unwrap().to_owned();
    let (_, setup) = DOCUMENT.split_once("```sh\napi() {").unwrap();
    let setup = setup.split("```").next().unwrap();
    let setup = format!("api() {{{setup}").replace("9479", &daemon.admin_port().to_string());

    let mut lines = DOCUMENT.lines();
    let mut commands = 0;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let written: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let command = command.replace("1-00000000142e91f7", &id);
        let output = Command::new("sh")
            .args(["-eu", "-c", &format!("{setup}\n{command}")])
            .current_dir(daemon.folder())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shape(&answer), shape(&written), "{command}: {answer}");
        for key in STABLE {
            assert_eq!(answer.get(key), written.get(key), "{command}: {key}");
        }
        commands += 1;
    }
    assert_eq!(commands, ROUTES.len() + 1, "each route once, and an error");
    let log = daemon.log();
    assert!(!log.contains(ADMIN_TOKEN), "{log}");
}

/// What does not depend on the moment.
const STABLE: [&str; 14] = [
    "error",
    "blocked",
    "blocked_seconds",
    "blocked_users",
    "changed",
    "draining",
    "ended",
    "from",
    "missing_shards",
    "need_restart",
    "note",
    "quotas",
    "user",
    "was_blocked",
];

fn anna(daemon: &Daemon) -> Client {
    Client::udp(daemon.turn).login("anna", "of anna")
}

/// The keys and the kinds of values, without the values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map = map.iter().map(|(key, value)| (key.clone(), shape(value)));
            Value::Object(map.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(shape).collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "truth".into(),
        Value::Null => Value::Null,
    }
}

#[test]
fn the_bounds_of_the_document_are_the_codes() {
    for (what, sources) in [
        (
            "const BODY_BYTES: usize = 64 * 1024;",
            "at most 65536 bytes, sent within 10 s",
        ),
        (
            "const BODY_TIME: Duration = Duration::from_secs(10);",
            "at most 65536 bytes, sent within 10 s",
        ),
        (
            "const PATIENCE: Duration = Duration::from_secs(2);",
            "2 s is named",
        ),
        (
            "const PAGE: usize = 100;",
            "(100 unless asked otherwise, 500 at most)",
        ),
        (
            "const LONGEST_PAGE: usize = 500;",
            "(100 unless asked otherwise, 500 at most)",
        ),
        (
            "const LONGEST_BLOCK: Duration = Duration::from_secs(24 * 3600);",
            "`block` (1s to 24h)",
        ),
        (
            "const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);",
            "`deadline` (0s to 24h)",
        ),
        ("const WAITING: usize = 16;", "16 orders are waiting"),
    ] {
        let code = SOURCES.iter().any(|source| source.contains(what));
        let document = DOCUMENT.replace('\n', " ");
        assert!(code, "{what}");
        assert!(document.contains(sources), "{sources}");
    }
    let blocked = turn_relay_proto::MAX_BLOCKED_USERS;
    assert!(DOCUMENT.contains(&format!("{blocked} users are kept out already")));
}
