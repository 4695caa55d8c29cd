//! Logs on stderr, as text for people or JSON for machines, and counted by level.
//!
//! Nothing that a stranger's bytes cause is logged above debug; those things are counted.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{FromRaw, FromValue, Section, Value};

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
    let fallback = |_| Targets::new().with_default(Level::INFO);
    let filter: Targets = config.level.0.parse().unwrap_or_else(fallback);
    let stderr = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    let outcome = match config.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
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
    outcome.map_err(|_| AlreadyInitialised)
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
static MESSAGES: [AtomicU64; LEVELS.len()] = [const { AtomicU64::new(0) }; LEVELS.len()];

/// How many messages of each level were logged so far.
pub fn message_counts() -> impl Iterator<Item = (&'static str, u64)> {
    LEVELS
        .iter()
        .zip(&MESSAGES)
        .map(|(level, count)| (*level, count.load(Ordering::Relaxed)))
}

struct CountByLevel;

impl<S: Subscriber> Layer<S> for CountByLevel {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let order = [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ];
        let position = order.iter().position(|candidate| *candidate == level);
        if let Some(count) = position.and_then(|position| MESSAGES.get(position)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
