//! What a player costs: bytes for each idle member of a lobby, and CPU time for each relayed message.
//!
//! ```text
//! cargo bench -p signaling --bench connections [-- CONNECTIONS SECONDS]
//! ```
//!
//! The daemon runs as a process of its own and is measured from outside: resident memory by
//! `/proc/PID/statm`, CPU by the scheduler's nanosecond clock. Both figures include everything a
//! real player has: a session, a seat, limits, metrics. The load shares the machine, so only
//! memory and CPU are quotable, never latency.

#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use net_io::clock;
use signal_wire::{
    ClientBody, ClientMessage, Hello, LobbyJoin, MemberId, SUBPROTOCOL, ServerBody, ServerMessage,
    SignalKind, SignalTo,
};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Socket = WebSocketStream<TcpStream>;

/// Pairs that talk while CPU is measured; the rest stays idle.
const TALKING_PAIRS: usize = 200;
/// About what a candidate takes.
const DATA_BYTES: usize = 180;

#[tokio::main]
async fn main() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("skipped: memory and CPU of another process are read from Linux' /proc");
        return Ok(());
    }
    // `cargo bench` adds `--bench`; everything that is no number is passed over.
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let count = usize::try_from(numbers.first().copied().unwrap_or(4_000))?;
    let seconds = numbers.get(1).copied().unwrap_or(3);
    let mut daemon = Daemon::start()?;
    let result = measure(&daemon, count, seconds).await;
    daemon.child.kill()?;
    daemon.child.wait()?;
    result
}

async fn measure(daemon: &Daemon, count: usize, seconds: u64) -> Result<()> {
    // One pair first: what every server pays once is no cost of a player.
    let mut warm = vec![pair(daemon.addr, 0).await?];
    settle().await;
    let (base, base_cpu) = (daemon.resident()?, daemon.cpu()?);
    let mut pairs = Vec::new();
    for number in 1..=count / 2 {
        pairs.push(pair(daemon.addr, number).await?);
    }
    let connect_cpu = daemon.cpu()? - base_cpu;
    settle().await;
    let members = 2 * pairs.len();
    let bytes = daemon.resident()?.saturating_sub(base) / u64::try_from(members)?;
    println!(
        "{members} members in lobbies of two, before that {} KiB resident",
        base / 1024
    );
    println!("{bytes} bytes a connection, events of the join not acknowledged");
    let each = connect_cpu / u64::try_from(members)? / 1000;
    println!("{each} µs CPU a connection with hello, join and what follows");
    for (one, two) in pairs.iter_mut().chain(&mut warm) {
        acknowledge(one).await?;
        acknowledge(two).await?;
    }
    settle().await;
    let bytes = daemon.resident()?.saturating_sub(base) / u64::try_from(members)?;
    println!("{bytes} bytes a connection, events acknowledged");

    pairs.truncate(TALKING_PAIRS);
    settle().await;
    let (messages, cpu) = talk(daemon, pairs, Duration::from_secs(seconds)).await?;
    println!(
        "{messages} signals of {DATA_BYTES} bytes in {seconds} s, {} ns CPU each",
        cpu / messages.max(1)
    );
    Ok(())
}

/// Each pair passes one signal back and forth, so that none waits for another.
async fn talk(
    daemon: &Daemon,
    pairs: Vec<(Socket, Socket)>,
    duration: Duration,
) -> Result<(u64, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let before = daemon.cpu()?;
    let mut tasks = Vec::new();
    for (one, two) in pairs {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        tasks.push(tokio::spawn(async move {
            let (mut one, mut two) = (one, two);
            while !stop.load(Ordering::Relaxed) {
                pass(&mut one, &mut two, 2).await?;
                pass(&mut two, &mut one, 1).await?;
                count.fetch_add(2, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    tokio::time::sleep(duration).await;
    let (messages, cpu) = (count.load(Ordering::Relaxed), daemon.cpu()? - before);
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok((messages, cpu))
}

/// One signal from one to the other, acknowledging what came before.
async fn pass(from: &mut Socket, to: &mut Socket, member: u16) -> Result<()> {
    let signal = SignalTo {
        to: MemberId(member),
        kind: SignalKind::Candidate,
        conn: "c1".into(),
        data: "x".repeat(DATA_BYTES).into(),
    };
    let body = ClientBody::Signal(signal);
    send(
        from,
        ClientMessage {
            id: None,
            ack: Some(u64::MAX),
            body,
        },
    )
    .await?;
    loop {
        let body = receive(to).await?;
        if let ServerBody::Error(error) = &body {
            bail!("refused: {error:?}");
        }
        if matches!(body, ServerBody::Signal(_)) {
            return Ok(());
        }
    }
}

/// Two players in a lobby of their own.
async fn pair(addr: SocketAddr, number: usize) -> Result<(Socket, Socket)> {
    let mut one = player(addr, "one", number).await?;
    let mut two = player(addr, "two", number).await?;
    for socket in [&mut one, &mut two] {
        while !matches!(receive(socket).await?, ServerBody::LobbyReady(_)) {}
    }
    Ok((one, two))
}

async fn player(addr: SocketAddr, name: &str, number: usize) -> Result<Socket> {
    let mut request = format!("ws://{addr}/v1/ws").into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(2048);
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    let hello = Hello {
        game: "bench".into(),
        build: "1".into(),
        sdk: "bench".into(),
        name: name.into(),
        resume: None,
    };
    let join = LobbyJoin {
        passphrase: format!("lobby-{number}"),
        create: true,
        max: 2,
    };
    for (id, body) in [
        (1, ClientBody::Hello(hello)),
        (2, ClientBody::LobbyJoin(join)),
    ] {
        send(
            &mut socket,
            ClientMessage {
                id: Some(id),
                ack: None,
                body,
            },
        )
        .await?;
    }
    // The second of a pair must not come in first: their numbers are given in that order.
    while !matches!(receive(&mut socket).await?, ServerBody::LobbyJoined(_)) {}
    Ok(socket)
}

async fn acknowledge(socket: &mut Socket) -> Result<()> {
    let body = ClientBody::Ping(signal_wire::Ping { t: 0 });
    send(
        socket,
        ClientMessage {
            id: None,
            ack: Some(u64::MAX),
            body,
        },
    )
    .await?;
    while !matches!(receive(socket).await?, ServerBody::Pong(_)) {}
    Ok(())
}

async fn send(socket: &mut Socket, message: ClientMessage) -> Result<()> {
    Ok(socket.send(Message::text(message.to_json())).await?)
}

async fn receive(socket: &mut Socket) -> Result<ServerBody> {
    loop {
        if let Message::Text(text) = socket.next().await.context("closed")?? {
            return Ok(ServerMessage::from_json(&text)?.body);
        }
    }
}

/// Lets the daemon finish what is under way.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

struct Daemon {
    child: Child,
    addr: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("signal.toml");
        let addr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = format!(
            "listen = [\"http://{addr}\"]\nadmin = {{ listen = \"off\" }}\n\
             log = {{ level = \"error\" }}\n[limits]\nexempt = [\"127.0.0.0/8\"]\n\
             messages-per-second = 1000000\nmessages-burst = 1000000\n\
             bytes-per-second = 100000000\nbytes-burst = 1000000000\n\
             replay-age = \"1h\"\nping-interval = \"300s\"\n"
        );
        std::fs::write(&file, config)?;
        let child = Command::new(env!("CARGO_BIN_EXE_rallypoint-signal"))
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()?;
        let daemon = Self {
            child,
            addr,
            _folder: folder,
        };
        let started = clock::mono();
        while std::net::TcpStream::connect(addr).is_err() {
            if clock::mono() - started > Duration::from_secs(20) {
                bail!("the daemon does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Resident bytes: the second number of `statm`, in pages.
    fn resident(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = text.split_whitespace().nth(1).context("statm")?.parse()?;
        Ok(pages * 4096)
    }

    /// Nanoseconds on a CPU, all threads together: the first number of each `schedstat`.
    fn cpu(&self) -> Result<u64> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text
                .split_whitespace()
                .next()
                .context("schedstat")?
                .parse::<u64>()?;
        }
        Ok(nanos)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
