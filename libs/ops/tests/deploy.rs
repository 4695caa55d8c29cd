//! The files of `deploy/` are what the programs that read them accept.
//!
//! The daemons' own configurations are parsed by the daemons' tests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// Every unit, as written.
fn units() -> Vec<(String, String)> {
    ["stun", "turn", "signal"]
        .map(|name| {
            let unit = format!("rallypoint-{name}.service");
            let text = std::fs::read_to_string(deploy().join("systemd").join(&unit)).unwrap();
            (unit, text)
        })
        .to_vec()
}

#[test]
fn units_start_what_is_installed_with_the_configuration_that_is() {
    for (unit, text) in units() {
        let name = unit.strip_suffix(".service").unwrap();
        let short = name.strip_prefix("rallypoint-").unwrap();
        let start =
            format!("ExecStart=/usr/local/bin/{name} --config /etc/rallypoint/{short}.toml");
        for line in [
            start.as_str(),
            "Type=notify",
            "RestartPreventExitStatus=78",
            "DynamicUser=yes",
        ] {
            assert!(
                text.lines().any(|candidate| candidate == line),
                "{unit} lacks {line}"
            );
        }
        assert!(
            text.contains(&format!("ExecPaths=/usr/local/bin/{name} ")),
            "{unit}"
        );
    }
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    for (unit, text) in units() {
        // It looks for the programs too, which are not installed here.
        let name = unit.strip_suffix(".service").unwrap();
        let path = folder.path().join(&unit);
        std::fs::write(
            &path,
            text.replace(&format!("/usr/local/bin/{name}"), "/bin/true"),
        )
        .unwrap();
        let Some(output) = run("systemd-analyze", "systemd", &["verify", "--man=no"], &path) else {
            return;
        };
        // Its exit code is 0 for a bad value; what it says is the verdict.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{unit}: {said}");
    }
}

#[test]
fn units_are_hardly_exposed() {
    for (unit, _) in units() {
        let path = deploy().join("systemd").join(&unit);
        // 15 is 1.5 of 10: the goal for every unit.
        let arguments = ["security", "--offline=true", "--threshold=15"];
        let Some(output) = run("systemd-analyze", "systemd", &arguments, &path) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{unit}: {}",
            said.lines().last().unwrap_or_default()
        );
    }
}

#[test]
fn prometheus_accepts_its_configuration() {
    let path = deploy().join("prometheus/prometheus.yml");
    let Some(output) = run("promtool", "prometheus", &["check", "config"], &path) else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(path).unwrap();
    for (port, job) in [(9478, "stun"), (9479, "turn"), (9480, "signal")] {
        assert!(
            text.contains(&format!("job_name: rallypoint-{job}")),
            "{job}"
        );
        assert!(text.contains(&format!("127.0.0.1:{port}")), "{job}");
    }
}

#[test]
fn nftables_accepts_the_firewall() {
    let path = deploy().join("nftables/vps.nft");
    let Some(output) = run("nft", "nftables", &["-c", "-f"], &path) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Operation not permitted") {
        return skip("the right to check a firewall (root)");
    }
    assert!(output.status.success(), "{said}");
}

/// What a program says of a file; `None` where it is not installed.
fn run(program: &str, package: &str, arguments: &[&str], file: &Path) -> Option<Output> {
    match Command::new(program).args(arguments).arg(file).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skip(&format!("{program} (Debian package {package})"));
            None
        }
    }
}

fn skip(what: &str) {
    let required = std::env::var_os("RALLYPOINT_TEST_ALL").is_some();
    assert!(!required, "{what} is missing");
    eprintln!("skipped: {what} is missing");
}
