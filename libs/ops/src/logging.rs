//! Logs on stderr, as text for people or JSON for machines, and counted by level.
//!
//! Nothing that a stranger's bytes cause is logged above debug; those things are counted. Of each kind of line ten a
//! second are written ([`limit`]), and where the disk is full none: logging never fails and never waits for room.

mod limit;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::filter::{FilterExt, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{FromRaw, FromValue, Section, Value};
use limit::RateLimit;

/// The `[log]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// What is logged at all.
    pub level: LogLevel,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured only on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged: a level, and levels for parts of the program: `"info,turn_relay=debug"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromValue for LogLevel {
    const EXPECTED: &'static str =
        "error, warn, info, debug or trace, or several such as \"info,turn_relay=debug\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        let text = value
            .text()
            .ok_or_else(|| format!("expected {}", Self::EXPECTED))?;
        if text.split(',').all(is_directive) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}`: expected {}", Self::EXPECTED))
    }
}

/// Stricter than the filter's own grammar, which takes a misspelt level for the name of a target.
fn is_directive(text: &str) -> bool {
    let (target, level) = text.rsplit_once('=').unwrap_or(("any", text));
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    !target.is_empty()
        && target
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        && levels.contains(&level)
}

impl FromRaw for LogConfig {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Some(Self {
            format: section.choice("format", LogFormat::Text, &formats),
            level: section.value("level", LogLevel::default()),
        })
    }
}

/// Logs could not be set up, because they are already.
#[derive(Debug, thiserror::Error)]
#[error("logs are set up already")]
pub struct AlreadyInitialised;

/// Sends what the process logs from now on to stderr.
///
/// # Errors
/// It was called before.
pub fn init(config: &LogConfig) -> Result<(), AlreadyInitialised> {
    let (levels, handle) = reload::Layer::new(config.level.targets());
    let filter = levels.and(RateLimit::start());
    let stderr = fmt::layer().with_writer(Stderr);
    let registry = tracing_subscriber::registry();
    let outcome = match config.format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry
                .with(
                    stderr
                        .with_ansi(colours)
                        .and_then(CountByLevel)
                        .with_filter(filter),
                )
                .try_init()
        }
        LogFormat::Json => {
            let json = stderr.with_ansi(false).json().flatten_event(true);
            registry
                .with(json.and_then(CountByLevel).with_filter(filter))
                .try_init()
        }
    };
    outcome.map_err(|_| AlreadyInitialised)?;
    let _first = LEVEL.set(handle);
    Ok(())
}

/// What changes levels while the process runs.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Logs at this level from now on. Without [`init`] there is nothing to change.
pub fn set_level(level: &LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails when the subscriber is gone, which is global and never is.
        let _ = handle.reload(level.targets());
    }
}

impl LogLevel {
    fn targets(&self) -> Targets {
        let fallback = |_| Targets::new().with_default(Level::INFO);
        let levels: Targets = self.0.parse().unwrap_or_else(fallback);
        // What counts lines that were held back is shown whatever part they were of.
        levels.with_target(limit::SUMMARY, LevelFilter::TRACE)
    }
}

/// The name of lines that an operator's own act causes, as many as his file has entries:
/// `tracing::warn!(name: OPERATOR, ...)`. They are never held back.
pub const OPERATOR: &str = "operator";

/// How many messages of each level were logged so far.
pub fn message_counts() -> impl Iterator<Item = (&'static str, u64)> {
    MESSAGES.counts()
}

/// How many messages of each level were held back, because there were more than ten of their kind in a second.
pub fn suppressed_counts() -> impl Iterator<Item = (&'static str, u64)> {
    limit::SUPPRESSED.counts()
}

/// How many writes of the log the system refused, such as for want of room on a disk.
#[must_use]
pub fn failed_writes() -> u64 {
    FAILED_WRITES.load(Ordering::Relaxed)
}

static FAILED_WRITES: AtomicU64 = AtomicU64::new(0);

/// Standard error whose faults are counted and go no further: a full disk stops nothing.
#[derive(Debug, Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if io::stderr().write_all(bytes).is_err() {
            FAILED_WRITES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// A count for each level.
struct ByLevel([AtomicU64; LEVELS.len()]);

const LEVELS: [(Level, &str); 5] = [
    (Level::ERROR, "error"),
    (Level::WARN, "warn"),
    (Level::INFO, "info"),
    (Level::DEBUG, "debug"),
    (Level::TRACE, "trace"),
];
static MESSAGES: ByLevel = ByLevel::new();

impl ByLevel {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; LEVELS.len()])
    }

    fn inc(&self, level: Level) {
        let position = LEVELS.iter().position(|(candidate, _)| *candidate == level);
        if let Some(count) = position.and_then(|position| self.0.get(position)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = LEVELS.iter().zip(&self.0);
        named.map(|((_, level), count)| (*level, count.load(Ordering::Relaxed)))
    }
}

struct CountByLevel;

impl<S: Subscriber> Layer<S> for CountByLevel {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        MESSAGES.inc(*event.metadata().level());
    }
}
