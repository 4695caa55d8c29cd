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
use ops::label;
use ops::metrics::{CounterVec, MetricError, Registry};
use rustls::ServerConfig;

use crate::config::TlsFiles;
use crate::tls::{self, TlsError};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

label! {
    /// What came of a changed certificate.
    pub(crate) enum Reload: "outcome" {
        Served = "served",
        Refused = "refused",
    }
}

/// What new TLS connections are accepted with; shared by all shards.
#[derive(Debug, Clone)]
pub(crate) struct Certificates(Arc<ArcSwap<ServerConfig>>);

impl Certificates {
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::new(tls::load(files)?))))
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }

    /// Serves what was loaded from other files.
    pub(crate) fn replace(&self, loaded: &Self, reloads: &CounterVec<Reload>) {
        self.0.store(loaded.current());
        reloads.with(Reload::Served).inc();
    }
}

/// Declares the count of reloads; without TLS it stays 0.
pub(crate) fn declare(registry: &Registry) -> Result<CounterVec<Reload>, MetricError> {
    registry.counter_vec(
        "rallypoint_tls_certificate_reloads_total",
        "Changed certificates: served, or refused while the old one stays.",
    )
}

/// The thread that looks at the files; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(
        certificates: Certificates,
        files: TlsFiles,
        reloads: CounterVec<Reload>,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut seen = stamps(&files);
        let thread = thread::Builder::new()
            .name("turn-tls".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    let stamps = stamps(&files);
                    if stamps != seen {
                        seen = stamps;
                        reload(&certificates, &files, &reloads);
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

fn reload(certificates: &Certificates, files: &TlsFiles, reloads: &CounterVec<Reload>) {
    match tls::load(files) {
        Ok(config) => {
            certificates.0.store(config);
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

/// What changes when a file is written or replaced.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    let stamp = |path: &Path| -> Stamp {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}
