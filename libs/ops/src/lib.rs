//! What every long-running Rallypoint process needs, and nothing of any protocol.
//!
//! - [`config`]: TOML in, a checked value or *every* fault of the file out.
//! - [`logging`]: text or JSON on stderr, counted by level.
//! - [`metrics`]: the only place that knows the metrics library.
//! - [`admin`]: `/metrics`, `/healthz`, `/readyz` on a listener of their own.
//! - [`health`]: ready and draining, told to probes, to Prometheus and to systemd.
//! - [`shutdown`]: SIGTERM and SIGINT; a second one ends the process at once.
//! - [`hangup`]: SIGHUP, by which operators ask for a reload.
//! - [`reload`]: when to read the configuration again, and what came of it.
//! - [`tls`]: certificates, read, checked and replaced while connections run.
//! - [`daemon`]: the command line the three daemons share, and the abort-on-panic hook.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod daemon;
pub mod hangup;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod reload;
pub mod shutdown;
pub mod tls;

pub use health::Health;
