//! The health page at `/`: HTML for people, JSON for programs, the same facts in both.

use crate::status::Snapshot;
use serde_json::json;
use std::fmt::Write as _;

/// Which form a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
}

impl Form {
    /// HTML for whoever names it in `Accept` no later than JSON; JSON for everybody else.
    pub(crate) fn of_accept(accept: &str) -> Self {
        let first =
            accept
                .split(',')
                .find_map(|item| match item.split(';').next().map_or("", str::trim) {
                    "text/html" | "application/xhtml+xml" | "text/*" => Some(Self::Html),
                    "application/json" | "application/*" => Some(Self::Json),
                    _ => None,
                });
        first.unwrap_or(Self::Json)
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

pub(crate) fn render(form: Form, status: &Snapshot) -> String {
    match form {
        Form::Html => html(status),
        Form::Json => json(status),
    }
}

fn json(status: &Snapshot) -> String {
    let recent: Vec<_> = status
        .recent
        .iter()
        .map(|(ago, what)| json!({ "seconds_ago": ago.as_secs(), "what": what }))
        .collect();
    let census = &status.census;
    let page = json!({
        "service": "rallypoint-signal",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": status.uptime.as_secs(),
        "active_peers": census.connections,
        "lobbies": census.lobbies,
        "lobbies_ready": census.lobbies_ready,
        "lobbies_opened": status.lobbies_opened,
        "recent_activity": recent,
    });
    format!("{page:#}\n")
}

fn html(status: &Snapshot) -> String {
    let census = &status.census;
    let mut recent = String::new();
    for (ago, what) in &status.recent {
        let _ = write!(recent, "<li>{what}, {} ago</li>", in_words(ago.as_secs()));
    }
    if recent.is_empty() {
        recent.push_str("<li>nothing yet</li>");
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Rallypoint signaling</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32em;margin:3em auto;padding:0 1em}}\
         dt{{color:#666}}dd{{margin:0 0 .6em;font-size:1.4em}}</style></head><body>\
         <h1>Rallypoint signaling</h1><dl>\
         <dt>Active peers</dt><dd>{peers}</dd>\
         <dt>Lobbies</dt><dd>{lobbies}, {ready} of them ready</dd>\
         <dt>Up for</dt><dd>{uptime}</dd></dl>\
         <h2>Recent activity</h2><ul>{recent}</ul><p>Version {version}</p></body></html>\n",
        peers = census.connections,
        lobbies = census.lobbies,
        ready = census.lobbies_ready,
        uptime = in_words(status.uptime.as_secs()),
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn in_words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min"),
        () => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_programs_json() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(Form::of_accept(browser), Form::Html);
        assert_eq!(Form::of_accept("application/json, text/html"), Form::Json);
        assert_eq!(Form::of_accept("*/*"), Form::Json);
        assert_eq!(Form::of_accept(""), Form::Json);
    }

    #[test]
    fn times_are_told_in_words() {
        let words: Vec<_> = [5, 65, 3_700, 90_000].map(in_words).into();
        assert_eq!(words, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
