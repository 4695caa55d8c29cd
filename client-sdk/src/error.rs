//! What can go wrong, each naming the address, room or key at fault.

use std::time::Duration;

pub use client_sdk_proto::SendError;

/// Why a room could not be joined, or was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The signaling server could not be reached, or broke off before the room was joined.
    #[error("signaling server {url}: {reason}")]
    Signaling {
        /// The URL that was given.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The signaling server refused.
    #[error("the signaling server refused ({code}): {message}{}", retry(*.retry_after))]
    Refused {
        /// Its error code, as documented in docs/signaling-protocol.md: `lobby_full`, `conflict`, `bad_passphrase`, ...
        code: String,
        /// Its sentence.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// No datagram socket could be bound.
    #[error("no network: {reason}")]
    Network {
        /// What the operating system said.
        reason: String,
    },
}

impl ConnectError {
    /// A stable word for logs and bindings.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Signaling { .. } => "signaling",
            Self::Refused { code, .. } => code,
            Self::Network { .. } => "network",
        }
    }
}

fn retry(after: Option<Duration>) -> String {
    after.map_or_else(String::new, |after| {
        format!("; try again in {} ms", after.as_millis())
    })
}

/// Why an endpoint could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The signaling URL is not `ws://host[:port][/path]` or `wss://...`.
    #[error("signaling URL `{url}`: {reason}")]
    Url {
        /// The URL that was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A trusted certificate is not one.
    #[error("trusted certificate {index}: {reason}")]
    Certificate {
        /// Which, counted from 0 in the order given.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system gave no random bytes, thread or runtime.
    #[error("cannot start: {reason}")]
    System {
        /// What it said.
        reason: String,
    },
}
