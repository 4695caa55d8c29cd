//! `rallypoint load hold` as a program, against our relay on loopback: are all allocations there, and is what is told true?

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use ops::metrics::Registry;
use serde_json::Value;
use turn_relay::{Config, NamedSecret, Secret, Server};

const SECRET: &str = "Yw5Tn8Qe3Rb7Lk1Zp6Vc0Xm4Hs9Jd2Ga";
const USER: &str = "load";
const PASSWORD: &str = "of the load test";

#[test]
fn allocations_of_many_users_and_addresses_are_held_probed_and_given_back() {
    let (server, address) = relay(|_| {});
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "{SECRET}").expect("written");
    let mut command = hold(address);
    command
        .args(["--allocations", "300", "--probe", "--secret"])
        .arg(file.path())
        .args(["--client-bind", "127.0.0.1", "--client-bind", "127.0.0.2"]);
    #[cfg(target_os = "linux")]
    command.args(["--server-pid", &std::process::id().to_string()]);
    let told = json(&mut command);
    assert_eq!(
        (count(&told, "held"), count(&told, "released")),
        (300, 300),
        "{told}"
    );
    assert_eq!(
        told["probe"],
        serde_json::json!({"up": 300, "down": 300}),
        "{told}"
    );
    #[cfg(target_os = "linux")]
    {
        let descriptors = |when| {
            told["server"][when]["descriptors"]
                .as_u64()
                .expect("a count")
        };
        // The other tests of this process have some too, now more and now fewer.
        assert!(descriptors("held") >= 300, "{told}");
        assert!(descriptors("released") < descriptors("held"), "{told}");
    }
    server.shutdown();
}

#[test]
fn what_is_held_for_longer_than_it_lives_is_renewed() {
    let (server, address) = relay(|config| {
        config.lifetime.permission = Duration::from_secs(1);
        config.lifetime.channel = Duration::from_secs(1);
    });
    let mut command = hold(address);
    command
        .args(["--allocations", "8", "--probe"])
        .args(["--user", USER, "--password", PASSWORD])
        .args(["--seconds", "2.5", "--refresh", "0.4"]);
    let told = json(&mut command);
    assert!(count(&told, "renewals") >= 3, "{told}");
    assert_eq!(count(&told, "expired"), 0, "{told}");
    assert_eq!(
        told["probe"],
        serde_json::json!({"up": 8, "down": 8}),
        "{told}"
    );
    server.shutdown();
}

#[test]
fn a_quota_shows_as_allocations_not_held() {
    let (server, address) = relay(|config| config.quota.allocations_per_user = 5);
    let mut command = hold(address);
    command
        .args(["--allocations", "20", "--window", "30"])
        .args(["--user", USER, "--password", PASSWORD]);
    let told = json(&mut command);
    assert_eq!(
        (count(&told, "held"), count(&told, "released")),
        (5, 5),
        "{told}"
    );
    let refusal = told["refusal"].as_str().expect("a refusal");
    assert!(refusal.contains("refused Allocate: 486"), "{told}");
    server.shutdown();
}

#[test]
fn a_wrong_password_or_secret_holds_nothing() {
    let (server, address) = relay(|_| {});
    let output = run(hold(address).args(["--user", USER, "--password", "another"]));
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the server refused Allocate: 401"), "{said}");

    let output = run(hold(address).args(["--secret", "/nowhere/secret"]));
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/secret: "), "{said}");
    server.shutdown();
}

/// A relay without limits for loopback, one shard.
fn relay(change: impl FnOnce(&mut Config)) -> (Server, SocketAddr) {
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
        allocations-per-user = 1000
        allocations-per-address = 1000
        [limits]
        exempt = ["127.0.0.0/8"]
        "#
    );
    let mut config = Config::from_toml(&text).expect("a configuration");
    config.secrets.push(NamedSecret {
        id: None,
        secret: Secret::new(SECRET.into()),
    });
    change(&mut config);
    let server = Server::bind(config, &Registry::new()).expect("it starts");
    let (_, address) = server.local_addrs()[0];
    (server, address)
}

fn hold(server: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rallypoint"));
    command
        .args(["load", "hold", "--json", "--peer-bind", "127.0.0.1"])
        .args(["--server", &server.to_string()])
        .env_remove("RALLYPOINT_LOAD_PASSWORD");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn json(command: &mut Command) -> Value {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn count(told: &Value, what: &str) -> u64 {
    told[what].as_u64().expect("a count of that name")
}
