use super::*;
use std::io::Write as _;

const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad0159f86d081";

#[test]
fn an_empty_file_is_the_defaults() {
    let config = Config::from_toml("").unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["http://0.0.0.0:8765", "http://[::]:8765"]);
    assert_eq!(config.admin, Some("127.0.0.1:9480".parse().unwrap()));
}

#[test]
fn the_example_of_deploy_is_the_defaults() {
    let config = Config::from_toml(DEFAULT_CONFIG).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn every_commented_line_of_the_example_is_a_setting_that_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(folder.path(), SECRET);
    // Settings are commented with `#` alone, words with `# `.
    let lines = DEFAULT_CONFIG
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            Some(_) | None => line,
        });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let text = text
        .replace("/etc/rallypoint/relay-secret", &secret)
        .replace("/etc/rallypoint/passphrase-key", &secret);
    let config = Config::from_toml(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.relays.len(), config.stun.len()), (1, 1));
    assert!(config.tls.is_some() && config.passphrase.secret.is_some());
}

#[test]
fn a_full_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(folder.path(), SECRET);
    let config = Config::from_toml(&format!(
        r#"
        listen = ["https://127.0.0.1:8443"]
        allowed-origins = ["https://game.example"]
        trusted-proxies = ["10.0.0.0/8"]
        credential-life = "1h"
        tls = {{ certificate = "cert.pem", key = "key.pem" }}
        passphrase = {{ key-file = "{secret}", format = "free", shortest = 8, longest = 20 }}
        doors = {{ tank = false }}
        admin = {{ listen = "off" }}
        limits = {{ connections = 5, exempt = ["10.9.0.0/16"], messages-per-second = 7, outbox = "32KiB" }}
        [[relay]]
        region = "eu"
        urls = ["turn:203.0.113.10:3478?transport=udp", "turns:turn.example:5349"]
        secret = {{ id = "k1", file = "{secret}" }}
        [[stun]]
        urls = ["stun:203.0.113.10:3478"]
        "#
    ))
    .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.relays[0].region, "eu");
    assert_eq!(config.relays[0].secret.id.as_deref(), Some("k1"));
    assert_eq!(config.relays[0].secret.key, SECRET.as_bytes());
    assert_eq!(config.stun[0].urls, ["stun:203.0.113.10:3478"]);
    assert_eq!((config.doors.tank, config.admin), (false, None));
    let lobby = config.lobby();
    assert_eq!((lobby.connections, lobby.message_rate.sustained()), (5, 7));
    assert_eq!(
        lobby.passphrase,
        PassphraseFormat {
            words: false,
            shortest: 8,
            longest: 20
        }
    );
    assert_eq!(
        (lobby.exempt.len(), config.limits.outbox_bytes),
        (1, 32 * 1024)
    );
    assert!(
        !format!("{config:?}").contains(SECRET),
        "secrets do not print"
    );
}

#[test]
fn every_fault_is_named_with_its_key() {
    let problems = Config::from_toml(
        r#"
        listen = ["https://127.0.0.1:8443", "udp://127.0.0.1:1"]
        listne = 1
        allowed-origins = ["game.example"]
        credential-life = "1s"
        passphrase = { shortest = 9, longest = 5, format = "poem" }
        limits = { connections = 0, ping-interval = "1ms", outbox = "1KiB", lobby-members = 1 }
        [[relay]]
        region = "E U"
        urls = ["stun:203.0.113.10"]
        [[relay]]
        urls = ["turn:203.0.113.10"]
        secret = { file = "/nonexistent/secret" }
        [[stun]]
        urls = []
        "#,
    )
    .unwrap_err();
    let mut keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "allowed-origins",
            "credential-life",
            "limits.connections",
            "limits.lobby-members",
            "limits.outbox",
            "limits.ping-interval",
            "listen",
            "listen[1]",
            "listne",
            "passphrase.format",
            "passphrase.shortest",
            "relay[0].region",
            "relay[0].secret",
            "relay[0].urls",
            "relay[1].secret.file",
            "stun[0].urls",
        ],
        "{problems}"
    );
}

#[test]
fn a_sample_secret_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(folder.path(), "please-changeme-now-please");
    let text =
        format!("[[relay]]\nurls = [\"turn:203.0.113.10\"]\nsecret = {{ file = \"{secret}\" }}\n");
    let problems = Config::from_toml(&text).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(keys, ["relay[0].secret.file"], "{problems}");
}

#[test]
fn plain_http_is_public_unless_the_address_says_otherwise() {
    let public = |listen: &str| {
        let config = Config::from_toml(&format!("listen = [\"http://{listen}:8765\"]")).unwrap();
        config.plain_public_listeners().count() == 1
    };
    for open in ["0.0.0.0", "[::]", "203.0.113.10", "[2001:db8::1]"] {
        assert!(public(open), "{open}");
    }
    for closed in ["127.0.0.1", "[::1]", "10.0.0.1", "192.168.1.2", "[fd00::1]"] {
        assert!(!public(closed), "{closed}");
    }
}

fn secret_file(folder: &std::path::Path, content: &str) -> String {
    let path = folder.join("secret");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .unwrap();
    }
    path.display().to_string()
}
