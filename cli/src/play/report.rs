//! What `play` says while it runs: a JSON object a line for programs, a sentence a line for people.

use std::time::Duration;

use rallypoint_client::{CandidateInfo, PathInfo, PathKind};
use serde_json::{Value, json};

use crate::output;
use crate::play::session::Figures;

/// Where the events of one player go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    json: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn joined(self, room: &str, you: u16, players: &[String]) {
        self.say(
            || json!({ "event": "joined", "room": room, "you": you, "players": players }),
            || match players.first() {
                Some(other) => format!("joined as player {you}; {other} is here"),
                None => format!("joined as player {you}; waiting for the other player"),
            },
        );
    }

    pub(crate) fn player_joined(self, player: u16, name: &str) {
        self.say(
            || json!({ "event": "player_joined", "player": player, "name": name }),
            || format!("{name} is here"),
        );
    }

    pub(crate) fn signaling_lost(self, reason: &str, retry_in: Duration) {
        self.say(
            || json!({ "event": "signaling_lost", "reason": reason, "retry_ms": millis(retry_in) }),
            || format!("signaling: {reason}; trying again in {retry_in:.1?}"),
        );
    }

    pub(crate) fn candidate(self, candidate: &CandidateInfo) {
        self.say(
            || {
                json!({
                    "event": "candidate",
                    "kind": candidate.kind.to_string(),
                    "address": candidate.address,
                    "server": candidate.server.as_deref(),
                    "transport": candidate.transport.map(|transport| transport.to_string()),
                })
            },
            || format!("  candidate {candidate}"),
        );
    }

    pub(crate) fn gathered(self, candidates: usize, took: Duration) {
        self.say(
            || json!({ "event": "gathered", "candidates": candidates, "took_ms": millis(took) }),
            || format!("gathered {candidates} candidates in {}", shown(took)),
        );
    }

    /// For programs only: people get the diary's sum when something fails.
    pub(crate) fn diary(self, at: Duration, text: &str) {
        if self.json {
            let event = json!({ "event": "diary", "at_ms": millis(at), "text": text });
            output::line(&event.to_string());
        }
    }

    pub(crate) fn connected(self, name: &str, path: &PathInfo, trust: &str, took: Duration) {
        self.say(
            || {
                let mut event = path_json(path);
                event["event"] = "connected".into();
                event["player"] = name.into();
                event["trust"] = trust.into();
                event["total_ms"] = millis(took).into();
                event
            },
            || format!("connected to {name} in {}: {path}", shown(took)),
        );
    }

    pub(crate) fn path_changed(self, from: &PathInfo, to: &PathInfo, gap: Duration) {
        self.say(
            || {
                let mut event = path_json(to);
                event["event"] = "path_changed".into();
                event["from"] = path_json(from);
                event["gap_ms"] = millis(gap).into();
                event
            },
            || format!("path changed after {} of silence: {to}", shown(gap)),
        );
    }

    pub(crate) fn done(self, figures: &Figures, path: Option<&PathInfo>) {
        self.say(
            || {
                let mut event = json!(figures);
                event["event"] = "done".into();
                event["path"] = path.map(|path| path_json(path)["path"].clone()).into();
                event
            },
            || done_sentence(figures, path),
        );
    }

    /// The reason itself goes to stderr in words; programs find it in the stream of events too.
    pub(crate) fn failed(self, reason: &str) {
        if self.json {
            output::line(&json!({ "event": "failed", "reason": reason }).to_string());
        }
    }

    fn say(self, json: impl FnOnce() -> Value, words: impl FnOnce() -> String) {
        output::line(&if self.json {
            json().to_string()
        } else {
            words()
        });
    }
}

fn done_sentence(figures: &Figures, path: Option<&PathInfo>) -> String {
    let mut text = format!(
        "done: sent {}, {} came back; received {} of {}",
        figures.sent, figures.echoed, figures.received, figures.expected
    );
    if let Some(rtt) = figures.rtt_ms {
        text += &format!("; round trip {rtt:.2} ms");
    }
    if let Some(path) = path {
        text += &format!("; path {}", path.kind);
    }
    for (what, file) in [
        ("sent", &figures.file_sent),
        ("received", &figures.file_received),
    ] {
        if let Some(file) = file {
            text += &format!(
                "\nfile {what}: {} bytes, SHA-256 {}",
                file.bytes, file.sha256
            );
        }
    }
    text
}

/// `path` is `direct` or `relay`; how our side reaches the relay stands beside it.
fn path_json(path: &PathInfo) -> Value {
    let (kind, transport) = match path.kind {
        PathKind::Direct => ("direct", None),
        PathKind::Relayed { transport } => ("relay", Some(transport.to_string())),
    };
    json!({
        "path": kind,
        "transport": transport,
        "local": path.local,
        "remote": path.remote,
        "local_kind": path.local_kind.to_string(),
        "remote_kind": path.remote_kind.to_string(),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
