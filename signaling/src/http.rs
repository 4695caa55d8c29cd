//! HTTP on the main listeners: the health page, and the upgrades to the two protocols.

use crate::config::Config;
use crate::connection::{self, Connection};
use crate::counters::{Counters, RefusedWhy};
use crate::hub::Hub;
use crate::origin;
use crate::outbox::Outbox;
use crate::page::{self, Form};
use crate::status::Status;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use net_io::clock;
use ops::metrics::HttpMetrics;
use signal_wire::SUBPROTOCOL;
use signaling_lobby::{Admission, Arrival, ConnId, Door};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What every connection needs; shared by all of them.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) config: Config,
    pub(crate) hub: Hub,
    pub(crate) counters: Arc<Counters>,
    pub(crate) status: Arc<Status>,
    pub(crate) http: HttpMetrics,
    pub(crate) next_conn: AtomicU64,
}

/// A caller before it is anything else.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) secure: bool,
    /// Held as long as the caller is here, for the end of the server to wait on.
    pub(crate) alive: mpsc::Sender<()>,
}

type Answer = Response<Full<Bytes>>;

/// The closed set of what can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handler {
    Page,
    Tank,
    Native,
    Other,
}

impl Handler {
    fn of(path: &str, is_upgrade: bool) -> Self {
        match (path, is_upgrade) {
            ("/", false) => Self::Page,
            ("/", true) => Self::Tank,
            ("/v1/ws", _) => Self::Native,
            _ => Self::Other,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Tank => "tank",
            Self::Native => "native",
            Self::Other => "other",
        }
    }
}

/// Exports every handler from the start.
pub(crate) fn declare(http: &HttpMetrics) {
    http.declare(Handler::Page.as_str(), &[200, 405]);
    http.declare(Handler::Tank.as_str(), &[101, 400, 403, 404, 426, 429, 503]);
    http.declare(Handler::Native.as_str(), &[101, 400, 403, 426, 429, 503]);
    http.declare(Handler::Other.as_str(), &[404]);
}

impl Gate {
    pub(crate) async fn answer(
        self: Arc<Self>,
        caller: Caller,
        request: Request<Incoming>,
    ) -> Answer {
        let started = clock::mono();
        let handler = Handler::of(request.uri().path(), is_upgrade(request.headers()));
        let response = match handler {
            Handler::Page => self.page(&request),
            Handler::Tank if self.config.doors.tank => {
                Arc::clone(&self).upgrade(caller, Door::Tank, request).await
            }
            Handler::Native => {
                Arc::clone(&self)
                    .upgrade(caller, Door::Native, request)
                    .await
            }
            Handler::Tank | Handler::Other => text(StatusCode::NOT_FOUND, "nothing is here\n"),
        };
        let code = response.status().as_u16();
        self.http.record(
            handler.as_str(),
            code,
            clock::mono().saturating_duration_since(started),
        );
        response
    }

    fn page(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            return with(response, ALLOW, "GET, HEAD");
        }
        let accept = request
            .headers()
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let form = Form::of_accept(accept.unwrap_or(""));
        let body = page::render(form, &self.status.snapshot());
        let response = Response::new(Full::new(Bytes::from(body)));
        let response = with(response, CONTENT_TYPE, form.content_type());
        let response = with(response, VARY, "Accept");
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
        let response = with(response, CONTENT_SECURITY_POLICY, policy);
        let response = with(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
        with(response, CACHE_CONTROL, "no-store")
    }

    /// RFC 6455 §4.2: judges the handshake, then lets the hub judge the caller.
    async fn upgrade(
        self: Arc<Self>,
        caller: Caller,
        door: Door,
        mut request: Request<Incoming>,
    ) -> Answer {
        if !origin::is_allowed(&self.config, request.headers()) {
            self.counters
                .connections_refused
                .with(RefusedWhy::Origin)
                .inc();
            return text(StatusCode::FORBIDDEN, "this page may not connect\n");
        }
        let accept = match handshake(&request, door) {
            Ok(accept) => accept,
            Err(why) => {
                self.counters
                    .connections_refused
                    .with(RefusedWhy::Handshake)
                    .inc();
                return refuse_handshake(&why);
            }
        };
        let address = origin::address(&self.config, caller.peer, request.headers());
        let conn = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(self.config.limits.outbox_bytes));
        let arrival = Arrival { door, address };
        if let Err(why) = self.hub.connect(conn, arrival, Arc::clone(&outbox)).await {
            return refuse(why);
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let upgrading = Upgrading {
            gate: self,
            caller,
            door,
            conn,
            outbox,
            upgrade,
        };
        tokio::spawn(upgrading.run());
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let response = with(response, UPGRADE, "websocket");
        let response = with(response, CONNECTION, "Upgrade");
        let mut response = match door {
            Door::Native => with(response, SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL),
            Door::Tank => response,
        };
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// A connection whose 101 is on its way.
struct Upgrading {
    gate: Arc<Gate>,
    caller: Caller,
    door: Door,
    conn: ConnId,
    outbox: Arc<Outbox>,
    upgrade: OnUpgrade,
}

impl Upgrading {
    /// Waits for the upgrade, then goes: what it needed is not kept as long as the connection.
    async fn run(self) {
        let Self {
            gate,
            caller,
            door,
            conn,
            outbox,
            upgrade,
        } = self;
        let Caller { secure, alive, .. } = caller;
        let Ok(Ok(upgraded)) = timeout(gate.config.limits.handshake_timeout, upgrade).await else {
            return gate.hub.disconnect(conn).await;
        };
        let serving = Serving {
            gate,
            door,
            conn,
            outbox,
            _alive: alive,
        };
        // One task for each kind of stream: a plain connection has no room for TLS in it.
        if secure {
            tokio::spawn(serving.on_tls(upgraded));
        } else {
            tokio::spawn(serving.on_tcp(upgraded));
        }
    }
}

struct Serving {
    gate: Arc<Gate>,
    door: Door,
    conn: ConnId,
    outbox: Arc<Outbox>,
    _alive: mpsc::Sender<()>,
}

impl Serving {
    async fn on_tls(self, upgraded: Upgraded) {
        match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
            Ok(parts) => self.serve(parts.io.into_inner(), parts.read_buf).await,
            Err(_) => self.gate.hub.disconnect(self.conn).await,
        }
    }

    async fn on_tcp(self, upgraded: Upgraded) {
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => self.serve(parts.io.into_inner(), parts.read_buf).await,
            Err(_) => self.gate.hub.disconnect(self.conn).await,
        }
    }

    async fn serve<S>(self, stream: S, read: Bytes)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let Self {
            gate,
            door,
            conn,
            outbox,
            _alive,
        } = self;
        // Copied and let go: even empty it would hold the 8 KiB that the head was read into.
        let early = read.to_vec();
        drop(read);
        let connection = Connection {
            socket: connection::accept(stream, early).await,
            conn,
            door,
            hub: gate.hub.clone(),
            outbox,
            counters: Arc::clone(&gate.counters),
            ping_interval: gate.config.limits.lobby.ping_interval,
        };
        drop(gate);
        connection.run().await;
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket") && has_token(headers, &CONNECTION, "upgrade")
}

/// Whether a comma-separated header holds `token`, in whatever case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Why a request is no handshake.
enum NoHandshake {
    UpgradeRequired,
    Bad(&'static str),
}

/// The value of `Sec-WebSocket-Accept`, or why this is no handshake (RFC 6455 §4.2.1).
fn handshake(request: &Request<Incoming>, door: Door) -> Result<HeaderValue, NoHandshake> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    let is_13 = version.is_some_and(|version| version == "13");
    if !is_upgrade(headers) || request.version() < Version::HTTP_11 || !is_13 {
        return Err(NoHandshake::UpgradeRequired);
    }
    if *request.method() != Method::GET {
        return Err(NoHandshake::Bad("a WebSocket begins with GET\n"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24) else {
        return Err(NoHandshake::Bad("Sec-WebSocket-Key is missing\n"));
    };
    if door == Door::Native && !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let ask = "ask for Sec-WebSocket-Protocol: rallypoint.v1.json\n";
        return Err(NoHandshake::Bad(ask));
    }
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::from_str(&accept).map_err(|_| NoHandshake::Bad("Sec-WebSocket-Key is wrong\n"))
}

fn refuse_handshake(why: &NoHandshake) -> Answer {
    match why {
        // RFC 6455 §4.4: name the version that would be right.
        NoHandshake::UpgradeRequired => {
            let response = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
            with(
                with(response, UPGRADE, "websocket"),
                SEC_WEBSOCKET_VERSION,
                "13",
            )
        }
        NoHandshake::Bad(message) => text(StatusCode::BAD_REQUEST, message),
    }
}

fn refuse(why: Admission) -> Answer {
    let busy = |message, seconds: u64| {
        with(
            text(StatusCode::SERVICE_UNAVAILABLE, message),
            RETRY_AFTER,
            &seconds.to_string(),
        )
    };
    let many = |message, seconds: u64| {
        with(
            text(StatusCode::TOO_MANY_REQUESTS, message),
            RETRY_AFTER,
            &seconds.to_string(),
        )
    };
    match why {
        Admission::Draining => busy("the server is going down\n", 5),
        Admission::Full | Admission::AddressTableFull => busy("the server is full\n", 10),
        Admission::AddressFull => many("too many connections from this address\n", 10),
        Admission::ConnectRate(wait) => many(
            "too many new connections from this address\n",
            wait.as_secs() + 1,
        ),
    }
}

fn text(status: StatusCode, message: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(message.as_bytes())));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Answer, name: HeaderName, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
