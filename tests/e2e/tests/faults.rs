//! The host in trouble: no descriptors, no disk, a clock that jumps, a shard that fails, strangers by the hundred thousand.
//!
//! Flows go on, or the cause is named; and all is whole again when the trouble is over. Loopback only.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use credentials::{Secret, mint};
use e2e::daemon::Daemon;
use e2e::deployment::SECRET;
use e2e::local::{LocalDaemon, TEST_USER};
use e2e::netns::{Machine, run};
use e2e::processes::Process;
use e2e::relayed::{Client, Flow, Peer};
use e2e::requirements::{self, Need};
use e2e::usage;
use e2e::wait::{self, PATIENCE};
use net_io::{MAX_BATCH, RecvBatch, SendBatch, clock};
use rustix::process::{Signal, kill_process};
use stun_wire::attribute::{Nonce, Realm, RequestedTransport, Username};
use stun_wire::{
    Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, TransactionId,
};

/// Says what was measured, whether the test passes or not.
macro_rules! tell {
    ($($text:tt)*) => {
        let _unreadable_stderr_is_no_failure = writeln!(std::io::stderr(), $($text)*);
    };
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MIB: u64 = 1 << 20;

// ---- descriptors ------------------------------------------------------------------------------------------------------

/// Taken away from a process that runs, with a flow on it and connections coming in.
#[test]
fn descriptors_run_out_and_flows_go_on() -> Result<()> {
    if !requirements::met(&[Need::Tool("prlimit")])? {
        return Ok(());
    }
    let turn = LocalDaemon::turn_by(&[], "quota.allocations-per-user = 100")?;
    let pid = turn.process().pid();
    let mut flow = flow(&turn)?;
    let open = usage::descriptors(pid)?;
    limit_descriptors(&turn, open + 8)?;
    let lines = turn.process().stderr().lines().count();

    let mut holders = Vec::new();
    let refusal = allocate_until_refused(&turn, &mut holders)?;
    ensure!(refusal == 508, "refused with {refusal}");
    // They wait in the system's queue, which says so again and again.
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(turn.address()))
        .collect::<std::io::Result<_>>()?;

    let (cpu, begin) = (usage::cpu_time(pid)?, clock::mono());
    let mut carried: u32 = 0;
    while clock::mono().saturating_duration_since(begin) < Duration::from_secs(3) {
        flow.carry()?;
        carried += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    let spent = usage::cpu_time(pid)? - cpu;
    let passed = clock::mono().saturating_duration_since(begin);
    tell!("{carried} round trips; {spent:?} of {passed:?} on a processor");
    // Spinning is all of it; carrying 200 round trips a second and trying ten times a second is next to nothing.
    ensure!(spent * 4 < passed, "{spent:?} of {passed:?} on a processor");
    let said = turn.process().stderr();
    let more = said.lines().count() - lines;
    ensure!(more <= 10, "{more} lines of log:\n{said}");

    limit_descriptors(&turn, open + 100)?;
    for mut stream in waiting {
        binding_over(&mut stream)?;
    }
    turn.metric_reaches(
        "rallypoint_turn_connections_refused_total",
        &["reason=\"resources\""],
        1.0,
    )?;
    client(&turn, LOOPBACK)?.allocate()?;
    flow.carry()
}

/// What only saves time goes first (`connected-sockets`).
#[test]
fn an_allocation_gets_the_descriptor_of_a_second_socket() -> Result<()> {
    const SECOND: &str = "rallypoint_turn_connected_sockets";
    if !requirements::met(&[Need::Tool("prlimit")])? {
        return Ok(());
    }
    let turn = LocalDaemon::turn_by(&[], "quota.allocations-per-user = 100")?;
    let mut flow = flow(&turn)?;
    for _ in 0..200 {
        flow.carry()?;
    }
    turn.metric_reaches(SECOND, &[], 1.0)?;
    let open = usage::descriptors(turn.process().pid())?;
    limit_descriptors(&turn, open)?;
    let refusal = allocate_until_refused(&turn, &mut Vec::new())?;
    ensure!(refusal == 508, "refused with {refusal}");
    // To ask for metrics takes a descriptor too.
    limit_descriptors(&turn, open + 100)?;
    let second = turn.metric(SECOND, &[])?;
    ensure!(second == 0.0, "{second} second sockets are left");
    flow.carry()
}

/// Allocates until that is refused; with what error.
fn allocate_until_refused(turn: &LocalDaemon, holders: &mut Vec<Client>) -> Result<u16> {
    loop {
        let mut client = client(turn, LOOPBACK)?;
        match client.try_allocate()?.error {
            None => holders.push(client),
            Some(code) => return Ok(code),
        }
        ensure!(
            holders.len() <= 16,
            "a few descriptors do for {} allocations",
            holders.len()
        );
    }
}

fn limit_descriptors(daemon: &Daemon, limit: usize) -> Result<()> {
    let pid = daemon.process().pid().as_raw_nonzero().to_string();
    let limit = format!("--nofile={limit}:");
    run(Command::new("prlimit").args(["--pid", &pid, &limit]), "").map(drop)
}

/// A Binding request and its answer.
fn binding_over(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request(Method::BINDING, 1, &|_| {}))?;
    let mut answer = [0; 20];
    stream.read_exact(&mut answer)?;
    ensure!(answer.starts_with(&[1, 1]), "{answer:?}");
    Ok(())
}

// ---- disk -------------------------------------------------------------------------------------------------------------

#[test]
fn a_full_disk_under_the_log_stops_nothing() -> Result<()> {
    if !Path::new("/dev/full").exists() {
        tell!("SKIPPED a_full_disk_under_the_log_stops_nothing: no /dev/full");
        return Ok(());
    }
    let prefix = ["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full"];
    serves_without_room_for_logs(&prefix)
}

/// The other way a disk is full: a file that has begun and cannot grow.
#[test]
fn a_log_file_that_fills_its_disk_stops_nothing() -> Result<()> {
    if !requirements::met(&[Need::Root])? {
        return Ok(());
    }
    let disk = Tmpfs::mount()?;
    let log = disk.0.path().join("log");
    fill(&disk.0.path().join("filler"))?;
    let redirect = format!("exec \"$0\" \"$@\" 2>>{}", log.display());
    serves_without_room_for_logs(&["sh", "-c", &redirect])?;
    ensure!(fs::metadata(&log)?.len() == 0, "there was room");
    Ok(())
}

fn serves_without_room_for_logs(prefix: &[&str]) -> Result<()> {
    let turn = LocalDaemon::turn_by(prefix, "log.level = \"debug\"\ndrain.deadline = \"0s\"")?;
    let stun = LocalDaemon::stun_by(prefix)?;
    let mut flow = flow(&turn)?;
    for _ in 0..50 {
        flow.carry()?;
    }
    // What an operator does is logged too, or would be.
    let config = fs::read_to_string(turn.config())?;
    fs::write(turn.config(), format!("{config}\nno-such-key = 1\n"))?;
    let reload = "rallypoint_config_last_reload_successful";
    wait::until("the file is refused", PATIENCE, || {
        Ok((turn.metric(reload, &[])? == 0.0).then_some(()))
    })?;
    flow.carry()?;
    binding_over(&mut TcpStream::connect(stun.address())?)?;
    for daemon in [&*turn, &*stun] {
        daemon.metric_reaches("rallypoint_log_failed_writes_total", &[], 1.0)?;
        daemon.shut_down(PATIENCE)?;
    }
    Ok(())
}

/// One MiB that is a disk of its own.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]);
        run(mount.arg(directory.path()), "")?;
        Ok(Self(directory))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whoever still has the log open keeps it for itself.
        let _left_for_the_system = run(Command::new("umount").arg("-l").arg(self.0.path()), "");
    }
}

fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    Ok(())
}

// ---- clock ------------------------------------------------------------------------------------------------------------

/// The wall clock jumps, the monotonic one does not: what lives by intervals never notices, and credentials are judged
/// by the wall clock with a minute of grace.
#[test]
fn the_wall_clock_may_jump_by_years() -> Result<()> {
    let library = PathBuf::from("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1");
    if !requirements::met(&[Need::Tool("faketime")])? {
        return Ok(());
    }
    let library = if library.exists() {
        library
    } else {
        find_faketime()?
    };
    let directory = tempfile::tempdir()?;
    let clock = directory.path().join("clock");
    fs::write(&clock, "+0")?;
    let turn = LocalDaemon::turn_by(
        &[
            "env",
            &format!("LD_PRELOAD={}", library.display()),
            &format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ],
        "quota.allocations-per-user = 100",
    )?;
    let mut flow = flow(&turn)?;
    let hour = 3600;
    let year = 365 * 24 * hour;
    for jump in [hour, -hour, 10 * year, -10 * year] {
        // Replaced, not rewritten: the library reads it at every look at the clock.
        let new = directory.path().join("new");
        fs::write(&new, format!("{jump:+}"))?;
        fs::rename(&new, &clock)?;

        let challenges = flow.client.challenges();
        ensure!(
            flow.client.refresh(600)?.error.is_none(),
            "refresh after {jump}"
        );
        ensure!(
            flow.client.challenges() == challenges,
            "the nonce died of {jump}"
        );
        for _ in 0..20 {
            flow.carry()?;
        }
        let now = i64::try_from(clock::unix())? + jump;
        for (expiry, is_good) in [(now + 600, true), (now - 30, true), (now - 120, false)] {
            let answer = with_credential(&turn, expiry)?.try_allocate()?;
            let expected = (!is_good).then_some(401);
            ensure!(
                answer.error == expected,
                "{jump:+}: a credential of {:+} s: {answer:?}",
                expiry - now
            );
        }
    }
    fs::write(&clock, "+0")?;
    flow.carry()
}

fn find_faketime() -> Result<PathBuf> {
    let found = run(
        Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]),
        "",
    )?;
    Ok(found.lines().next().context("libfaketime")?.into())
}

fn with_credential(turn: &LocalDaemon, expiry: i64) -> Result<Client> {
    let secret = Secret {
        id: Some("k1".to_owned()),
        key: SECRET.as_bytes().to_vec(),
    };
    let made = mint(&secret, "player", u64::try_from(expiry)?);
    Client::new(
        &Machine::here(),
        LOOPBACK,
        turn.address(),
        &made.username,
        &made.password,
    )
}

// ---- a shard ----------------------------------------------------------------------------------------------------------

/// Its wait for packets fails, as the system may have it for want of memory; the fault is put in from outside.
#[test]
fn a_shard_that_fails_ends_the_process_and_is_named() -> Result<()> {
    if !requirements::met(&[Need::Root, Need::Tool("strace")])? {
        return Ok(());
    }
    let turn = LocalDaemon::turn_by(&[], "threads = 2")?;
    let thread = usage::thread_named(turn.process().pid(), "turn-1")?.to_string();
    let mut strace = Command::new("strace");
    strace.args([
        "-p",
        &thread,
        "-e",
        "inject=epoll_wait,epoll_pwait:error=ENOMEM",
    ]);
    let strace = Process::start("strace", &mut strace)?;
    // One way or the other it is woken up.
    let status = wait::until("the process ends", PATIENCE, || {
        let _gone_already = UdpSocket::bind("127.0.0.1:0")?.send_to(b"?", turn.address());
        Ok((!turn.process().running()?).then_some(()))
    })
    .and_then(|()| turn.process().wait(PATIENCE))
    .with_context(|| strace.report())?;
    let said = turn.process().stderr();
    ensure!(status.code() == Some(1), "it ended with {status}: {said}");
    ensure!(
        said.contains("shard turn-1 cannot go on: ") && said.contains("memory"),
        "{said}"
    );
    Ok(())
}

// ---- strangers --------------------------------------------------------------------------------------------------------

/// How many they are.
const STRANGERS: u32 = 200_000;

#[test]
fn two_hundred_thousand_anonymous_allocates_are_not_remembered() -> Result<()> {
    let turn = LocalDaemon::turn_by(&[], "threads = 1\nlimits.challenges-ceiling = 10000000")?;
    let mut crowd = Crowd::new(turn.address())?;
    // What is made once and reused is made by the first ones.
    crowd.ask_for_allocations(0..2000)?;
    let before = usage::resident_bytes(turn.process().pid())?;
    let challenged = crowd.ask_for_allocations(2000..STRANGERS)?;
    grew_by_at_most(&turn, before, 4 * MIB, challenged)
}

#[test]
fn two_hundred_thousand_forged_signatures_are_not_remembered() -> Result<()> {
    let turn = LocalDaemon::turn_by(&[], "threads = 1\nlimits.challenges-ceiling = 10000000")?;
    let mut crowd = Crowd::new(turn.address())?;
    crowd.forge(0..2000)?;
    let before = usage::resident_bytes(turn.process().pid())?;
    let forged = crowd.forge(2000..STRANGERS)?;
    grew_by_at_most(&turn, before, 4 * MIB, forged)
}

fn grew_by_at_most(turn: &Daemon, before: u64, most: u64, answered: u32) -> Result<()> {
    let after = usage::resident_bytes(turn.process().pid())?;
    tell!("{answered} answered; from {before} to {after} bytes");
    ensure!(
        answered >= STRANGERS / 2,
        "only {answered} were answered: nothing is shown"
    );
    ensure!(
        after.saturating_sub(before) <= most,
        "grew from {before} to {after} bytes"
    );
    ensure!(turn.metric("rallypoint_turn_allocations", &[])? == 0.0);
    Ok(())
}

/// The daemons stand still while garbage comes for ten queues: what honest clients ask meanwhile is still answered.
#[test]
fn garbage_takes_no_place_in_the_queue() -> Result<()> {
    let (stun, turn) = (LocalDaemon::stun()?, LocalDaemon::turn()?);
    for daemon in [&stun, &turn] {
        let stranger = UdpSocket::bind((LOOPBACK, 0))?;
        let honest: Vec<UdpSocket> = (1..=20)
            .map(|host| UdpSocket::bind((Ipv4Addr::new(127, 0, 1, host), 0)))
            .collect::<std::io::Result<_>>()?;
        let pid = daemon.process().pid();
        kill_process(pid, Signal::STOP)?;
        for garbage in [&[0xff; 1400][..], &[0; 1400], b"\x16\xfe\xfd a hello"].repeat(3000) {
            stranger.send_to(garbage, daemon.address())?;
        }
        for socket in &honest {
            socket.send_to(&request(Method::BINDING, 7, &|_| {}), daemon.address())?;
        }
        kill_process(pid, Signal::CONT)?;
        for socket in &honest {
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut answer = [0; 100];
            let len = socket.recv(&mut answer).context("a request was lost")?;
            ensure!(answer.get(..2) == Some(&[1, 1]), "{len} bytes: {answer:?}");
        }
        let family = "rallypoint_udp_receive_queue_dropped_total";
        daemon.metric_reaches(family, &[], 9000.0)?;
    }
    Ok(())
}

/// How long honest clients are watched, with and without the flood.
const WATCHED: Duration = Duration::from_secs(4);

#[test]
fn a_flood_of_malformed_datagrams_costs_an_honest_client_nothing() -> Result<()> {
    let turn = LocalDaemon::turn_by(&[], "threads = 1")?;
    let mut flow = flow(&turn)?;
    let control = round_trips(&mut flow)?;

    let is_over = AtomicBool::new(false);
    let (flooded, sent) = std::thread::scope(|scope| -> Result<(Watched, u64)> {
        let flood = scope.spawn(|| flood(turn.address(), &is_over));
        let flooded = round_trips(&mut flow);
        is_over.store(true, Ordering::Relaxed);
        let sent = flood
            .join()
            .map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        Ok((flooded?, sent))
    })?;
    let rate = sent / WATCHED.as_secs();
    let dropped = turn.metric("rallypoint_udp_receive_queue_dropped_total", &[])?;
    let judged = turn.metric("rallypoint_turn_dropped_packets_total", &[])?;
    tell!(
        "{rate} malformed datagrams a second, {dropped} dropped by the system, {judged} by the relay; \
         without: {control:?}; with: {flooded:?}"
    );
    ensure!(sent > 10_000, "{sent} datagrams are no flood");
    ensure!(
        flooded.loss() <= control.loss() + 0.005,
        "lost {flooded:?}, without the flood {control:?}"
    );
    flow.carry()
}

/// What became of round trips over the relay.
#[derive(Debug)]
struct Watched {
    sent: u32,
    lost: u32,
}

impl Watched {
    fn loss(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.sent.max(1))
    }
}

/// One after the other; one that has not come back after half a second is lost.
fn round_trips(flow: &mut Flow) -> Result<Watched> {
    let begin = clock::mono();
    let mut watched = Watched { sent: 0, lost: 0 };
    while clock::mono().saturating_duration_since(begin) < WATCHED {
        watched.sent += 1;
        if !flow.try_carry(Duration::from_millis(500))? {
            watched.lost += 1;
        }
    }
    Ok(watched)
}

/// Up to 100,000 a second of everything that is no message: no first byte of any protocol here, a wrong cookie, a length
/// that is a lie, a channel that nobody has. How many were sent.
fn flood(server: SocketAddr, is_over: &AtomicBool) -> Result<u64> {
    let socket = net_io::UdpSocket::bind(
        SocketAddr::from((Ipv4Addr::new(127, 0, 0, 66), 0)),
        &net_io::BindOptions::default(),
    )?;
    let lie = [
        0, 3, 0xff, 0xf0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    let malformed: [&[u8]; 4] = [
        &[0xff; 100],
        &[
            0, 1, 0, 0, 9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ],
        &lie,
        &[0x40, 0x01, 0, 4, 1, 2, 3, 4],
    ];
    let mut out = SendBatch::new();
    let (begin, mut sent) = (clock::mono(), 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        let passed = clock::mono().saturating_duration_since(begin);
        if u128::from(sent) > passed.as_micros() / 10 {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        for datagram in malformed.iter().cycle().take(MAX_BATCH) {
            ensure!(out.push(server, socket.local_addr().ip(), &[datagram]));
        }
        sent += MAX_BATCH as u64;
        socket.send_batch(&mut out);
    }
    Ok(sent)
}

/// Many clients on one socket: each datagram leaves from an address of 127.0.0.0/8 of its own.
struct Crowd {
    socket: net_io::UdpSocket,
    server: SocketAddr,
    out: SendBatch,
    answers: RecvBatch,
}

impl Crowd {
    fn new(server: SocketAddr) -> Result<Self> {
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Ok(Self {
            socket: net_io::UdpSocket::bind(anywhere, &net_io::BindOptions::default())?,
            server,
            out: SendBatch::new(),
            answers: RecvBatch::new(MAX_BATCH, 2048),
        })
    }

    /// How many were answered.
    fn ask_for_allocations(&mut self, who: std::ops::Range<u32>) -> Result<u32> {
        let mut answered = 0;
        self.by_batches(who, |crowd, batch| {
            answered += u32::try_from(crowd.challenges(batch)?.len())?;
            Ok(())
        })?;
        Ok(answered)
    }

    /// Each asks, and signs with a password that it made up. How many were answered both times.
    fn forge(&mut self, who: std::ops::Range<u32>) -> Result<u32> {
        let mut answered = 0;
        self.by_batches(who, |crowd, batch| {
            let challenges = crowd.challenges(batch)?;
            let key = IntegrityKey::long_term_md5("somebody", "rallypoint", "a guess");
            let forged = challenges.iter().map(|(number, nonce)| {
                let bytes = request(Method::ALLOCATE, *number, &|writer| {
                    writer.attribute(&RequestedTransport(17));
                    writer.attribute(&Username("somebody"));
                    writer
                        .attribute(&Realm("rallypoint"))
                        .attribute(&Nonce(nonce));
                    writer.integrity(&key, IntegrityKind::Sha1);
                });
                (*number, bytes)
            });
            answered += u32::try_from(crowd.exchange(&forged.collect::<Vec<_>>())?.len())?;
            Ok(())
        })?;
        Ok(answered)
    }

    fn by_batches(
        &mut self,
        who: std::ops::Range<u32>,
        mut act: impl FnMut(&mut Self, std::ops::Range<u32>) -> Result<()>,
    ) -> Result<()> {
        let step = u32::try_from(MAX_BATCH)?;
        let mut from = who.start;
        while from < who.end {
            let to = who.end.min(from + step);
            act(self, from..to)?;
            from = to;
        }
        Ok(())
    }

    /// The nonces that a batch of strangers was given.
    fn challenges(&mut self, who: std::ops::Range<u32>) -> Result<Vec<(u32, String)>> {
        let anonymous: Vec<_> = who
            .map(|number| {
                let bytes = request(Method::ALLOCATE, number, &|writer| {
                    writer.attribute(&RequestedTransport(17)).fingerprint();
                });
                (number, bytes)
            })
            .collect();
        self.exchange(&anonymous)
    }

    /// Sends requests, each from its stranger, and collects the answers with their nonces. The last of the batch to be
    /// answered ends the wait, and so does a little silence: some are over their limit.
    fn exchange(&mut self, requests: &[(u32, Vec<u8>)]) -> Result<Vec<(u32, String)>> {
        for (number, bytes) in requests {
            ensure!(
                self.out.push(self.server, source(*number), &[bytes]),
                "a batch too long"
            );
        }
        self.socket.send_batch(&mut self.out);
        let mut answered = Vec::new();
        let deadline = wait::Deadline::after(Duration::from_millis(100));
        while answered.len() < requests.len() && !deadline.passed() {
            if self.socket.recv_batch(&mut self.answers)? == 0 {
                std::thread::yield_now();
            }
            for answer in self.answers.iter() {
                let Ok(message) = Message::parse(answer.bytes) else {
                    continue;
                };
                let TransactionId(id) = message.transaction_id();
                let number = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
                let nonce = message.attribute::<Nonce<'_>>().ok().flatten();
                if requests.iter().any(|(asked, _)| *asked == number) {
                    let nonce = nonce.map(|nonce| nonce.0.to_owned()).unwrap_or_default();
                    answered.push((number, nonce));
                }
            }
        }
        Ok(answered)
    }
}

/// Neighbouring numbers are far apart, so that no limit of a neighbourhood hides what is to be seen.
fn source(number: u32) -> IpAddr {
    let [_, a, b, c] = (number + 1).to_be_bytes();
    Ipv4Addr::new(127, c, b, a.wrapping_mul(64).wrapping_add(1)).into()
}

fn request(method: Method, number: u32, attributes: &dyn Fn(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut transaction = [0xfa; 12];
    transaction[..4].copy_from_slice(&number.to_be_bytes());
    let mut out = Vec::new();
    let mut writer =
        MessageWriter::new(&mut out, Class::Request, method, TransactionId(transaction));
    attributes(&mut writer);
    writer.finish();
    out
}

fn client(turn: &LocalDaemon, source: IpAddr) -> Result<Client> {
    let (user, password) = TEST_USER;
    Client::new(&Machine::here(), source, turn.address(), user, password)
}

fn flow(turn: &LocalDaemon) -> Result<Flow> {
    Flow::between(
        client(turn, LOOPBACK)?,
        Peer::new(&Machine::here(), LOOPBACK)?,
    )
}
