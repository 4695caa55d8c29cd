//! What goes wrong outside: each fault gets a clear error or a counted drop, and nothing else is disturbed.
//!
//! Loopback only, no root. The strangers speak from 127.0.0.66, so that what they waste is their own allowance.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::config::Config;
use e2e::daemon::Daemon;
use e2e::local::{Local, free_port};
use e2e::netns::Machine;
use e2e::player::Player;
use e2e::processes::Process;
use e2e::wait::PATIENCE;

/// The exit status of a configuration fault: EX_CONFIG of sysexits.h.
const EX_CONFIG: i32 = 78;
/// What a daemon may grow by under any amount of garbage.
const GROWTH: f64 = (16 << 20) as f64;
/// Two players long enough in the room to be disturbed.
const BUSY: [&str; 6] = ["--count", "400", "--hz", "100", "--timeout", "60"];

#[test]
fn garbage_at_every_daemon_disturbs_no_session() -> Result<()> {
    let local = Local::start()?;
    let daemons = [&*local.stun, &*local.turn, &*local.signal];
    let (anna, ben) = pair(&local, "garbage", &[&BUSY[..], &["--relay-only"]].concat())?;
    anna.connected()?;
    ben.connected()?;
    let memory = |daemon: &Daemon| daemon.metric("process_resident_memory_bytes", &[]);
    let before = daemons.map(memory);

    for server in [local.stun.address(), local.turn.address()] {
        throw_datagrams(server)?;
        throw_streams(server)?;
    }
    throw_streams(local.signal.address())?;
    throw_requests(local.signal.address())?;
    for daemon in daemons {
        throw_streams(daemon.admin())?;
    }

    for player in [&anna, &ben] {
        let done = player.done()?;
        ensure!(
            done.received * 10 >= done.sent * 9,
            "{done:?}\n{}",
            player.process().report()
        );
    }
    for (daemon, before) in daemons.iter().zip(before) {
        ensure!(daemon.process().running()?, "{}", daemon.process().report());
        let (before, after) = (before?, memory(daemon)?);
        ensure!(
            after - before < GROWTH,
            "grew from {before} to {after}\n{}",
            daemon.process().report()
        );
        quiet(daemon)?;
    }
    local
        .stun
        .metric_reaches("rallypoint_stun_discarded_packets_total", &[], 100.0)?;
    local
        .turn
        .metric_reaches("rallypoint_turn_dropped_packets_total", &[], 100.0)?;
    // Whoever comes next is served.
    let (anna, ben) = pair(&local, "after-garbage", &["--count", "20"])?;
    anna.done()?;
    ben.done()?;
    Ok(())
}

#[test]
fn a_port_in_use_is_named_and_its_owner_undisturbed() -> Result<()> {
    let local = Local::start()?;
    let owners = [
        (&*local.stun, local.stun.address()),
        (&*local.turn, local.turn.address()),
        (&*local.signal, local.signal.address()),
    ];
    for (owner, address) in owners {
        // The same listeners, another admin port; then the other way round.
        let admin = format!("admin.listen = \"{}\"", free_port()?);
        let second = Config::text(&std::fs::read_to_string(owner.config())?)?;
        let said = refuses_to_start(owner, &second.clone().with(&admin)?, &local)?;
        ensure!(
            said.contains(&address.to_string()),
            "{address} is not named: {said}"
        );

        let other = free_port()?;
        let listen = second.with(&format!("listen = [\"{}://{other}\"]", scheme(owner)))?;
        let said = refuses_to_start(owner, &listen, &local)?;
        ensure!(
            said.contains(&owner.admin().to_string()),
            "{} is not named: {said}",
            owner.admin()
        );

        ensure!(owner.process().running()?, "the owner of the port ended");
        owner.metrics()?;
    }
    let (anna, ben) = pair(&local, "port-in-use", &["--count", "20"])?;
    anna.done()?;
    ben.done()?;
    Ok(())
}

#[test]
fn every_fault_of_a_configuration_is_named_at_once() -> Result<()> {
    let local = Local::start()?;
    for daemon in [&*local.stun, &*local.turn, &*local.signal] {
        let faulty = Config::text(&std::fs::read_to_string(daemon.config())?)?.with(
            "lisen = [\"udp://127.0.0.1:1\"]
admin.lissten = \"127.0.0.1:2\"
log.level = \"deafening\"",
        )?;
        let file = faulty.write(local.directory(), "faulty")?;
        let check = Command::new(daemon.program())
            .args(["config", "check"])
            .arg(&file)
            .output()?;
        let started = Command::new(daemon.program())
            .arg("--config")
            .arg(&file)
            .output()?;
        for output in [check, started] {
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            ensure!(
                output.status.code() == Some(EX_CONFIG),
                "{}: {said}",
                output.status
            );
            for key in ["lisen", "admin.lissten", "log.level"] {
                ensure!(said.contains(key), "`{key}` is not named: {said}");
            }
        }
        let good = Command::new(daemon.program())
            .args(["config", "check"])
            .arg(daemon.config())
            .output()?;
        ensure!(
            good.status.success(),
            "the daemon's own configuration: {good:?}"
        );
    }
    Ok(())
}

#[test]
fn a_missing_certificate_is_named() -> Result<()> {
    let local = Local::start()?;
    for (daemon, scheme) in [(&*local.turn, "tls"), (&*local.signal, "https")] {
        let missing = local.directory().join("no-such-certificate.pem");
        let config = Config::text(&std::fs::read_to_string(daemon.config())?)?.with(&format!(
            "listen = [\"{scheme}://{}\"]
admin.listen = \"{}\"
tls.certificate = \"{}\"
tls.key = \"{}\"",
            free_port()?,
            free_port()?,
            missing.display(),
            missing.display()
        ))?;
        let said = refuses_to_start(daemon, &config, &local)?;
        ensure!(
            said.contains("no-such-certificate.pem"),
            "the file is not named: {said}"
        );
    }
    Ok(())
}

#[test]
fn a_second_player_of_the_same_name_is_refused() -> Result<()> {
    let local = Local::start()?;
    let anna = local.player("same-name", &["--name", "anna", "--count", "20"])?;
    anna.event("joined")?;

    let double = local.player("same-name", &["--name", "anna", "--count", "20"])?;
    let said = double.fails()?;
    ensure!(said.contains("anna") || said.contains("name"), "{said}");

    // The first is still there and connects to somebody else.
    let ben = local.player("same-name", &["--name", "ben", "--count", "20"])?;
    anna.done()?;
    ben.done()?;
    Ok(())
}

#[test]
fn a_third_player_in_a_room_for_two_is_refused() -> Result<()> {
    let local = Local::start()?;
    let (anna, ben) = pair(&local, "room-for-two", &BUSY)?;
    anna.connected()?;
    ben.connected()?;

    let third = local.player("room-for-two", &["--name", "carl"])?;
    let said = third.fails()?;
    ensure!(said.contains("full") || said.contains("as many"), "{said}");

    anna.done()?;
    ben.done()?;
    Ok(())
}

#[test]
fn a_passphrase_of_the_wrong_form_is_refused_in_words() -> Result<()> {
    let local = Local::start()?;
    for wrong in ["", "   ", "tab\there", &"long".repeat(200)] {
        let said = local.player(wrong, &["--name", "anna"])?.fails()?;
        ensure!(said.contains("passphrase"), "{wrong:?}: {said}");
    }
    Ok(())
}

#[test]
fn signaling_that_goes_away_while_a_player_waits_is_named() -> Result<()> {
    let mut local = Local::start()?;
    let waiting = local.player("interrupted", &["--name", "anna", "--timeout", "10"])?;
    waiting.event("joined")?;
    local.signal.process().kill()?;

    let said = waiting.fails()?;
    ensure!(
        said.contains(&local.signal.address().to_string()),
        "the server is not named: {said}"
    );

    local.signal.restart()?;
    let (anna, ben) = pair(&local, "interrupted", &["--count", "20"])?;
    anna.done()?;
    ben.done()?;
    Ok(())
}

/// The handshake is answered by nothing but the end of the connection: the join breaks in the middle.
#[test]
fn signaling_that_hangs_up_in_mid_join_is_named() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 1024];
            let _whatever_it_said = stream.read(&mut request);
            let _hung_up = stream.shutdown(Shutdown::Both);
        }
    });
    let url = format!("ws://{address}/v1/ws");
    let player = Player::start(&Machine::here(), &url, "mid-join", &["--timeout", "5"])?;
    let said = player.fails()?;
    ensure!(
        said.contains(&address.to_string()),
        "the server is not named: {said}"
    );
    Ok(())
}

#[test]
fn a_running_session_outlives_signaling() -> Result<()> {
    let local = Local::start()?;
    let (anna, ben) = pair(&local, "outlives", &BUSY)?;
    anna.connected()?;
    ben.connected()?;
    local.signal.process().kill()?;
    for player in [&anna, &ben] {
        let done = player.done()?;
        ensure!(
            done.received * 10 >= done.sent * 9,
            "{done:?}\n{}",
            player.process().report()
        );
    }
    Ok(())
}

fn pair(local: &Local, room: &str, arguments: &[&str]) -> Result<(Player, Player)> {
    let anna = local.player(room, &[&["--name", "anna"], arguments].concat())?;
    let ben = local.player(room, &[&["--name", "ben"], arguments].concat())?;
    Ok((anna, ben))
}

/// Starts a daemon with this configuration; it has to end by itself, without success. Answers what it said.
fn refuses_to_start(daemon: &Daemon, config: &Config, local: &Local) -> Result<String> {
    let file = config.write(local.directory(), "refused")?;
    let mut command = Command::new(daemon.program());
    let process = Process::start("refused", command.arg("--config").arg(file))?;
    let status = process.wait(PATIENCE)?;
    ensure!(
        !status.success(),
        "it ended with {status}: {}",
        process.report()
    );
    Ok(process.stderr())
}

/// Not one line above debug for anything a stranger sent: warnings about the configuration stand before `ready`.
fn quiet(daemon: &Daemon) -> Result<()> {
    let said = daemon.process().stderr();
    let lines = said.lines().count();
    ensure!(lines < 40, "{lines} lines were logged:\n{said}");
    Ok(())
}

fn scheme(daemon: &Daemon) -> &'static str {
    if daemon.program().ends_with("rallypoint-signal") {
        "http"
    } else {
        "udp"
    }
}

/// Datagrams of every kind that is none: noise, cut-off requests, wrong lengths, unknown channels, the largest there is.
fn throw_datagrams(server: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 66), 0))?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..500 {
        let mut datagram = noise.bytes(round % 1400);
        socket.send_to(&datagram, server)?;
        // The same with the head of a request (RFC 8489 §5) whose length is a lie.
        let head = [0x00, 0x03, 0xff, 0xf0, 0x21, 0x12, 0xa4, 0x42];
        let there = datagram.len().min(head.len());
        datagram[..there].copy_from_slice(&head[..there]);
        socket.send_to(&datagram, server)?;
        // Data for a channel (RFC 8656 §12.4) that nobody has bound.
        socket.send_to(&[0x40, 0x01, 0x00, 0x04, 1, 2, 3, 4], server)?;
        // The daemon has other things to do: a loaded machine must not lose what the counters are about.
        if round % 20 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    socket.send_to(&noise.bytes(65_507), server)?;
    Ok(())
}

/// Streams that say nothing, noise, or half a message, and hang up or stay.
fn throw_streams(server: SocketAddr) -> Result<()> {
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut kept = Vec::new();
    for size in [0, 1, 19, 20, 21, 1000, 70_000] {
        let mut stream = stranger(server)?;
        // It may hang up before all is said; that is its right.
        let _refused = stream.write_all(&noise.bytes(size));
        kept.push(stream);
        let mut stream = stranger(server)?;
        let _refused = stream.write_all(&[0x00, 0x01, 0x00, 0x08, 0x21, 0x12, 0xa4, 0x42]);
        let _refused = stream.shutdown(Shutdown::Both);
    }
    Ok(())
}

/// HTTP and WebSocket that is none.
fn throw_requests(server: SocketAddr) -> Result<()> {
    let upgrade = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: rallypoint.v1.json\r\n\r\n";
    let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let requests: [&[u8]; 4] = [
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/ws HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        endless.as_bytes(),
    ];
    for request in requests {
        let _refused = stranger(server)?.write_all(request);
    }
    // Frames (RFC 6455 §5.2): unmasked text, a length of 2^62, text that is no UTF-8, an unknown opcode.
    let frames: [&[u8]; 4] = [
        b"\x81\x05hello",
        b"\x81\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x81\x82\x00\x00\x00\x00\xff\xfe",
        b"\x8f\x80\x00\x00\x00\x00",
    ];
    for frame in frames {
        let mut stream = stranger(server)?;
        stream.write_all(upgrade.as_bytes())?;
        let mut answer = [0; 12];
        stream
            .read_exact(&mut answer)
            .context("an answer to the upgrade")?;
        ensure!(
            &answer == b"HTTP/1.1 101",
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let _refused = stream.write_all(frame);
        let mut rest = Vec::new();
        // It says goodbye or not, but it ends the connection.
        let _reset = stream.read_to_end(&mut rest);
    }
    Ok(())
}

fn stranger(server: SocketAddr) -> Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// xorshift64: the same noise in every run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
