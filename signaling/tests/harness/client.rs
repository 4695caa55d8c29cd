//! A real server on loopback, and real WebSockets that talk to it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of the harness"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

use futures_util::{SinkExt as _, StreamExt as _};
use ops::metrics::Registry;
use signal_wire::{
    ClientBody, ClientMessage, Hello, LobbyJoin, LobbyJoined, MemberId, Resume, SUBPROTOCOL,
    ServerBody, ServerMessage, SignalKind, SignalTo, Welcome,
};
use signaling::{Config, Server};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Generous: only a hang is a failure, not a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Running {
    pub server: Server,
    pub registry: Registry,
    pub addr: SocketAddr,
}

impl Running {
    /// A server on a free port of loopback, without limits by address.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// The same with more configuration; it must not have `[limits]` or top-level keys after tables.
    pub async fn with(text: &str) -> Self {
        let config = format!(
            "listen = [\"http://127.0.0.1:0\"]\n{text}\n[limits]\nexempt = [\"127.0.0.0/8\"]\n"
        );
        Self::of(&config).await
    }

    pub async fn of(text: &str) -> Self {
        let config = Config::from_toml(text).unwrap_or_else(|problems| panic!("{problems}"));
        Self::of_config(config).await
    }

    pub async fn of_config(config: Config) -> Self {
        let registry = Registry::new();
        let server = Server::bind(config, &registry).await.unwrap();
        let addr = server.local_addrs()[0].1;
        Self {
            server,
            registry,
            addr,
        }
    }

    pub async fn connect(&self) -> Client<TcpStream> {
        Client::connect(self.addr, native(self.addr)).await.unwrap()
    }

    pub async fn tank(&self) -> Client<TcpStream> {
        Client::connect(self.addr, request(self.addr, "/"))
            .await
            .unwrap()
    }

    pub async fn player(&self, name: &str) -> Client<TcpStream> {
        let mut client = self.connect().await;
        client.hello(name).await;
        client
    }

    /// A player called `name` in the lobby `jump-rocket` for `max`.
    pub async fn member(&self, name: &str, max: u16) -> (Client<TcpStream>, LobbyJoined) {
        let mut client = self.player(name).await;
        let joined = client.join("jump-rocket", max).await;
        (client, joined)
    }

    /// One line of the metrics: the value of `series`.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.registry.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until a metric has a value, for what happens after the client has seen its part.
    pub async fn metric_becomes(&self, series: &str, value: f64) {
        let settled = async {
            while (self.metric(series) - value).abs() > f64::EPSILON {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, settled).await.is_err() {
            panic!("{series} is {}, not {value}", self.metric(series));
        }
    }
}

pub struct Client<S> {
    pub socket: WebSocketStream<S>,
    next_id: u64,
}

impl Client<TcpStream> {
    pub async fn connect(addr: SocketAddr, request: Request) -> Result<Self, Error> {
        let stream = TcpStream::connect(addr).await?;
        Self::on(stream, request).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn on(stream: S, request: Request) -> Result<Self, Error> {
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self { socket, next_id: 1 })
    }

    pub async fn hello(&mut self, name: &str) -> Welcome {
        self.hello_with(name, None).await
    }

    pub async fn resume(&mut self, welcome: &Welcome, last_seq: u64) -> Welcome {
        let Welcome {
            session_id,
            resume_token,
            ..
        } = *welcome;
        self.hello_with(
            "",
            Some(Resume {
                session_id,
                resume_token,
                last_seq,
            }),
        )
        .await
    }

    async fn hello_with(&mut self, name: &str, resume: Option<Resume>) -> Welcome {
        let hello = Hello {
            game: "tank".into(),
            build: "1.4.0".into(),
            sdk: "test".into(),
            name: name.into(),
            resume,
        };
        match self.request(ClientBody::Hello(hello)).await {
            ServerBody::Welcome(welcome) => welcome,
            other => panic!("no welcome but {other:?}"),
        }
    }

    pub async fn join(&mut self, passphrase: &str, max: u16) -> LobbyJoined {
        match self.try_join(passphrase, max).await {
            ServerBody::LobbyJoined(joined) => joined,
            other => panic!("not joined but {other:?}"),
        }
    }

    pub async fn try_join(&mut self, passphrase: &str, max: u16) -> ServerBody {
        let join = LobbyJoin {
            passphrase: passphrase.into(),
            create: true,
            max,
        };
        self.request(ClientBody::LobbyJoin(join)).await
    }

    pub async fn signal(&mut self, to: u16, kind: SignalKind, data: serde_json::Value) {
        let signal = SignalTo {
            to: MemberId(to),
            kind,
            conn: "c1".into(),
            data,
        };
        let body = ClientBody::Signal(signal);
        self.send(
            &ClientMessage {
                id: None,
                ack: None,
                body,
            }
            .to_json(),
        )
        .await;
    }

    /// Sends a request and returns its reply, which must come next.
    pub async fn request(&mut self, body: ClientBody) -> ServerBody {
        let id = self.next_id;
        self.next_id += 1;
        self.send(
            &ClientMessage {
                id: Some(id),
                ack: None,
                body,
            }
            .to_json(),
        )
        .await;
        let reply = self.message().await;
        assert_eq!(reply.re, Some(id), "{reply:?}");
        reply.body
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message of the native protocol.
    pub async fn message(&mut self) -> ServerMessage {
        let text = self.text().await;
        ServerMessage::from_json(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub async fn body(&mut self) -> ServerBody {
        self.message().await.body
    }

    /// The next text, pings left out.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// The code of the close frame, whatever came before it.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await? {
                Message::Close(frame) => return frame.map(|frame| frame.code.into()),
                Message::Text(_)
                | Message::Binary(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_) => {}
            }
        }
    }

    /// The next frame but pings; `None` at the end, however it came.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let frame = timeout(PATIENCE, self.socket.next())
                .await
                .expect("an answer in time");
            match frame {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(frame)) => return Some(frame),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub fn request(addr: SocketAddr, path: &str) -> Request {
    format!("ws://{addr}{path}").into_client_request().unwrap()
}

/// The handshake of a native client.
pub fn native(addr: SocketAddr) -> Request {
    let mut request = request(addr, "/v1/ws");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    request
}

/// Sends an HTTP request as it stands and returns the whole answer.
pub async fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an end in time")
        .unwrap();
    String::from_utf8(answer).unwrap()
}
