//! `rallypoint load` as a program, against our servers on loopback: does it count what happens? How fast is not asked.

use std::net::SocketAddr;
use std::process::Command;

use ops::metrics::Registry;
use serde_json::Value;

const USER: &str = "load";
const PASSWORD: &str = "of the load test";

#[test]
fn relays_in_every_direction_and_nothing_goes_astray() {
    let (server, address) = relay();
    for options in [
        "--direction up --window 16",
        "--direction down --framing send",
        "--direction echo --framing send --burst 4",
        "--pairs --size 1200",
        "--pairs --direction echo",
        "--direction both --window 16",
        "--pairs --direction both",
        "--rate 500",
    ] {
        let told = load_turn(address, &format!("--clients 4 {options}"));
        assert!(count(&told, "relayed") > 0, "{options}: {told}");
        assert_eq!(count(&told, "foreign"), 0, "{options}: {told}");
        let arrived = count(&told, "sent") - count(&told, "lost") - count(&told, "unsent");
        assert!(arrived > 0, "{options}: {told}");
        assert_eq!(
            told["latency_us"].is_object(),
            options.contains("--rate"),
            "{options}: {told}"
        );
    }
    server.shutdown();
}

#[test]
#[cfg(target_os = "linux")]
fn bursts_as_one_are_the_packets_they_are_made_of() {
    let (server, address) = relay();
    for direction in ["up", "down", "both", "echo"] {
        let options = format!("--burst 16 --offload --window 256 --direction {direction}");
        let told = load_turn(address, &format!("--clients 4 {options}"));
        assert!(count(&told, "relayed") > 0, "{told}");
        assert_eq!(count(&told, "foreign"), 0, "{told}");
        assert_eq!(told["offload"], true, "{told}");
    }
    server.shutdown();
}

/// Whole runs with frames need a network: `tests/e2e/tests/load.rs`.
#[test]
fn frames_that_cannot_be_are_told_with_their_option() {
    let (server, address) = relay();
    let refused = [
        ("--wire", "--wire to 127.0.0.1:"),
        ("--wire --direction echo", "--wire cannot be combined"),
        ("--wire --window 5", "cannot be used with '--window"),
        ("--wire --allocations", "needs --client-net"),
        ("--wire --client-net 198.18.3.0/24", "--allocations"),
        ("--allocations --client-net 198.18.3.0/24", "--wire"),
        (
            "--wire --allocations --client-net 192.0.2.0/24",
            "within 198.18.0.0/15",
        ),
        (
            "--wire --allocations --client-net 198.18.3.0/24",
            "--wire to 127.0.0.1:",
        ),
        ("--wire --burst 2 --offload", "cannot be used with"),
        ("--offload", "--burst"),
    ];
    for (options, expected) in refused {
        let output = turn_command(address, options)
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(said.contains(expected), "{options}: {said}");
    }
    let six = "[::1]:3478".parse().expect("an address");
    let output = turn_command(six, "--wire").output();
    let said = output.expect("the binary runs").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("--wire knows IPv4 only, and ::1"), "{said}");
    server.shutdown();
}

#[test]
fn allocations_are_made_and_given_back() {
    let (server, address) = relay();
    let told = load_turn(address, "--clients 4 --allocations");
    assert!(count(&told, "cycles") > 0, "{told}");
    assert_eq!(count(&told, "failed"), 0, "{told}");
    server.shutdown();
}

#[test]
fn a_wrong_password_is_told_and_nothing_measured() {
    let (server, address) = relay();
    for options in ["", "--allocations"] {
        let output = turn_command(address, options)
            .env("RALLYPOINT_LOAD_PASSWORD", "another")
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(said.contains("the server refused Allocate: 401"), "{said}");
    }
    server.shutdown();
}

#[test]
fn binding_answers_are_counted() {
    let text =
        "listen = [\"udp://127.0.0.1:0\"]\nthreads = 1\n[limits]\nexempt = [\"127.0.0.1/32\"]";
    let config = stun_server::Config::from_toml(text).expect("a configuration");
    let server = stun_server::Server::bind(config, &Registry::new()).expect("it starts");
    let (_, address) = server.local_addrs()[0];
    let mut command = load("stun", address);
    command.args(["--server-pid", &std::process::id().to_string()]);
    let told = json(&mut command);
    assert!(count(&told, "answers") > 0, "{told}");
    assert_eq!(count(&told, "wrong"), 0, "{told}");
    assert!(told["latency_us"]["p99"].is_u64(), "{told}");
    #[cfg(target_os = "linux")]
    assert!(told["server_cpu_us_per_answer"].is_f64(), "{told}");
    server.shutdown();
}

#[test]
#[cfg(target_os = "linux")]
fn a_missing_process_of_the_server_is_named() {
    let (server, address) = relay();
    let mut command = turn_command(address, "");
    command.args(["--server-pid", "4000000000"]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("CPU time of process 4000000000: "), "{said}");
    server.shutdown();
}

/// A relay without limits for loopback, one shard.
fn relay() -> (turn_relay::Server, SocketAddr) {
    let text = format!(
        r#"
        listen = ["udp://127.0.0.1:0"]
        relay-addresses = ["127.0.0.1"]
        threads = 1
        [[test-user]]
        name = "{USER}"
        password = "{PASSWORD}"
        [peers]
        allow-loopback-for-tests = true
        [quota]
        bandwidth-per-allocation = "unlimited"
        bandwidth-per-user = "unlimited"
        silent-peer-packets = "unlimited"
        [limits]
        exempt = ["127.0.0.1/32"]
        "#
    );
    let config = turn_relay::Config::from_toml(&text).expect("a configuration");
    let server = turn_relay::Server::bind(config, &Registry::new()).expect("it starts");
    let (_, address) = server.local_addrs()[0];
    (server, address)
}

fn load_turn(server: SocketAddr, options: &str) -> Value {
    json(&mut turn_command(server, options))
}

fn turn_command(server: SocketAddr, options: &str) -> Command {
    let mut command = load("turn", server);
    command
        .args(["--user", USER, "--peer-bind", "127.0.0.1"])
        .args(options.split_whitespace())
        .env("RALLYPOINT_LOAD_PASSWORD", PASSWORD);
    command
}

fn load(target: &str, server: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rallypoint"));
    command
        .args(["load", target, "--server", &server.to_string()])
        .args(["--seconds", "0.5", "--json"]);
    command
}

fn json(command: &mut Command) -> Value {
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn count(told: &Value, what: &str) -> u64 {
    told[what].as_u64().expect("a count of that name")
}
