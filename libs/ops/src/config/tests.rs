//! What people write into configuration files, and what they are told.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

/// A configuration with one key of each shape.
#[derive(Debug, PartialEq)]
struct Example {
    listen: Vec<ListenUrl>,
    threads: usize,
    realm: String,
    idle: Duration,
    queue: Size,
    quota: Quota,
    relays: Vec<Relay>,
    external: Vec<(IpAddr, IpAddr)>,
    exempt: Vec<IpPrefix>,
}

#[derive(Debug, PartialEq)]
struct Quota {
    allocations_per_user: u32,
}

#[derive(Debug, PartialEq)]
struct Relay {
    region: String,
}

impl FromRaw for Example {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let schemes = [Scheme::Udp, Scheme::Tcp, Scheme::Tls];
        let example = Self {
            listen: section.listen_urls("listen", &schemes).unwrap_or_default(),
            threads: section.ranged("threads", 0, 0..=64),
            realm: section.required("realm").unwrap_or_default(),
            idle: section.value("idle", Duration::from_secs(30)),
            queue: section.value("queue", Size(65_536)),
            quota: section.section("quota")?,
            relays: section.tables("relay"),
            external: section.map("external-addresses").unwrap_or_default(),
            exempt: section.list("exempt").unwrap_or_default(),
        };
        if example.queue > Size(1 << 20) {
            section.problem("queue", "is more than a slow client is worth");
        }
        Some(example)
    }
}

impl FromRaw for Quota {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            allocations_per_user: section.value("allocations-per-user", 16),
        })
    }
}

impl FromRaw for Relay {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            region: section.required("region")?,
        })
    }
}

fn faults(text: &str) -> String {
    parse::<Example>(text).unwrap_err().to_string()
}

#[test]
fn a_right_file_becomes_its_value() {
    let example = parse::<Example>(
        r#"
        listen = ["udp://0.0.0.0:3478", "tls://[::]:5349"]
        threads = 2
        realm = "rallypoint"
        idle = "1m30s"
        queue = "64KiB"
        exempt = ["10.9.0.0/16", "::1"]
        external-addresses = { "10.0.0.5" = "203.0.113.10" }
        [quota]
        allocations-per-user = 4
        [[relay]]
        region = "eu"
        [[relay]]
        region = "us"
        "#,
    );
    let expected = Example {
        listen: vec![
            ListenUrl {
                scheme: Scheme::Udp,
                address: "0.0.0.0:3478".parse().unwrap(),
            },
            ListenUrl {
                scheme: Scheme::Tls,
                address: "[::]:5349".parse().unwrap(),
            },
        ],
        threads: 2,
        realm: "rallypoint".to_owned(),
        idle: Duration::from_secs(90),
        queue: Size(65_536),
        quota: Quota {
            allocations_per_user: 4,
        },
        relays: vec![
            Relay {
                region: "eu".to_owned(),
            },
            Relay {
                region: "us".to_owned(),
            },
        ],
        external: vec![("10.0.0.5".parse().unwrap(), "203.0.113.10".parse().unwrap())],
        exempt: vec![
            IpPrefix::new("10.9.0.0".parse().unwrap(), 16).unwrap(),
            IpPrefix::new("::1".parse().unwrap(), 128).unwrap(),
        ],
    };
    assert_eq!(example, Ok(expected));
}

#[test]
fn every_fault_is_named_at_once_with_its_line_and_key() {
    let text = r#"listen = ["udp://0.0.0.0:3478", "upd://0.0.0.0:3478", "tcp://stun.example:3478"]
threads = 65
idle = 30
queue = "2GiB"
exempt = ["10.9.0.1/16", "10.0.0.0/33"]
external-addresses = { "here" = "203.0.113.10" }
colour = 1
[quota]
alocations-per-user = 4
allocations_per_user = 4
[[relay]]
region = 7
[[relay]]
"#;
    let expected = "\
configuration:1: listen[1]: `upd://0.0.0.0:3478`: unknown scheme `upd`, expected udp, tcp or tls
configuration:1: listen[2]: `tcp://stun.example:3478`: `stun.example:3478` is no address and port; \
names are not looked up, IPv6 goes in [ ]
configuration:2: threads: 65 is out of range, expected 0 to 64
configuration:3: idle: expected a duration in quotes such as \"250ms\", \"10s\", \"5m\", \"1h\"
configuration:4: queue: is more than a slow client is worth
configuration:5: exempt[0]: `10.9.0.1/16`: has bits beyond its length; did you mean 10.9.0.0/16?
configuration:5: exempt[1]: `10.0.0.0/33`: a prefix is at most 32 bits long
configuration:6: external-addresses.\"here\": the key: `here`: expected an IP address such as \
\"203.0.113.10\"
configuration:7: colour: unknown key
configuration:9: quota.alocations-per-user: unknown key; did you mean `allocations-per-user`?
configuration:10: quota.allocations_per_user: unknown key; did you mean `allocations-per-user`?
configuration:12: relay[0].region: expected text in quotes
configuration: realm: missing, expected text in quotes
configuration: relay[1].region: missing, expected text in quotes";
    assert_eq!(faults(text), expected);
}

#[test]
fn several_syntax_errors_are_named_at_once_beside_other_faults() {
    let text = "realm = \nthreads = 2\nlisten = [ \"udp://0.0.0.0:1\"\nqueue == 3\n";
    let problems = parse::<Example>(text).unwrap_err();
    let lines: Vec<_> = problems.iter().filter_map(|problem| problem.line).collect();
    assert!(lines.contains(&1) && lines.contains(&4), "{problems}");
}

#[test]
fn only_a_likely_key_is_suggested() {
    let suggestion = |key: &str| faults(&format!("realm = 'x'\n{key} = 1"));
    assert!(suggestion("tread").ends_with("did you mean `threads`?"));
    assert!(suggestion("relm").ends_with("did you mean `realm`?"));
    assert!(suggestion("foo").ends_with("foo: unknown key"));
}

#[test]
fn a_listener_may_not_be_listed_twice() {
    let text = "realm = 'x'\nlisten = ['udp://[::]:1', 'tcp://[::]:1', 'udp://[::]:1']";
    assert_eq!(
        faults(text),
        "configuration:2: listen[2]: `udp://[::]:1`: listed twice"
    );
}

#[test]
fn a_file_is_named_in_its_faults_and_by_the_system_when_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turn.toml");
    std::fs::write(&path, "realm = 1").unwrap();
    let problems = load::<Example>(&path).unwrap_err().to_string();
    assert_eq!(
        problems,
        format!("{}:1: realm: expected text in quotes", path.display())
    );
    let problems = load::<Example>(&folder.path().join("absent.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        problems.contains("absent.toml: cannot be read: No such file"),
        "{problems}"
    );
}

#[test]
fn durations_and_sizes_need_their_unit() {
    let cases = [
        ("250ms", Some(Duration::from_millis(250))),
        ("10s", Some(Duration::from_secs(10))),
        ("1h30m", Some(Duration::from_secs(5_400))),
        ("2d", Some(Duration::from_secs(172_800))),
        ("0s", Some(Duration::ZERO)),
        ("", None),
        ("5", None),
        ("s", None),
        ("5 m", None),
        ("-5m", None),
        ("5m1", None),
        ("99999999999999999999s", None),
        ("18446744073709551615d", None),
    ];
    for (text, expected) in cases {
        assert_eq!(duration_from_text(text), expected, "{text}");
    }
    let size = |text: &str| Size::from_value(&Value::text_of(text)).ok();
    assert_eq!(size("64KiB"), Some(Size(65_536)));
    assert_eq!(size("512B"), Some(Size(512)));
    assert_eq!(
        size("1GiB").map(|size| size.to_string()),
        Some("1GiB".to_owned())
    );
    for wrong in [
        "",
        "64",
        "64KB",
        "KiB",
        "-1B",
        "1.5MiB",
        "18446744073709551615GiB",
    ] {
        assert_eq!(size(wrong), None, "{wrong}");
    }
}

#[test]
fn prefixes_hold_exactly_their_addresses() {
    let prefix = |text: &str| IpPrefix::from_value(&Value::text_of(text)).unwrap();
    let holds = |text: &str, address: &str| prefix(text).contains(address.parse().unwrap());
    assert!(holds("10.9.0.0/16", "10.9.255.255"));
    assert!(!holds("10.9.0.0/16", "10.10.0.0"));
    assert!(holds("0.0.0.0/0", "255.255.255.255"));
    assert!(!holds("0.0.0.0/0", "::1"));
    assert!(holds("::/0", "2001:db8::1"));
    assert!(holds("2001:db8::/33", "2001:db8:7fff::1"));
    assert!(!holds("2001:db8::/33", "2001:db8:8000::1"));
    assert!(holds("192.0.2.1", "192.0.2.1"));
    assert!(!holds("192.0.2.1", "192.0.2.2"));
    for wrong in [
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "10.0.0/8",
        "localhost",
    ] {
        assert!(
            IpPrefix::from_value(&Value::text_of(wrong)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn an_address_may_be_off() {
    let read = |text: &str| AddrOrOff::from_value(&Value::text_of(text)).ok();
    assert_eq!(read("off"), Some(AddrOrOff(None)));
    let address = "127.0.0.1:9478".parse().unwrap();
    assert_eq!(read("127.0.0.1:9478"), Some(AddrOrOff(Some(address))));
    assert_eq!(read("Off"), None);
}

#[test]
fn port_ranges_ascend_and_leave_out_port_0() {
    let range = |text: &str| PortRange::from_value(&Value::text_of(text)).ok();
    let all = range("49152-65535").unwrap();
    assert_eq!(
        (all.count(), all.contains(49_152), all.contains(49_151)),
        (16_384, true, false)
    );
    assert_eq!(range("5-5").map(PortRange::count), Some(1));
    for wrong in ["0-5", "6-5", "1-65536", "1", "-", "1-"] {
        assert_eq!(range(wrong), None, "{wrong}");
    }
}

#[cfg(unix)]
mod secrets {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    #[derive(Debug)]
    struct WithSecret(Secret);

    impl FromRaw for WithSecret {
        fn from_raw(section: &mut Section<'_>) -> Option<Self> {
            section.secret("file").map(Self)
        }
    }

    const GOOD: &str = "b1946ac92492d2347c6235b4d2611184";

    fn write(folder: &Path, name: &str, content: &str, mode: u32) {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    #[expect(
        clippy::unwrap_in_result,
        reason = "only the outcome of `load` is under test"
    )]
    fn read_from(folder: &Path, path: &str) -> Result<WithSecret, String> {
        let config = folder.join("x.toml");
        std::fs::write(&config, format!("file = '{path}'")).unwrap();
        load(&config).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_secret_is_read_beside_its_configuration_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "turn.secret", &format!("{GOOD}\n"), 0o600);
        let WithSecret(secret) = read_from(folder.path(), "turn.secret").unwrap();
        assert_eq!(secret.expose(), GOOD.as_bytes());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn weak_and_open_secrets_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            (GOOD, 0o644, "mode 0644 lets others at it"),
            (GOOD, 0o620, "mode 0620 lets others at it"),
            ("", 0o600, "has 0 bytes, at least 16"),
            ("fifteen bytes..", 0o600, "has 15 bytes"),
            ("changeme", 0o600, "is a sample value"),
            ("ChangeMeChangeMeChangeMe", 0o600, "is a sample value"),
            (
                "0123456789abcdef0123456789abcdef",
                0o600,
                "is a sample value",
            ),
            (
                "aaaaaaaaaaaaaaaaaaaaaaaa",
                0o600,
                "is one character repeated",
            ),
        ];
        for (content, mode, expected) in cases {
            write(folder.path(), "s", content, mode);
            let fault = read_from(folder.path(), "s").unwrap_err();
            assert!(fault.contains(expected), "{content}: {fault}");
            assert!(
                content.is_empty() || !fault.contains(content),
                "shown: {fault}"
            );
        }
        write(folder.path(), "s", &"long".repeat(2000), 0o600);
        assert!(
            read_from(folder.path(), "s")
                .unwrap_err()
                .contains("longer than 4096 bytes")
        );
        assert!(
            read_from(folder.path(), "absent")
                .unwrap_err()
                .contains("No such file")
        );
        assert!(
            read_from(folder.path(), ".")
                .unwrap_err()
                .contains("no regular file")
        );
    }

    struct FromEnvironment(Option<Secret>);

    impl FromRaw for FromEnvironment {
        fn from_raw(section: &mut Section<'_>) -> Option<Self> {
            Some(Self(section.secret_from_environment("RP_SECRET")))
        }
    }

    fn origin(folder: &Path, environment: fn(&str) -> Option<OsString>) -> Origin {
        Origin {
            name: "x".to_owned(),
            folder: folder.to_owned(),
            environment,
        }
    }

    #[test]
    fn the_environment_names_a_file_and_is_none_itself() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "s", GOOD, 0o600);
        let by_file = origin(folder.path(), |name| {
            (name == "RP_SECRET_FILE").then(|| "s".into())
        });
        let FromEnvironment(secret) = read("", by_file).unwrap();
        assert_eq!(secret.unwrap().expose(), GOOD.as_bytes());
        let inline = origin(folder.path(), |name| {
            (name == "RP_SECRET").then(|| GOOD.into())
        });
        let faults = read::<FromEnvironment>("", inline)
            .err()
            .unwrap()
            .to_string();
        let expected = "a secret in the environment itself is refused, set RP_SECRET_FILE";
        assert_eq!(faults, format!("x: $RP_SECRET: {expected}"));
    }

    #[test]
    fn systemd_credentials_are_found_where_systemd_says() {
        let folder = tempfile::tempdir().unwrap();
        let text = "file = '${CREDENTIALS_DIRECTORY}/turn'";
        let none = origin(folder.path(), |_| None);
        let faults = read::<WithSecret>(text, none).unwrap_err().to_string();
        assert!(
            faults.contains("CREDENTIALS_DIRECTORY is not set"),
            "{faults}"
        );
        // `/proc/self/cwd` is a folder every process has; it holds no file of this name.
        let set = origin(folder.path(), |_| Some("/proc/self/cwd".into()));
        let faults = read::<WithSecret>(text, set).unwrap_err().to_string();
        assert!(faults.contains("No such file"), "{faults}");
    }
}
