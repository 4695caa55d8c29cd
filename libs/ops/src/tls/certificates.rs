//! The certificate in use, replaced when its files change and are right; until then the old one stays.
//!
//! New connections get the new certificate, running ones keep what they shook hands with.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{TlsError, TlsFiles, load};
use crate::config::ListenUrl;
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

    /// Reads the files again and serves what is in them; if that is at fault, the old one stays.
    pub(super) fn reload(&self, files: &TlsFiles, reloads: &Reloads) {
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

/// A certificate in use, where it comes from, and who looks whether it changes there: until this is dropped.
#[derive(Debug)]
pub struct Serving {
    certificates: Certificates,
    files: TlsFiles,
    reloads: Reloads,
    watch: Watch,
}

impl Serving {
    /// Reads the files and watches them from then on.
    ///
    /// # Errors
    /// Which file is at fault, and why; or the system has no thread for the watch.
    pub fn start(
        files: TlsFiles,
        alpn: &'static [&'static [u8]],
        reloads: Reloads,
    ) -> Result<Self, TlsError> {
        let certificates = Certificates::load(&files, alpn)?;
        let watch = Watch::start(certificates.clone(), files.clone(), reloads.clone())?;
        Ok(Self {
            certificates,
            files,
            reloads,
            watch,
        })
    }

    /// The same from a configuration: nothing without files, unless a listener cannot do without.
    ///
    /// # Errors
    /// As of [`Self::start`]; or which listener needs files.
    pub fn of(
        listen: &[ListenUrl],
        files: Option<&TlsFiles>,
        alpn: &'static [&'static [u8]],
        reloads: Reloads,
    ) -> Result<Option<Self>, TlsError> {
        let needs_tls = listen.iter().find(|url| url.scheme.needs_certificate());
        match (files, needs_tls) {
            (Some(files), _) => Self::start(files.clone(), alpn, reloads).map(Some),
            (None, Some(url)) => Err(TlsError::Missing(*url)),
            (None, None) => Ok(None),
        }
    }

    /// What connections are accepted with.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Serves what is in other files, or what the same ones hold now; if the same are at fault, the old certificate stays
    /// and the log says why.
    ///
    /// # Errors
    /// Another file is at fault, and why; or the system has no thread for the watch. Everything stays as it was.
    pub fn take_over(&mut self, files: &TlsFiles) -> Result<(), TlsError> {
        if *files == self.files {
            self.certificates.reload(&self.files, &self.reloads);
            return Ok(());
        }
        let config = load(files, self.certificates.alpn)?;
        let (certificates, reloads) = (self.certificates.clone(), self.reloads.clone());
        self.watch = Watch::start(certificates, files.clone(), reloads)?;
        self.files = files.clone();
        self.certificates.current.store(config);
        self.reloads.with(Reload::Served).inc();
        Ok(())
    }
}

/// The thread that looks at the files; it ends when this is dropped.
#[derive(Debug)]
struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(
        certificates: Certificates,
        files: TlsFiles,
        reloads: Reloads,
    ) -> Result<Self, TlsError> {
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
            })
            .map_err(TlsError::Watch)?;
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
