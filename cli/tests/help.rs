//! What `--help` promises, word for word: whoever changes an option changes this page too.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Set `RALLYPOINT_BLESS=1` to write the page anew, then read the difference.
#[test]
fn help_is_as_written_down() {
    let mut page = String::new();
    let commands: [&[&str]; 13] = [
        &[],
        &["up"],
        &["play"],
        &["demo"],
        &["load"],
        &["load", "turn"],
        &["load", "hold"],
        &["load", "stun"],
        &["admin"],
        &["admin", "allocations"],
        &["admin", "kick"],
        &["admin", "quotas"],
        &["admin", "drain"],
    ];
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_rallypoint"))
            .args(command)
            .arg("--help")
            .env_remove("RALLYPOINT_SIGNAL")
            .env_remove("RALLYPOINT_LOAD_PASSWORD")
            .env_remove("RALLYPOINT_ADMIN_URL")
            .env_remove("RALLYPOINT_ADMIN_TOKEN_FILE")
            .output()
            .expect("the binary runs");
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).expect("text");
        page += &format!(
            "$ rallypoint {}\n",
            [command, &["--help"]].concat().join(" ")
        );
        page += &help;
        page += "\n";
    }
    let page: String = page
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("RALLYPOINT_BLESS").is_some() {
        fs::write(&file, &page).expect("written");
    }
    let written = fs::read_to_string(&file).expect("tests/help.txt");
    for (number, (said, expected)) in (1..).zip(page.lines().zip(written.lines())) {
        assert_eq!(
            said, expected,
            "tests/help.txt:{number}; RALLYPOINT_BLESS=1 writes it anew"
        );
    }
    assert_eq!(page.lines().count(), written.lines().count(), "its end");
}
