use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// What a file must say for the rest of it to be judged alone.
const MINIMUM: &str = r#"
relay-addresses = ["203.0.113.10"]
[[test-user]]
name = "tester"
password = "secret"
"#;

#[test]
fn the_example_is_complete_and_right() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "turn-secret", SECRET);
    write_secret(folder.path(), "admin-token", SECRET);
    // The variable is systemd's; without it the secret is beside the file.
    let text = EXAMPLE.replace("${CREDENTIALS_DIRECTORY}/", "");
    let path = folder.path().join("turn.toml");
    fs::write(&path, &text).unwrap();
    let config: Config = ops::config::load(&path).unwrap();
    assert_eq!(config.secrets.len(), 1);
    assert_eq!(config.secrets[0].id.as_deref(), Some("k1"));
    assert_eq!(config.listen, Config::default().listen);

    // Every key that the example shows behind `#` is one the reader knows, with its default.
    let shown: Vec<&str> = text.lines().filter_map(commented_key).collect();
    assert!(shown.len() > 35, "{shown:?}");
    let all: String = text.lines().map(|line| uncommented(line) + "\n").collect();
    let all = all
        .replace("[tls]", "")
        .replace("certificate =", "#")
        .replace("key =", "#");
    let listed = "{ \"10.0.0.5\" = \"203.0.113.10\" }";
    let all = all.replace(listed, "\"auto\"");
    fs::write(&path, all).unwrap();
    let spelt_out: Config = ops::config::load(&path).unwrap();
    assert_eq!(spelt_out.quota, config.quota);
    assert_eq!(spelt_out.lifetime, config.lifetime);
    assert_eq!(spelt_out.limits, config.limits);
    assert_eq!(spelt_out.streams, config.streams);
    assert_eq!(spelt_out.protocol, config.protocol);
    assert_eq!(spelt_out.peers, config.peers);
    assert_eq!(spelt_out.drain.deadline, config.drain.deadline);
    assert_eq!(spelt_out.admin, config.admin);
    assert_eq!(spelt_out.admin_token.unwrap().expose(), SECRET.as_bytes());
    assert_eq!(config.admin_token, None);
    assert_eq!(spelt_out.log, config.log);
    assert_eq!(spelt_out.relay_ports, config.relay_ports);
    assert_eq!(spelt_out.realm, config.realm);
}

/// `key` of a line `# key = value`.
fn commented_key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ")?.split_once(" = ")?;
    key.chars()
        .all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit())
        .then_some(key)
}

fn uncommented(line: &str) -> String {
    let is_table = line.starts_with("# [");
    let line = if commented_key(line).is_some() || is_table {
        &line[2..]
    } else {
        line
    };
    line.to_owned()
}

#[test]
fn every_fault_is_named_at_once() {
    let text = r#"
realm = "a-realm-that-is-too-long"
listen = ["upd://0.0.0.0:3478", "tls://0.0.0.0:5349"]
relay-ports = "65535-49152"
relay-address = ["203.0.113.10"]
external-addresses = { "10.0.0.5" = "203.0.113.10" }
threads = 1000
io-uring = "yes"
spare-sockets = 5000
connected-sockets = -1
[peers]
allow = ["10.9.0.1/16"]
min-port = 0
[quota]
allocations-per-user = 0
bandwidth-per-allocation = "lots"
[lifetime]
permission = "5 minutes"
[protocol]
tcp-relaying = "on"
[drain]
deadline = "25h"
alternate = "0.0.0.0:3478"
[log]
format = "xml"
"#;
    let problems = Config::from_toml(text).unwrap_err();
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    let mut expected = vec![
        "realm",
        "listen[0]",
        "relay-ports",
        "relay-address",
        "external-addresses",
        "threads",
        "io-uring",
        "spare-sockets",
        "connected-sockets",
        "peers.allow[0]",
        "peers.min-port",
        "quota.allocations-per-user",
        "quota.bandwidth-per-allocation",
        "lifetime.permission",
        "protocol.tcp-relaying",
        "drain.deadline",
        "drain.alternate",
        "log.format",
        "tls",
        "credentials",
        "relay-addresses",
    ];
    expected.sort_unstable();
    let mut found = keys.clone();
    found.sort_unstable();
    assert_eq!(found, expected, "{problems}");
    let text = problems.to_string();
    assert!(text.contains("did you mean `relay-addresses`?"), "{text}");
}

#[test]
fn the_minimum_takes_all_defaults() {
    let config = Config::from_toml(MINIMUM).unwrap();
    assert_eq!(config.realm.as_str(), "rallypoint");
    assert_eq!(config.quota, Quota::default());
    assert_eq!(config.test_users[0].name, "tester");
    assert!(config.protocol.sha1_integrity && !config.protocol.rfc5766_channels);
    assert_eq!(config.admin, Some("127.0.0.1:9479".parse().unwrap()));
}

#[test]
fn no_credential_at_all_is_refused() {
    let problems = Config::from_toml("relay-addresses = [\"203.0.113.10\"]").unwrap_err();
    assert_eq!(problems.len(), 1, "{problems}");
    assert!(
        problems.to_string().contains("nobody could be let in"),
        "{problems}"
    );
}

#[test]
fn weak_secrets_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (secret, fault) in [
        ("short", "16"),
        ("changemechangemechangeme", "sample"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeated"),
        ("your-secret-goes-here-please-replace", "placeholder"),
    ] {
        write_secret(folder.path(), "secret", secret);
        let problems = load(folder.path(), "secrets = [{ file = \"secret\" }]").unwrap_err();
        assert_eq!(
            problems.iter().next().unwrap().key,
            "credentials.secrets[0].file"
        );
        let text = problems.to_string();
        assert!(
            text.contains(fault) || text.contains("sample"),
            "{secret}: {text}"
        );
        assert!(!text.contains(secret), "the secret itself is shown: {text}");
    }
    let missing = load(
        folder.path(),
        "secrets = [{ id = \"a:b\", file = \"none\" }]",
    )
    .unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
}

#[test]
fn two_secrets_with_one_id_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "a", SECRET);
    let twice = "secrets = [{ id = \"k\", file = \"a\" }, { id = \"k\", file = \"a\" }]";
    let problems = load(folder.path(), twice).unwrap_err();
    assert!(problems.to_string().contains("same id"), "{problems}");
}

#[test]
fn loopback_peers_demand_loopback_listeners() {
    let text = format!(
        "listen = [\"udp://0.0.0.0:3478\"]\n{MINIMUM}[peers]\nallow-loopback-for-tests = true"
    );
    let problems = Config::from_toml(&text).unwrap_err();
    assert_eq!(problems.iter().next().unwrap().key, "peers");
    let text = text.replace("0.0.0.0", "127.0.0.1");
    assert!(
        Config::from_toml(&text)
            .unwrap()
            .peers
            .allow_loopback_for_tests
    );
}

#[test]
fn a_missing_certificate_names_key_and_file() {
    let text = format!(
        "listen = [\"tls://0.0.0.0:5349\"]\n{MINIMUM}[tls]\ncertificate = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\""
    );
    let problems = Config::from_toml(&text).unwrap_err().to_string();
    assert!(
        problems.contains("tls.certificate") && problems.contains("/nowhere/c.pem"),
        "{problems}"
    );
}

#[test]
fn unlimited_has_to_be_said() {
    let text = format!(
        "{MINIMUM}[quota]\nbandwidth-per-allocation = \"unlimited\"\nsilent-peer-packets = \"unlimited\""
    );
    let quota = Config::from_toml(&text).unwrap().quota;
    assert_eq!(
        (quota.bandwidth_per_allocation, quota.silent_peer_packets),
        (None, None)
    );
    assert!(quota.bandwidth_per_user.is_some());
}

const SECRET: &str = "9b1f0c4d6a7e8f90aa51c3d2b4e5f607";

fn write_secret(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn load(folder: &Path, credentials: &str) -> Result<Config, Problems> {
    ops::config::load(&write(folder, credentials))
}

fn write(folder: &Path, credentials: &str) -> PathBuf {
    let path = folder.join("turn.toml");
    let text = format!("relay-addresses = [\"203.0.113.10\"]\n[credentials]\n{credentials}");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_example_of_a_balancer_in_the_deploy_guide_is_right() {
    let guide = include_str!("../../../deploy/README.md");
    let heading = "```toml\n# rallypoint-turn behind a balancer\n";
    let (_, block) = guide.split_once(heading).unwrap();
    let (text, _) = block.split_once("```").unwrap();
    // The certificate and the credentials are "as above" there.
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["turn.example".to_owned()]).unwrap();
    fs::write(folder.path().join("certificate.pem"), made.cert.pem()).unwrap();
    write_secret(folder.path(), "key.pem", &made.signing_key.serialize_pem());
    write_secret(folder.path(), "turn-secret", SECRET);
    let above = "[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'\n\
                 [credentials]\nsecrets = [{ id = 'k1', file = 'turn-secret' }]\n";
    let path = folder.path().join("turn.toml");
    fs::write(&path, format!("{text}{above}")).unwrap();
    let config: Config = ops::config::load(&path).unwrap();
    assert!(config.proxy.covers(&config.listen[2]));
    assert!(config.proxy.trusts("10.0.0.2".parse().unwrap()));
    assert!(!config.proxy.trusts("10.0.0.3".parse().unwrap()));
}

#[test]
fn faults_of_proxies_and_mixed_listeners_are_named() {
    let fault = |more: &str| {
        let text = format!("{more}\n{MINIMUM}");
        Config::from_toml(&text).unwrap_err().to_string()
    };
    let said = fault("listen = ['tcp+tls://0.0.0.0:443']");
    assert!(
        said.contains("tls: missing: a tls:// or tcp+tls://"),
        "{said}"
    );
    let tcp = "listen = ['tcp://0.0.0.0:1', 'udp://0.0.0.0:1']\n";
    let said = fault(&format!(
        "{tcp}proxy = {{ listeners = ['tcp://0.0.0.0:1'] }}"
    ));
    assert!(said.contains("proxy: trusted: missing"), "{said}");
    let said = fault(&format!("{tcp}proxy = {{ trusted = ['10.0.0.1'] }}"));
    assert!(said.contains("proxy: listeners: missing"), "{said}");
    let elsewhere = "listeners = ['tcp://0.0.0.0:2', 'udp://0.0.0.0:1']";
    let said = fault(&format!(
        "{tcp}proxy = {{ {elsewhere}, trusted = ['10.0.0.1'] }}"
    ));
    assert!(
        said.contains("`tcp://0.0.0.0:2` is not in `listen`"),
        "{said}"
    );
    assert!(said.contains("unknown scheme `udp`"), "{said}");
}

#[test]
fn finding_out_the_external_address_needs_two_servers() {
    let with = |more: &str| Config::from_toml(&format!("external-addresses = {more}\n{MINIMUM}"));
    let right = with("\"auto\"\nexternal.stun = [\"stun.example.org\", \"203.0.113.9:5000\"]");
    let ExternalAddresses::Auto(discovery) = right.unwrap().external_addresses else {
        panic!("it is \"auto\"")
    };
    let servers: Vec<String> = discovery.stun.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["stun.example.org:3478", "203.0.113.9:5000"]);
    assert_eq!((discovery.ipv6, discovery.recheck.as_secs()), (false, 300));

    for (more, keys) in [
        ("\"auto\"", &["external.stun"][..]),
        (
            "\"auto\"\nexternal.stun = [\"a.example\"]",
            &["external.stun"],
        ),
        (
            "\"auto\"\nexternal.stun = [\"a.example\", \"a.example\"]",
            &["external.stun"],
        ),
        (
            "\"auto\"\nexternal.stun = [\"a.example\", \"stun://b\"]\nexternal.recheck = \"0s\"",
            &["external.recheck", "external.stun", "external.stun[1]"],
        ),
        ("\"automatic\"", &["external-addresses"]),
        (
            "{}\nexternal.stun = [\"a.example\", \"b.example\"]",
            &["external"],
        ),
    ] {
        let problems = with(more).unwrap_err();
        let mut found: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
        found.sort_unstable();
        assert_eq!(found, keys, "{more}: {problems}");
    }
}

#[test]
fn the_admin_token_is_a_secret_that_a_header_can_carry() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "good", SECRET);
    write_secret(folder.path(), "spaced", "9b1f0c4d6a7e8f90 aa51c3d2b4e5f607");
    write_secret(folder.path(), "short", "9b1f");
    let admin = |text: &str| {
        let path = folder.path().join("turn.toml");
        fs::write(&path, format!("{MINIMUM}[admin]\n{text}\n")).unwrap();
        ops::config::load::<Config>(&path)
    };
    let config = admin("token = { file = 'good' }").unwrap();
    assert_eq!(config.admin_token.unwrap().expose(), SECRET.as_bytes());
    assert_eq!(admin("").unwrap().admin_token, None, "there is no default");
    for (text, keys) in [
        ("token = { file = 'spaced' }", &["admin.token"][..]),
        ("token = { file = 'short' }", &["admin.token.file"]),
        ("token = { file = 'missing' }", &["admin.token.file"]),
        ("token = {}", &["admin.token.file"]),
        ("token = 'good'", &["admin.token"]),
        (
            "token = { value = 'x' }",
            &["admin.token.value", "admin.token.file"],
        ),
        ("listen = 'everywhere'", &["admin.listen"]),
    ] {
        let problems = admin(text).unwrap_err();
        let found: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
        assert_eq!(found, keys, "{text}: {problems}");
    }
}
