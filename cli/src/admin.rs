//! `rallypoint admin`: what an operator sees and does on a relay that runs, over its admin API.

pub mod args;
mod http;
mod words;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use turn_relay::admin::{
    AllocationKicked, AllocationPage, Blocks, Drained, MissingShard, Quotas, ReloadOutcome, Status,
    Unblocked, UserKicked,
};

use crate::output;
use args::{Action, AdminArgs};
use http::{Relay, encode};

/// Allocations that are asked for at once.
const PAGE: usize = 500;

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The URL is none that can be called.
    #[error("--url: `{0}` is no http://host:port of an admin listener")]
    Url(String),
    /// No token was named.
    #[error(
        "--token-file (or RALLYPOINT_ADMIN_TOKEN_FILE): which file is the relay's [admin] token in?"
    )]
    NoTokenFile,
    /// The token cannot be had.
    #[error("--token-file: {0}")]
    TokenFile(String),
    /// Nobody answers.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// Who answers is no relay with an admin API.
    #[error("{url} has no admin API of a relay (status {status})")]
    NoApi {
        /// Where.
        url: String,
        /// What it said.
        status: u16,
    },
    /// The relay refuses.
    #[error("{0}")]
    Refused(String),
    /// The relay is of another version.
    #[error("the answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// Shards that have not answered.
    #[error("{0} (docs/admin-api.md says what that means)")]
    Incomplete(String),
    /// The system has no thread or descriptor for us.
    #[error("starting: {0}")]
    Start(#[from] std::io::Error),
}

impl AdminError {
    /// In the words of the relay, fault by fault.
    fn refused(answer: &Value) -> Self {
        let text = |value: &Value| words::plain(value.as_str().unwrap_or_default());
        let error = answer.get("error").unwrap_or(&Value::Null);
        let mut said = format!("{} ({})", text(&error["message"]), text(&error["code"]));
        for fault in error["faults"].as_array().into_iter().flatten() {
            said += &format!("\n  {}: {}", text(&fault["key"]), text(&fault["reason"]));
        }
        Self::Refused(said)
    }
}

/// Does one thing and tells what came of it.
///
/// # Errors
/// The relay cannot be reached, or refuses, or some of its shards have not answered.
pub fn run(args: &AdminArgs) -> Result<(), AdminError> {
    let relay = Relay::new(&args.url, args.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let missing = runtime.block_on(act(&relay, args))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(AdminError::Incomplete(words::missing(&missing)))
}

/// Shards that have not answered are returned.
async fn act(relay: &Relay, args: &AdminArgs) -> Result<Vec<MissingShard>, AdminError> {
    let nothing = Value::Null;
    let show = Show { json: args.json };
    match &args.action {
        Action::Status => {
            let status: Status = call(relay, "GET", "/v1/status", &nothing).await?;
            show.answer(&status, words::status)?;
            return Ok(words::not_ok(&status));
        }
        Action::Allocations { user, limit } => {
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            let page = allocations(relay, user.as_deref(), limit).await?;
            show.answer(&page, words::allocations)?;
            return Ok(page.missing_shards);
        }
        Action::Kick {
            allocation: Some(id),
            ..
        } => {
            let path = format!("/v1/allocations/{}/kick", encode(id));
            let kicked: AllocationKicked = call(relay, "POST", &path, &nothing).await?;
            show.answer(&kicked, |kicked| format!("ended {}", kicked.id))?;
        }
        Action::Kick { user, block, .. } => {
            let user = user.as_deref().unwrap_or_default();
            let path = format!("/v1/users/{}/kick", encode(user));
            let body = optional("block", block.as_deref());
            let kicked: UserKicked = call(relay, "POST", &path, &body).await?;
            show.answer(&kicked, words::kicked)?;
            return Ok(kicked.missing_shards);
        }
        Action::Blocks => {
            let blocks: Blocks = call(relay, "GET", "/v1/blocks", &nothing).await?;
            show.answer(&blocks, words::blocks)?;
            return Ok(blocks.missing_shards);
        }
        Action::Unblock { user } => {
            let path = format!("/v1/users/{}/block", encode(user));
            let unblocked: Unblocked = call(relay, "DELETE", &path, &nothing).await?;
            show.answer(&unblocked, words::unblocked)?;
            return Ok(unblocked.missing_shards);
        }
        Action::Quotas { changes } => {
            let quotas: Quotas = if changes.is_empty() {
                call(relay, "GET", "/v1/quotas", &nothing).await?
            } else {
                call(relay, "PATCH", "/v1/quotas", &patch(changes)).await?
            };
            show.answer(&quotas, words::quotas)?;
        }
        Action::Drain { deadline } => {
            let body = optional("deadline", deadline.as_deref());
            let drained: Drained = call(relay, "POST", "/v1/drain", &body).await?;
            show.answer(&drained, words::drained)?;
        }
        Action::Undrain => {
            let drained: Drained = call(relay, "DELETE", "/v1/drain", &nothing).await?;
            show.answer(&drained, words::drained)?;
        }
        Action::Reload => {
            let outcome: ReloadOutcome = call(relay, "POST", "/v1/reload", &nothing).await?;
            show.answer(&outcome, words::reloaded)?;
        }
    }
    Ok(Vec::new())
}

async fn call<T: DeserializeOwned>(
    relay: &Relay,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<T, AdminError> {
    let answer = relay.call(method, path, body).await?;
    Ok(serde_json::from_value(answer)?)
}

/// Page by page, as one.
async fn allocations(
    relay: &Relay,
    user: Option<&str>,
    limit: usize,
) -> Result<AllocationPage, AdminError> {
    let mut all = AllocationPage {
        allocations: Vec::new(),
        next: None,
        missing_shards: Vec::new(),
    };
    loop {
        let room = limit.saturating_sub(all.allocations.len());
        let mut path = format!("/v1/allocations?limit={}", room.min(PAGE));
        if let Some(user) = user {
            path += &format!("&user={}", encode(user));
        }
        if let Some(cursor) = &all.next {
            path += &format!("&cursor={}", encode(cursor));
        }
        let page: AllocationPage = call(relay, "GET", &path, &Value::Null).await?;
        all.allocations.extend(page.allocations);
        all.missing_shards.extend(page.missing_shards);
        all.next = page.next;
        if all.next.is_none() || all.allocations.len() >= limit {
            return Ok(all);
        }
    }
}

fn optional(key: &str, value: Option<&str>) -> Value {
    value.map_or(Value::Null, |value| json!({ key: value }))
}

/// Whole numbers are numbers, all else is text, as in the file.
fn patch(changes: &[(String, String)]) -> Value {
    let change = |(key, value): &(String, String)| {
        let number = value.parse::<u64>().map(Value::from);
        let value = number.unwrap_or_else(|_| value.as_str().into());
        (key.clone(), value)
    };
    Value::Object(changes.iter().map(change).collect::<Map<_, _>>())
}

/// How answers are told.
struct Show {
    json: bool,
}

impl Show {
    fn answer<T: Serialize>(
        &self,
        answer: &T,
        in_words: impl Fn(&T) -> String,
    ) -> Result<(), AdminError> {
        output::line(&if self.json {
            serde_json::to_string(answer)?
        } else {
            in_words(answer)
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_numbers_where_they_can_be() {
        let change = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let changes = [
            change("allocations", "7"),
            change("bandwidth-per-user", "2MiB"),
            change("x", "-1"),
        ];
        let expected = json!({ "allocations": 7, "bandwidth-per-user": "2MiB", "x": "-1" });
        assert_eq!(patch(&changes), expected);
    }

    #[test]
    fn refusals_are_told_fault_by_fault_and_harmlessly() {
        let answer = json!({ "error": {
            "code": "invalid", "message": "refused\u{1b}[2J",
            "faults": [{ "key": "a", "reason": "b" }]
        } });
        let said = AdminError::refused(&answer).to_string();
        assert_eq!(said, "refused\\u{1b}[2J (invalid)\n  a: b");
    }
}
