//! `rallypoint demo --plain` from end to end: loopback only, as an ordinary user.

#[path = "support/processes.rs"]
mod processes;

use std::fs;

use processes::{rallypoint, words};
use serde_json::Value;

#[test]
fn every_pair_takes_its_path_and_the_cut_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    let output = rallypoint(&["demo", "--plain", "--out", out])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", words(&output));

    let json = fs::read_to_string(folder.path().join("demo.json")).expect("demo.json");
    let record: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(record["ok"], true);
    let paths: Vec<_> = record["pairs"]
        .as_array()
        .expect("pairs")
        .iter()
        .map(|pair| &pair["path"])
        .collect();
    assert_eq!(
        paths,
        ["relay", "direct", "relay", "relay over tcp"],
        "the first was cut"
    );
    let cut = &record["pairs"][0];
    assert_eq!(
        cut["spans"]
            .as_array()
            .and_then(|spans| spans.last())
            .expect("a span")["path"],
        "relay"
    );
    assert!(cut["cut"]["gap_ms"].as_f64() > Some(0.0));
    for pair in record["pairs"].as_array().expect("pairs") {
        assert!(pair["connect_ms"].as_f64() > Some(0.0) && pair["rtt_ms"].as_f64() > Some(0.0));
        for side in pair["sides"].as_array().expect("sides") {
            let reliable = &side["reliable"];
            assert_eq!(reliable["sent"], reliable["received"]);
            assert_eq!(reliable["in_order"], true);
        }
    }
    let svg = fs::read_to_string(folder.path().join("demo.svg")).expect("demo.svg");
    assert!(svg.starts_with("<svg") && svg.contains("direct path cut at the NAT"));
    for text in [
        "CONNECTED",
        "CUT",
        "PATH CHANGED",
        "port-restricted x port-restricted",
        "every pair took",
    ] {
        assert!(said.contains(text), "{text} is missing in\n{said}");
    }
}

#[test]
fn folder_that_cannot_be_written_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    let out = file.join("below");
    let output = rallypoint(&["demo", "--plain", "--out", out.to_str().expect("text")])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("below"), "{}", words(&output));
    assert!(output.stdout.is_empty());
}
