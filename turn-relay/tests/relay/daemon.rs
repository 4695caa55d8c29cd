//! The `rallypoint-turn` process: its command line, its end, its metrics, and coturn's client.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, FromPeer, Peer};
use crate::harness::{PASSWORD, PATIENCE, USER, V4, eventually, so, value};

pub(crate) const ADMIN_TOKEN: &str = "5d0f7b8e2c914a63b7e05f1c8d2a9e47";
const BINARY: &str = env!("CARGO_BIN_EXE_rallypoint-turn");

#[test]
fn config_default_prints_a_file_that_names_every_section() {
    let output = run(&["config", "default"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for section in [
        "[credentials]",
        "[peers]",
        "[quota]",
        "[lifetime]",
        "[protocol]",
        "[admin]",
    ] {
        assert!(text.contains(section), "{section}");
    }
}

#[test]
fn version_is_printed() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn config_check_names_every_fault_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turn.toml");
    fs::write(
        &path,
        "realm = 7\nlisten = [\"udp://nowhere\"]\nrelay-adresses = []\n",
    )
    .unwrap();
    let output = run(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    for fault in [
        "realm",
        "listen[0]",
        "relay-adresses",
        "relay-addresses",
        "credentials",
    ] {
        assert!(text.contains(fault), "{fault} is missing in:\n{text}");
    }
    // The same faults keep it from starting.
    let output = run(&["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));

    fs::write(&path, config(2, 1, "", "")).unwrap();
    assert!(
        run(&["config", "check", path.to_str().unwrap()])
            .status
            .success()
    );
}

#[test]
fn a_missing_certificate_exits_78_and_names_key_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turn.toml");
    let tls = "[tls]\ncertificate = \"no-certificate.pem\"\nkey = \"no-key.pem\"\n";
    fs::write(&path, config(2, 1, "\"tls://127.0.0.1:0\"", tls)).unwrap();
    let output = run(&["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("tls.certificate") && text.contains("no-certificate.pem"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_ends_the_start_and_names_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turn.toml");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    fs::write(&path, config(2, addr.port(), "", "")).unwrap();
    let output = run(&["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&addr.to_string()) && text.contains("in use"),
        "{text}"
    );
}

#[test]
fn the_process_serves_reports_and_ends_on_sigterm() {
    let mut daemon = Daemon::start("");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[9; 12]].concat();
    client.send_to(&binding, daemon.turn).unwrap();
    let mut answer = [0; 100];
    let len = client.recv(&mut answer).unwrap();
    assert_eq!(
        (&answer[..2], len),
        (&[1, 1][..], 32),
        "a success of 32 bytes"
    );

    assert!(daemon.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    // Counts are copied when a round of the loop ends, which is after the answer.
    let requests = "rallypoint_turn_requests_total{method=\"binding\",transport=\"udp\"}";
    daemon.expect(requests, 1.0);
    let metrics = daemon.get("/metrics");
    for name in [
        "rallypoint_build_info{",
        "rallypoint_ready 1",
        "rallypoint_draining 0",
        "process_open_fds",
    ] {
        assert!(metrics.contains(name), "{name} is missing in:\n{metrics}");
    }
    check_with_promtool(&metrics);

    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0));
    let log = daemon.log();
    assert!(
        log.contains("test-user"),
        "the test user is not warned about:\n{log}"
    );
    assert!(log.contains("listening on udp://"), "{log}");
}

#[test]
fn descriptors_run_out_and_come_back_and_a_flow_never_notices() {
    let daemon = Daemon::start_with(
        1,
        "[quota]\nallocations-per-user = 100\n",
        "ulimit -n 60; exec \"$0\" \"$@\"",
    );
    let mut flow = Client::udp(daemon.turn);
    let peer = Peer::new(V4);
    let relayed = flow.allocate();
    flow.bind_channel(peer.addr(), 0x4000);
    let mut holders = Vec::new();
    let refusal = loop {
        let mut client = Client::udp(daemon.turn);
        match client.try_allocate().error {
            None => holders.push(client),
            Some(code) => break code,
        }
        assert!(holders.len() < 60, "60 descriptors do for 60 allocations");
    };
    assert_eq!(refusal, 508);
    // Connections wait in the system's queue meanwhile.
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::tcp(daemon.turn)).collect();
    for round in 0..100_u8 {
        flow.send_channel(0x4000, &[round; 40]);
        assert_eq!(peer.receive(), (relayed, vec![round; 40]));
        peer.send(relayed, &[round; 30]);
        assert_eq!(flow.receive(), FromPeer::Channel(0x4000, vec![round; 30]));
    }
    for client in holders.iter_mut().take(8) {
        assert_eq!(client.refresh(0).error, None);
    }
    for client in &mut waiting {
        assert_eq!(client.binding().error, None);
    }
    Client::udp(daemon.turn).allocate();
    let metrics = daemon.get("/metrics");
    let count = |sample| value(&metrics, sample).unwrap();
    assert!(count("rallypoint_turn_socket_errors_total{operation=\"accept\"}") > 0.0);
    assert!(count("rallypoint_turn_connections_refused_total{reason=\"resources\"}") > 0.0);
    assert!(count("rallypoint_turn_relay_sockets_total{outcome=\"failed\"}") > 0.0);
    let lines = daemon.log().lines().count();
    assert!(lines < 20, "{lines} lines of log");
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_system_drops_is_counted() {
    let daemon = Daemon::start("");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    daemon.signal("-STOP");
    // More than the longest queue that a system gives without being asked, and no garbage at first sight.
    for _ in 0..8000 {
        client.send_to(&[0x40; 1400], daemon.turn).unwrap();
    }
    daemon.signal("-CONT");
    let family = "rallypoint_udp_receive_queue_dropped_total";
    let sample = format!("{family}{{listener=\"udp://{}\"}}", daemon.turn);
    eventually(|| {
        let dropped = value(&daemon.get("/metrics"), &sample).unwrap();
        // The count comes with the next datagram that finds room.
        client.send_to(&[0x40; 100], daemon.turn).unwrap();
        so(dropped > 0.0, || {
            "nothing was dropped, or not counted".into()
        })
    });
}

#[test]
fn coturns_client_loses_nothing_over_udp_and_tcp() {
    let tools = ["turnutils_uclient", "turnutils_peer"];
    if let Some(missing) = tools.into_iter().find(|tool| !is_installed(tool)) {
        skip(&format!(
            "{missing} is not installed (Debian package coturn)"
        ));
        return;
    }
    let daemon = Daemon::start("[protocol]\nrfc5766-channels = true\n");
    let peer_port = free_port();
    let peer = Command::new("turnutils_peer")
        .args(["-L", "127.0.0.1", "-p", &peer_port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _peer = KillOnDrop(peer);
    for flags in [
        &["-m", "3"][..],
        &["-m", "3", "-s"],
        &["-t", "-m", "2"],
        &["-y", "-m", "2"],
    ] {
        let output = Command::new("turnutils_uclient")
            .args(["-u", USER, "-w", PASSWORD])
            .args(["-n", "30", "-l", "171", "-c"])
            .args(["-e", "127.0.0.1", "-r", &peer_port.to_string()])
            .args(["-p", &daemon.turn.port().to_string(), "-X"])
            .args(flags)
            .arg("127.0.0.1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let lost = text
            .lines()
            .rev()
            .find(|line| line.contains("Total lost packets"));
        let lost = lost.unwrap_or_else(|| panic!("{flags:?}: no result in:\n{text}"));
        assert!(
            lost.contains("Total lost packets 0 (0.000000%)"),
            "{flags:?}: {lost}\n{text}"
        );
    }
}

/// A running process; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) turn: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    folder: TempDir,
}

impl Daemon {
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(2, more, "exec \"$0\" \"$@\"")
    }

    /// Starts it by a line of shell.
    pub(crate) fn start_with(threads: usize, more: &str, shell: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (turn, admin) = (free_port(), free_port());
        let path = folder.path().join("turn.toml");
        write_secret(folder.path(), "admin-token", ADMIN_TOKEN);
        fs::write(&path, with_admin(threads, turn, admin, more)).unwrap();
        let log = folder.path().join("log");
        let child = Command::new("sh")
            .args(["-c", shell, BINARY, "--config"])
            .arg(&path)
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let on = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let daemon = Self {
            child,
            turn: on(turn),
            admin: on(admin),
            log,
            folder,
        };
        daemon.wait_until_ready();
        daemon
    }

    /// Its configuration file with other sections; what runs is told by nobody.
    pub(crate) fn rewrite(&self, more: &str) {
        let (turn, admin) = (self.turn.port(), self.admin.port());
        self.write_config(&with_admin(2, turn, admin, more));
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.folder.path().join("turn.toml"), text).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("turn.toml")).unwrap()
    }

    /// Puts a secret beside the configuration.
    pub(crate) fn write_secret(&self, name: &str, secret: &str) {
        write_secret(self.folder.path(), name, secret);
    }

    /// Waits until a sample of its metrics is `expected`.
    pub(crate) fn expect(&self, sample: &str, expected: f64) {
        eventually(|| {
            let found = value(&self.get("/metrics"), sample);
            so(found == Some(expected), || {
                format!("{sample} is {found:?}:\n{}", self.log())
            })
        });
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        value(&self.get("/metrics"), sample).unwrap_or_else(|| panic!("no sample {sample}"))
    }

    fn wait_until_ready(&self) {
        eventually(|| {
            let answer = self.try_get("/readyz");
            let is_ready = answer.is_some_and(|text| text.starts_with("HTTP/1.1 200"));
            so(is_ready, || format!("not ready:\n{}", self.log()))
        });
    }

    fn try_get(&self, page: &str) -> Option<String> {
        self.exchange("GET", page, "", "")
    }

    fn exchange(&self, method: &str, page: &str, headers: &str, body: &str) -> Option<String> {
        let mut socket = TcpStream::connect(self.admin).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        write!(
            socket,
            "{method} {page} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        )
        .ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Asks the admin API with this token: the status and the answer.
    pub(crate) fn api_as(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let header = format!("Authorization: Bearer {token}\r\n");
        let text = self.exchange(method, path, &header, body);
        let text = text.unwrap_or_else(|| panic!("{path}:\n{}", self.log()));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.api_as(ADMIN_TOKEN, method, path, body)
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.admin.port()
    }

    pub(crate) fn get(&self, page: &str) -> String {
        self.try_get(page)
            .unwrap_or_else(|| panic!("{page}:\n{}", self.log()))
    }

    fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually(|| {
            let status = self.child.try_wait().unwrap();
            status.ok_or_else(|| format!("it does not end:\n{}", self.log()))
        })
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([signal, &pid]).status();
        assert!(kill.unwrap().success());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A relay on loopback with so many shards; `listen` goes into the list beside UDP and TCP on `port`.
fn config(threads: usize, port: u16, listen: &str, more: &str) -> String {
    format!(
        r#"
listen = ["udp://127.0.0.1:{port}", "tcp://127.0.0.1:{port}", {listen}]
relay-addresses = ["127.0.0.1"]
threads = {threads}
[[test-user]]
name = "{USER}"
password = "{PASSWORD}"
[peers]
allow-loopback-for-tests = true
{more}"#
    )
}

/// The same with two shards or as many as asked for, and an admin listener.
fn with_admin(threads: usize, turn: u16, admin: u16, more: &str) -> String {
    let token = "token = { file = \"admin-token\" }";
    let more = format!("{more}[admin]\nlisten = \"127.0.0.1:{admin}\"\n{token}\n");
    config(threads, turn, "", &more)
}

fn write_secret(folder: &Path, name: &str, secret: &str) {
    let path = folder.join(name);
    fs::write(&path, secret).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A port that is free over UDP and TCP, of those that the system gives to nobody who asks for none (32768 and above).
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let random = RandomState::new().hash_one(0_u8) % 10_000;
        AtomicU16::new(20_000 + u16::try_from(random).unwrap_or(0))
    });
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let here = ("127.0.0.1", port);
        if TcpListener::bind(here).is_ok() && UdpSocket::bind(here).is_ok() {
            return port;
        }
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

pub(crate) fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| is_file(&folder.join(tool)))
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// Says that something is not tested; a failure where everything is asked for.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("RALLYPOINT_TEST_ALL").is_none(),
        "not tested: {reason}"
    );
    eprintln!("skipped: {reason}");
}

fn check_with_promtool(response: &str) {
    if !is_installed("promtool") {
        skip("promtool is not installed (Debian package prometheus)");
        return;
    }
    let (_, metrics) = response.split_once("\r\n\r\n").unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(dechunked(metrics).as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("rallypoint_turn"), "{text}");
}

/// A body without the lengths of chunked encoding, if it has them.
fn dechunked(body: &str) -> String {
    let is_length = |line: &str| {
        !line.is_empty() && line.len() <= 6 && line.chars().all(|c| c.is_ascii_hexdigit())
    };
    let lines = BufReader::new(body.as_bytes())
        .lines()
        .map_while(Result::ok);
    lines
        .filter(|line| !is_length(line))
        .map(|line| line + "\n")
        .collect()
}
