//! The `rallypoint-stun` process: its command line, its start and its end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_faulty_file_ends_in_78_with_every_fault_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        &folder,
        "listen = ['upd://0.0.0.0:3478']\nthread = 1\n[limits]\nburst = 0\n",
    );
    for arguments in [vec!["config", "check"], vec!["--config"]] {
        let output = run(&arguments, Some(&file));
        assert_eq!(output.status.code(), Some(78));
        let said = String::from_utf8(output.stderr).unwrap();
        let name = file.display();
        let expected = [
            format!("{name}:1: listen[0]: `upd://0.0.0.0:3478`: unknown scheme `upd`"),
            format!("{name}:2: thread: unknown key; did you mean `threads`?"),
            format!("{name}:4: limits.burst: 0 is out of range"),
        ];
        for line in expected {
            assert!(said.contains(&line), "{line}\nis not in\n{said}");
        }
    }
}

#[test]
fn a_right_file_has_no_faults_and_the_default_is_one() {
    let output = run(&["config", "default"], None);
    assert!(output.status.success());
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, &String::from_utf8(output.stdout).unwrap());
    let output = run(&["config", "check"], Some(&file));
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("no faults")
    );
}

#[test]
fn the_version_is_told_and_other_words_are_refused() {
    let output = run(&["--version"], None);
    assert!(output.status.success());
    let version = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        version,
        format!("rallypoint-stun {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["walk"], None).status.code(), Some(2));
    assert_eq!(run(&["config"], None).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn it_gets_ready_tells_systemd_serves_and_ends_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let notify = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = Daemon::start(&folder);
    let mut told = [0; 100];
    let length = notify.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1\n");

    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction!";
    client.send_to(request, daemon.udp).unwrap();
    let mut reply = [0; 100];
    assert_eq!(client.recv(&mut reply).unwrap(), 32);
    let metrics = daemon.get("/metrics");
    for line in [
        r#"rallypoint_stun_requests_total{family="ipv4",method="binding",transport="udp"} 1"#,
        r#"rallypoint_log_messages_total{level="error"} 0"#,
        "rallypoint_ready 1",
        "process_open_fds",
    ] {
        assert!(metrics.contains(line), "{line}\nis not in\n{metrics}");
    }

    let kill = format!("kill -TERM {}", daemon.process.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let length = notify.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"STOPPING=1\n");
    assert_eq!(daemon.process.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn sighup_reads_the_certificate_again_and_ends_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let tls = format!(
        "[tls]\ncertificate = '{}'\nkey = '{}'\n",
        certificate.display(),
        key.display()
    );
    let daemon = Daemon::start_with(&folder, &tls);
    let served =
        |times| format!("rallypoint_tls_certificate_reloads_total{{outcome=\"served\"}} {times}\n");
    assert!(daemon.get("/metrics").contains(&served(0)));
    // The files have not changed, so it is the signal alone that has them read.
    let hangup = format!("kill -HUP {}", daemon.process.id());
    let sent = Command::new("sh").args(["-c", &hangup]).status().unwrap();
    assert!(sent.success());
    let mut waited = Duration::ZERO;
    while !daemon.get("/metrics").contains(&served(1)) {
        assert!(waited < PATIENCE, "{}", daemon.get("/metrics"));
        std::thread::sleep(Duration::from_millis(20));
        waited += Duration::from_millis(20);
    }
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_changed_file_is_in_force_without_a_restart_and_a_faulty_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder);
    let rewrite = |more: &str| {
        let text = format!(
            "listen = ['udp://127.0.0.1:0']\n[admin]\nlisten = '127.0.0.1:0'\n\
             [log]\nformat = 'json'\n{more}"
        );
        write(&folder, &text);
    };
    let until = |line: &str| {
        let mut waited = Duration::ZERO;
        while !daemon.get("/metrics").contains(line) {
            assert!(waited < PATIENCE, "{}", daemon.get("/metrics"));
            std::thread::sleep(Duration::from_millis(20));
            waited += Duration::from_millis(20);
        }
    };
    rewrite("[limits]\nburst = 0\n");
    until("\nrallypoint_config_last_reload_successful 0\n");
    rewrite("[limits]\nburst = 1\nanswers-per-second = 1\n");
    until("\nrallypoint_config_last_reload_successful 1\n");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction!";
    for _ in 0..20 {
        client.send_to(request, daemon.udp).unwrap();
    }
    until("rallypoint_rate_limited_total{limiter=\"source\"} 1");
}

#[test]
fn a_port_in_use_ends_the_start_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("listen = ['udp://{address}']\n[admin]\nlisten = '127.0.0.1:0'\n");
    let output = run(&["--config"], Some(&write(&folder, &text)));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("cannot listen on udp://{address}")),
        "{said}"
    );
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rallypoint-stun"))
}

fn run(arguments: &[&str], file: Option<&Path>) -> Output {
    program().args(arguments).args(file).output().unwrap()
}

fn write(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("stun.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A process that is ended with the test.
struct Daemon {
    process: Child,
    udp: SocketAddr,
    admin: SocketAddr,
}

impl Daemon {
    /// Starts it on ports of the system's choice, which its log tells.
    fn start(folder: &TempDir) -> Self {
        Self::start_with(folder, "")
    }

    fn start_with(folder: &TempDir, more: &str) -> Self {
        let text = format!(
            "listen = ['udp://127.0.0.1:0']\n[admin]\nlisten = '127.0.0.1:0'\n\
             [log]\nformat = 'json'\n{more}"
        );
        let mut process = program()
            .arg("--config")
            .arg(write(folder, &text))
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut address_in = |message: &str| {
            let line = lines.next().expect("the daemon ended").unwrap();
            assert!(line.contains(message), "{line}");
            let (_, rest) = line.split_once(r#""address":""#).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let (udp, admin) = (address_in("listening"), address_in("metrics and health"));
        // Its later lines must not meet a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            udp,
            admin,
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
