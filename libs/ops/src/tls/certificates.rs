//! The certificate in use, replaced when its files change and are right; until then the old one stays.
//!
//! New connections get the new certificate, running ones keep what they shook hands with.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{TlsError, TlsFiles, load};
use crate::label;
use crate::metrics::{CounterVec, MetricError, Registry};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

label! {
    /// What came of a changed certificate.
    pub enum Reload: "outcome" {
        /// It is served to new connections.
        Served = "served",
        /// It is at fault, and the old one stays.
        Refused = "refused",
    }
}

/// How often which of them came about.
pub type Reloads = CounterVec<Reload>;

/// What new TLS connections are accepted with; shared by all threads.
#[derive(Debug, Clone)]
pub struct Certificates {
    current: Arc<ArcSwap<ServerConfig>>,
    alpn: &'static [&'static [u8]],
}

impl Certificates {
    /// Reads the first one; connections may agree on a protocol named in `alpn`.
    ///
    /// # Errors
    /// Which file is at fault, and why.
    pub fn load(files: &TlsFiles, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let config = load(files, alpn)?;
        Ok(Self {
            current: Arc::new(ArcSwap::new(config)),
            alpn,
        })
    }

    /// What to accept the next connection with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Serves what was loaded from other files.
    pub fn replace(&self, loaded: &Self, reloads: &Reloads) {
        self.current.store(loaded.current());
        reloads.with(Reload::Served).inc();
    }

    /// Reads the files again and serves what is in them; if that is at fault, the old one stays.
    pub fn reload(&self, files: &TlsFiles, reloads: &Reloads) {
        match load(files, self.alpn) {
            Ok(config) => {
                self.current.store(config);
                reloads.with(Reload::Served).inc();
                tracing::info!(certificate = %files.certificate.display(), "new certificate served");
            }
            // Two files change one after the other: the next look sees the second change.
            Err(error) => {
                reloads.with(Reload::Refused).inc();
                tracing::warn!(%error, "changed certificate refused, the old one stays");
            }
        }
    }
}

/// Declares the count of reloads; without TLS it stays 0.
///
/// # Errors
/// It is declared already.
pub fn declare(registry: &Registry) -> Result<Reloads, MetricError> {
    registry.counter_vec(
        "rallypoint_tls_certificate_reloads_total",
        "Changed certificates: served, or refused while the old one stays.",
    )
}

/// The thread that looks at the files; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to look at `files`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        certificates: Certificates,
        files: TlsFiles,
        reloads: Reloads,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut seen = stamps(&files);
        let thread = thread::Builder::new()
            .name("tls-watch".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    let stamps = stamps(&files);
                    if stamps != seen {
                        seen = stamps;
                        certificates.reload(&files, &reloads);
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its own fault is no reason to fail the shutdown.
            let _ = thread.join();
        }
    }
}

/// What changes when a file is written or replaced.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    let stamp = |path: &Path| -> Stamp {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}
