//! The server: listeners, and the connections they accept until they upgrade.

use crate::config::{ALPN, Config};
use crate::counters::{Counters, RefusedWhy};
use crate::http::{self, Caller, Gate};
use crate::hub::Hub;
use crate::status::Status;
use crate::turn_credentials::IceServers;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ops::config::{ListenUrl, Scheme};
use ops::metrics::{MetricError, Registry};
use ops::tls::{self, Certificates, Serving, TlsError};
use signaling_lobby::{Lobbies, PassphraseKey};
use socket2::{Domain, Protocol, Socket, Type};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections that have not upgraded: shaking hands, asking for the page.
const HTTP_CONNECTIONS: usize = 2048;
/// The longest request head.
const HEAD_BYTES: usize = 8 * 1024;
/// The most header lines of a request.
const HEADERS: usize = 64;
/// How long a connection that does not upgrade may live.
const HTTP_TIME: Duration = Duration::from_secs(60);
/// Connections the system queues before they are accepted.
const BACKLOG: i32 = 1024;
/// How long accepting rests after it failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address that could not be listened on.
    #[error("{url}: {source}")]
    Listen {
        /// The listener of the configuration.
        url: ListenUrl,
        /// What the system said.
        source: io::Error,
    },
    /// An `https` listener without a certificate.
    #[error("{url}: https needs [tls] with certificate and key")]
    NoCertificate {
        /// The listener of the configuration.
        url: ListenUrl,
    },
    /// A certificate that cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics that are declared already.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// A running signaling server.
#[derive(Debug)]
pub struct Server {
    local_addrs: Vec<(Scheme, SocketAddr)>,
    gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Ends when the last connection is gone.
    gone: mpsc::Receiver<()>,
    _serving: Option<Serving>,
}

impl Server {
    /// Listens and serves until [`Server::shutdown`].
    ///
    /// # Errors
    /// [`BindError`] names the address or file.
    #[expect(
        clippy::unused_async,
        reason = "it spawns: it must be called on a runtime"
    )]
    pub async fn bind(config: Config, registry: &Registry) -> Result<Self, BindError> {
        let reloads = tls::declare(registry)?;
        let serving = config.tls.clone();
        let serving = serving.map(|files| Serving::start(files, ALPN, reloads));
        let serving = serving.transpose()?;
        let listeners = listen(&config, serving.as_ref().map(Serving::certificates))?;
        let gate = open(config, registry)?;
        let (stop, stopped) = watch::channel(false);
        let (alive, gone) = mpsc::channel(1);
        let accepting = Accepting {
            gate: Arc::clone(&gate),
            permits: Arc::new(Semaphore::new(HTTP_CONNECTIONS)),
            alive,
            stopped,
        };
        let mut tasks = Vec::new();
        let mut local_addrs = Vec::new();
        for Listening {
            scheme,
            address,
            listener,
            tls,
        } in listeners
        {
            local_addrs.push((scheme, address));
            tasks.push(tokio::spawn(accepting.clone().accept(listener, tls)));
        }
        Ok(Self {
            local_addrs,
            gate,
            stop,
            tasks,
            gone,
            _serving: serving,
        })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<(Scheme, SocketAddr)> {
        self.local_addrs.clone()
    }

    /// Stops listening, tells everybody when to come back, closes all connections (1001) and waits
    /// for that at most the drain timeout.
    pub async fn shutdown(self) {
        let Self {
            gate,
            stop,
            tasks,
            mut gone,
            ..
        } = self;
        stop.send_replace(true);
        gate.hub.drain().await;
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
        let drain_timeout = gate.config.limits.drain_timeout;
        drop(gate);
        // Nothing is ever sent: this waits for the last sender to be dropped.
        let _ = timeout(drain_timeout, gone.recv()).await;
    }
}

struct Listening {
    scheme: Scheme,
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<Certificates>,
}

/// Binds every listener before the first is served, so that a fault leaves nothing half open.
fn listen(
    config: &Config,
    certificates: Option<&Certificates>,
) -> Result<Vec<Listening>, BindError> {
    let mut listeners = Vec::new();
    for url in &config.listen {
        let tls = match (url.scheme, certificates) {
            (Scheme::Https, None) => return Err(BindError::NoCertificate { url: *url }),
            (Scheme::Https, Some(certificates)) => Some(certificates.clone()),
            (_, _) => None,
        };
        let bind_error = |source| BindError::Listen { url: *url, source };
        let listener = bind_tcp(url.address).map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        listeners.push(Listening {
            scheme: url.scheme,
            address,
            listener,
            tls,
        });
    }
    for url in config.plain_public_listeners() {
        tracing::warn!(%url, "plain http: whoever is on the way can read and change signaling");
    }
    Ok(listeners)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the last run in TIME_WAIT must not keep a restart from listening.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Everything behind the listeners.
fn open(config: Config, registry: &Registry) -> Result<Arc<Gate>, BindError> {
    let counters = Arc::new(Counters::new(registry, &config)?);
    let http = registry.http()?;
    http::declare(&http);
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(BindError::Random)?;
    let lobbies = Lobbies::new(config.lobby(), passphrase_key(&config)?, seed);
    let status = Arc::new(Status::new());
    let ice = IceServers::new(&config, Arc::clone(&counters));
    let hub = Hub::start(lobbies, ice, Arc::clone(&counters), Arc::clone(&status));
    let next_conn = AtomicU64::new(1);
    Ok(Arc::new(Gate {
        config,
        hub,
        counters,
        status,
        http,
        next_conn,
    }))
}

fn passphrase_key(config: &Config) -> Result<PassphraseKey, BindError> {
    if let Some(secret) = &config.passphrase.secret {
        return Ok(PassphraseKey::from_secret(secret.expose()));
    }
    tracing::info!("no passphrase key is configured: a random one is used until the next start");
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(BindError::Random)?;
    Ok(PassphraseKey::new(key))
}

#[derive(Clone)]
struct Accepting {
    gate: Arc<Gate>,
    permits: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
    stopped: watch::Receiver<bool>,
}

impl Accepting {
    async fn accept(mut self, listener: TcpListener, tls: Option<Certificates>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                self.gate
                    .counters
                    .connections_refused
                    .with(RefusedWhy::Handshakes)
                    .inc();
                continue;
            };
            // Signals are small and waited for; without this they would wait for each other.
            let _ = stream.set_nodelay(true);
            let caller = Caller {
                peer,
                secure: tls.is_some(),
                alive: self.alive.clone(),
            };
            let gate = Arc::clone(&self.gate);
            let stopped = self.stopped.clone();
            // Each connection shakes hands with the newest certificate.
            match tls.as_ref().map(|tls| TlsAcceptor::from(tls.current())) {
                None => tokio::spawn(serve(gate, caller, stream, permit, stopped)),
                Some(tls) => tokio::spawn(shake_hands(gate, caller, stream, tls, permit, stopped)),
            };
        }
    }
}

async fn shake_hands(
    gate: Arc<Gate>,
    caller: Caller,
    stream: TcpStream,
    tls: TlsAcceptor,
    permit: OwnedSemaphorePermit,
    stopped: watch::Receiver<bool>,
) {
    match timeout(gate.config.limits.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(gate, caller, stream, permit, stopped).await,
        Ok(Err(_)) | Err(_) => gate
            .counters
            .connections_refused
            .with(RefusedWhy::Tls)
            .inc(),
    }
}

/// HTTP on one connection, until it ends or becomes a WebSocket, whose task is another.
async fn serve<S>(
    gate: Arc<Gate>,
    caller: Caller,
    stream: S,
    _permit: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head_time = gate.config.limits.handshake_timeout;
    let service = service_fn(move |request| {
        let (gate, caller) = (Arc::clone(&gate), caller.clone());
        async move { Ok::<_, Infallible>(gate.answer(caller, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "http");
            }
        }
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = sleep(HTTP_TIME) => {}
    }
}
