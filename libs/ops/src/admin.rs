//! The operator's listener: `/metrics`, `/healthz` and `/readyz` over HTTP/1.1, bounded in every way,
//! and a product's own routes under `/v1/` behind a token.

pub mod api;
mod door;
mod guesses;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use api::Api;
use door::Door;

use crate::health::Health;
use crate::metrics::{self, Counter, HttpMetrics, MetricError, Registry};

/// Connections served at a time; more are closed at once and counted.
const CONNECTIONS: usize = 64;
/// The longest request head.
const HEAD_BYTES: usize = 8 * 1024;
/// The most header lines of a request.
const HEADERS: usize = 64;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long one connection may live; a scraper comes back with a new one.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// How long an open connection may take to finish its answer when the listener ends.
const GRACE: Duration = Duration::from_secs(1);
/// How long accepting rests after it failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address could not be bound.
    #[error("admin listener {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its metrics could not be declared.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// A running admin listener.
#[derive(Debug)]
pub struct Admin {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Admin {
    /// Listens on `address` and serves until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// The address cannot be bound, or its metrics are declared already.
    pub async fn bind(
        address: SocketAddr,
        registry: Registry,
        health: Health,
    ) -> Result<Self, AdminError> {
        Self::open(address, registry, health, None).await
    }

    /// The same with a product's routes under `/v1/`.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub async fn bind_with_api(
        address: SocketAddr,
        registry: Registry,
        health: Health,
        api: Api,
    ) -> Result<Self, AdminError> {
        Self::open(address, registry, health, Some(Door::new(api))).await
    }

    async fn open(
        address: SocketAddr,
        registry: Registry,
        health: Health,
        door: Option<Door>,
    ) -> Result<Self, AdminError> {
        let http = registry.http()?;
        for handler in [
            Handler::Metrics,
            Handler::Healthz,
            Handler::Readyz,
            Handler::Other,
        ] {
            http.declare(handler.as_str(), handler.codes());
        }
        for handler in door.iter().flat_map(Door::handlers) {
            http.declare(handler, &[200, 401]);
        }
        let refused = registry.counter(
            "rallypoint_admin_connections_refused_total",
            "Connections to the admin listener closed because too many were open.",
        )?;
        let bind_error = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let local_addr = listener.local_addr().map_err(bind_error)?;
        let (stop, stopped) = watch::channel(false);
        let pages = Arc::new(Pages {
            registry,
            health,
            http,
            door,
        });
        let accepting = tokio::spawn(accept(listener, pages, refused, stopped));
        Ok(Self {
            local_addr,
            stop,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening and lets open connections finish what they answer.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let _ = self.accepting.await;
    }
}

async fn accept(
    listener: TcpListener,
    pages: Arc<Pages>,
    refused: Counter,
    mut stopped: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, from)) => match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    let pages = Arc::clone(&pages);
                    tokio::spawn(serve(stream, from.ip(), pages, permit, stopped.clone()));
                }
                Err(_) => refused.inc(),
            },
            Err(error) => {
                tracing::debug!(%error, "admin listener cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).expect("a small constant");
    let _ = timeout(GRACE, permits.acquire_many(all)).await;
}

async fn serve(
    stream: TcpStream,
    from: IpAddr,
    pages: Arc<Pages>,
    _permit: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request, from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
        () = sleep(CONNECTION_TIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection");
    }
}

/// What is answered: all of it small or rendered anew each time.
struct Pages {
    registry: Registry,
    health: Health,
    http: HttpMetrics,
    door: Option<Door>,
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>, from: IpAddr) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let door = self.door.as_ref();
        let (handler, response) = match door.filter(|_| request.uri().path().starts_with("/v1/")) {
            Some(door) => door.answer(request, from).await,
            None => {
                let handler = Handler::of(request.uri().path());
                (handler.as_str(), self.respond(handler, request.method()))
            }
        };
        let code = response.status().as_u16();
        self.http.record(handler, code, started.elapsed());
        response
    }

    fn respond(&self, handler: Handler, method: &Method) -> Response<Full<Bytes>> {
        if handler == Handler::Other {
            return page(
                StatusCode::NOT_FOUND,
                "try /metrics, /healthz or /readyz\n".to_owned(),
            );
        }
        // A HEAD request gets the same head; hyper leaves the body out.
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "only GET and HEAD\n".to_owned();
            let mut response = page(StatusCode::METHOD_NOT_ALLOWED, text);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match handler {
            Handler::Metrics => {
                let mut response = page(StatusCode::OK, self.registry.render());
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, content_type);
                response
            }
            Handler::Healthz | Handler::Other => page(StatusCode::OK, "ok\n".to_owned()),
            Handler::Readyz if self.health.is_ready() => page(StatusCode::OK, "ready\n".to_owned()),
            Handler::Readyz => {
                let draining = self.health.is_draining();
                let text = if draining {
                    "draining\n"
                } else {
                    "not ready\n"
                };
                page(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
            }
        }
    }
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The closed set of what can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    Metrics,
    Healthz,
    Readyz,
    Other,
}

impl Handler {
    fn of(path: &str) -> Self {
        match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Other => "other",
        }
    }

    fn codes(self) -> &'static [u16] {
        match self {
            Self::Metrics | Self::Healthz => &[200, 405],
            Self::Readyz => &[200, 405, 503],
            Self::Other => &[404],
        }
    }
}
