//! What an operator sees and does while the relay runs: the routes under `/v1/` of the admin
//! listener, as docs/admin-api.md has them.
//!
//! Lists and kicks go to the shards themselves, which answer between two batches; one that does not
//! is named. What is about the relay as a whole (quotas, drain, reload) is an order to whoever owns
//! the server ([`Operator`]).

mod listing;
mod orders;
mod shapes;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use net_io::clock;
use ops::Health;
use ops::admin::api::{ApiError, Call, Method, Route, Routes};
use ops::config::duration_from_text;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use turn_relay_proto::{Gauges, Ledger, MAX_BLOCKED_USERS, Relay};

use crate::server::Server;
use crate::shards::{Absence, Shards};
use listing::{AllocationId, Cursor, Mask};
use orders::{DrainDeadline, Orders, What};

pub use orders::{Operator, Task};
pub use shapes::{
    AllocationEntry, AllocationKicked, AllocationPage, Blocks, Carried, Drained, Levels,
    MaskedAddress, MissingShard, QuotaSource, Quotas, ReloadOutcome, ShardState, ShardStatus,
    Status, Unblocked, UserKicked,
};

/// How long shards and orders are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Allocations on a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 500;
/// For how long a user can be kept out at most.
const LONGEST_BLOCK: Duration = Duration::from_secs(24 * 3600);
/// How late allocations that are left of a drain can be ended.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// RFC 8489 section 14.3: USERNAME is less than 509 bytes.
const USER_BYTES: usize = 508;

/// What can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// [`Status`].
    Status,
    /// [`AllocationPage`].
    Allocations,
    /// [`AllocationKicked`].
    KickAllocation,
    /// [`UserKicked`].
    KickUser,
    /// [`Unblocked`].
    Unblock,
    /// [`Blocks`].
    Blocks,
    /// [`Quotas`].
    Quotas,
    /// [`Quotas`].
    ChangeQuotas,
    /// [`Drained`].
    Drain,
    /// [`Drained`].
    Undrain,
    /// [`ReloadOutcome`].
    Reload,
}

impl Endpoint {
    /// A key that nobody asks for is misspelt.
    fn check_keys(self, call: &Call<Self>) -> Result<(), ApiError> {
        match self {
            Self::Allocations => call.allow_only(&["user", "limit", "cursor"], &[]),
            Self::KickUser => call.allow_only(&[], &["block"]),
            Self::Drain => call.allow_only(&[], &["deadline"]),
            // Its keys are those of the file, and are judged as there.
            Self::ChangeQuotas => {
                let keys: Vec<&str> = call.body.keys().map(String::as_str).collect();
                call.allow_only(&[], &keys)
            }
            Self::Status
            | Self::KickAllocation
            | Self::Unblock
            | Self::Blocks
            | Self::Quotas
            | Self::Undrain
            | Self::Reload => call.allow_only(&[], &[]),
        }
    }
}

const fn route(
    method: Method,
    path: &'static str,
    handler: &'static str,
    endpoint: Endpoint,
) -> Route<Endpoint> {
    Route {
        method,
        path,
        handler,
        endpoint,
    }
}

/// Every route.
pub const ROUTES: &[Route<Endpoint>] = &[
    route(Method::Get, "/v1/status", "status", Endpoint::Status),
    route(
        Method::Get,
        "/v1/allocations",
        "allocations",
        Endpoint::Allocations,
    ),
    route(
        Method::Post,
        "/v1/allocations/{id}/kick",
        "kick_allocation",
        Endpoint::KickAllocation,
    ),
    route(
        Method::Post,
        "/v1/users/{user}/kick",
        "kick_user",
        Endpoint::KickUser,
    ),
    route(
        Method::Delete,
        "/v1/users/{user}/block",
        "unblock_user",
        Endpoint::Unblock,
    ),
    route(Method::Get, "/v1/blocks", "blocks", Endpoint::Blocks),
    route(Method::Get, "/v1/quotas", "quotas", Endpoint::Quotas),
    route(
        Method::Patch,
        "/v1/quotas",
        "change_quotas",
        Endpoint::ChangeQuotas,
    ),
    route(Method::Post, "/v1/drain", "drain", Endpoint::Drain),
    route(Method::Delete, "/v1/drain", "undrain", Endpoint::Undrain),
    route(Method::Post, "/v1/reload", "reload", Endpoint::Reload),
];

/// What calls reach: nothing while the relay starts, then its shards.
#[derive(Debug, Default)]
struct Reach {
    relay: OnceLock<(Shards, Arc<Ledger>)>,
    drain: DrainDeadline,
}

impl Reach {
    fn set(&self, server: &Server) {
        // A relay is started once in a process.
        let _ = self.relay.set((server.shards(), server.ledger()));
    }

    fn get(&self) -> Result<&(Shards, Arc<Ledger>), ApiError> {
        let starting = || ApiError::new(503, "starting", "the relay is not ready yet");
        self.relay.get().ok_or_else(starting)
    }

    fn drain_deadline(&self) -> Option<Instant> {
        self.drain.get()
    }

    fn set_drain_deadline(&self, deadline: Option<Instant>) {
        self.drain.set(deadline);
    }

    fn drain_seconds_left(&self) -> Option<u64> {
        let deadline = self.drain.get()?;
        let left = deadline.saturating_duration_since(Instant::now());
        Some(whole_seconds(left))
    }
}

/// Answers calls.
struct Answers {
    orders: Orders,
    reach: Arc<Reach>,
    health: Health,
    mask: Mask,
    started: std::time::Instant,
}

impl Routes for Answers {
    type Endpoint = Endpoint;

    const ROUTES: &'static [Route<Endpoint>] = ROUTES;

    async fn answer(&self, call: Call<Endpoint>) -> Result<Value, ApiError> {
        call.endpoint.check_keys(&call)?;
        match call.endpoint {
            Endpoint::Status => answer(&self.status().await?),
            Endpoint::Allocations => answer(&self.allocations(&call).await?),
            Endpoint::KickAllocation => answer(&self.kick_allocation(&call).await?),
            Endpoint::KickUser => answer(&self.kick_user(&call).await?),
            Endpoint::Unblock => answer(&self.unblock(&call).await?),
            Endpoint::Blocks => answer(&self.blocks().await?),
            Endpoint::Quotas => self.order(What::ShowQuotas).await,
            Endpoint::ChangeQuotas => self.order(What::ChangeQuotas(call.body)).await,
            Endpoint::Drain => {
                let deadline = duration(&call, "deadline", Duration::ZERO..=LONGEST_DRAIN)?;
                self.order(What::Drain(deadline)).await
            }
            Endpoint::Undrain => self.order(What::Undrain).await,
            Endpoint::Reload => self.order(What::Reload).await,
        }
    }
}

impl Answers {
    fn new(orders: Orders, reach: Arc<Reach>, health: Health) -> Self {
        Self {
            orders,
            reach,
            health,
            mask: Mask::default(),
            started: clock::mono(),
        }
    }

    async fn order(&self, what: What) -> Result<Value, ApiError> {
        self.reach.get()?;
        self.orders.give(what, Instant::now() + PATIENCE).await
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let (shards, ledger) = self.reach.get()?;
        let until = Instant::now() + PATIENCE;
        let question = |relay: &mut Relay, now| (relay.gauges(), relay.blocked_users(now).count());
        let answers = shards.ask_all(until, question).await;
        let mut totals = Levels::default();
        let mut blocked_users = 0;
        let mut each = Vec::new();
        for (shard, answer) in answers.into_iter().enumerate() {
            let state = state_of(&answer);
            let levels = answer.ok().map(|(gauges, blocked)| {
                blocked_users = blocked_users.max(blocked);
                totals.add(&gauges);
                let mut levels = Levels::default();
                levels.add(&gauges);
                levels
            });
            each.push(ShardStatus {
                shard,
                state,
                levels,
            });
        }
        let uptime = clock::mono().saturating_duration_since(self.started);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("RALLYPOINT_REVISION")
                .unwrap_or("unknown")
                .to_owned(),
            uptime_seconds: uptime.as_secs(),
            ready: self.health.is_ready(),
            draining: self.health.is_draining(),
            drain_seconds_left: self.reach.drain_seconds_left(),
            blocked_users,
            users: ledger.users(),
            totals,
            shards: each,
        })
    }

    async fn allocations(&self, call: &Call<Endpoint>) -> Result<AllocationPage, ApiError> {
        let (shards, _) = self.reach.get()?;
        let limit = limit_of(call)?;
        let mut cursor = cursor_of(call)?;
        let user = call.query.get("user").cloned();
        let until = Instant::now() + PATIENCE;
        let mut page = AllocationPage {
            allocations: Vec::new(),
            next: None,
            missing_shards: Vec::new(),
        };
        while cursor.shard < shards.len() {
            let room = limit - page.allocations.len();
            let (user, mask, from) = (user.clone(), self.mask.clone(), cursor);
            let question = move |relay: &mut Relay, now| {
                listing::on_shard(relay, now, from, user.as_deref(), room, &mask)
            };
            let next = match shards.ask_one(cursor.shard, until, question).await {
                Some(Ok((entries, next))) => {
                    page.allocations.extend(entries);
                    next
                }
                Some(Err(absence)) => {
                    page.missing_shards.push(missing(cursor.shard, absence));
                    None
                }
                None => None,
            };
            cursor = next.unwrap_or(Cursor {
                shard: cursor.shard + 1,
                place: 0,
            });
            if page.allocations.len() >= limit {
                page.next = (cursor.shard < shards.len()).then(|| cursor.to_string());
                break;
            }
        }
        Ok(page)
    }

    async fn kick_allocation(&self, call: &Call<Endpoint>) -> Result<AllocationKicked, ApiError> {
        let (shards, _) = self.reach.get()?;
        let nothing = || {
            ApiError::new(
                404,
                "no_allocation",
                "there is no such allocation (any more)",
            )
        };
        let id: AllocationId = call.capture().parse().map_err(|()| nothing())?;
        let until = Instant::now() + PATIENCE;
        let question = move |relay: &mut Relay, now| relay.kick_allocation(now, id.handle);
        match shards.ask_one(id.shard, until, question).await {
            Some(Ok(true)) => Ok(AllocationKicked {
                id: id.to_string(),
                ended: 1,
            }),
            Some(Ok(false)) | None => Err(nothing()),
            Some(Err(absence)) => Err(absent(id.shard, absence)),
        }
    }

    async fn kick_user(&self, call: &Call<Endpoint>) -> Result<UserKicked, ApiError> {
        let (shards, _) = self.reach.get()?;
        let user = user_of(call)?;
        let block = duration(call, "block", Duration::from_secs(1)..=LONGEST_BLOCK)?;
        let until = Instant::now() + PATIENCE;
        let whom = user.clone();
        let question = move |relay: &mut Relay, now| {
            // Kept out first, so that nothing of it is left behind.
            let has_room = block.is_none_or(|block| relay.block_user(now, &whom, block));
            has_room.then(|| relay.kick_user(now, &whom))
        };
        let answers = shards.ask_all(until, question).await;
        let missing_shards = missing_of(&answers);
        let mut ended = 0;
        for answer in answers.into_iter().flatten() {
            ended += answer.ok_or_else(|| {
                let message = format!("{MAX_BLOCKED_USERS} users are kept out already");
                ApiError::new(409, "too_many_blocks", &message)
            })?;
        }
        Ok(UserKicked {
            user,
            ended,
            blocked_seconds: block.map(|block| block.as_secs()),
            missing_shards,
        })
    }

    async fn unblock(&self, call: &Call<Endpoint>) -> Result<Unblocked, ApiError> {
        let (shards, _) = self.reach.get()?;
        let user = user_of(call)?;
        let whom = user.clone();
        let until = Instant::now() + PATIENCE;
        let question = move |relay: &mut Relay, now| relay.unblock_user(now, &whom);
        let answers = shards.ask_all(until, question).await;
        Ok(Unblocked {
            user,
            missing_shards: missing_of(&answers),
            was_blocked: answers.into_iter().flatten().any(|was_blocked| was_blocked),
        })
    }

    async fn blocks(&self) -> Result<Blocks, ApiError> {
        let (shards, _) = self.reach.get()?;
        let until = Instant::now() + PATIENCE;
        let question = |relay: &mut Relay, now| -> Vec<(String, u64)> {
            let blocked = relay.blocked_users(now);
            blocked
                .map(|(user, left)| (user.to_owned(), whole_seconds(left)))
                .collect()
        };
        let answers = shards.ask_all(until, question).await;
        let missing_shards = missing_of(&answers);
        let mut blocked = BTreeMap::new();
        for (user, left) in answers.into_iter().flatten().flatten() {
            let longest = blocked.entry(user).or_insert(left);
            *longest = left.max(*longest);
        }
        Ok(Blocks {
            blocked,
            missing_shards,
        })
    }
}

impl Levels {
    fn add(&mut self, gauges: &Gauges) {
        self.allocations += gauges.allocations;
        self.pending += gauges.pending;
        self.reservations += gauges.reservations;
        self.permissions += gauges.permissions;
        self.channels += gauges.channels;
        self.peer_connections += gauges.peer_connections;
        self.ports_in_use += gauges.ports_in_use;
        self.ports_limit += gauges.ports_limit;
        self.spare_sockets += gauges.spare_sockets;
    }
}

fn answer(value: &impl Serialize) -> Result<Value, ApiError> {
    let broken = |error: serde_json::Error| ApiError::new(500, "internal", &error.to_string());
    serde_json::to_value(value).map_err(broken)
}

fn limit_of(call: &Call<Endpoint>) -> Result<usize, ApiError> {
    let Some(text) = call.query.get("limit") else {
        return Ok(PAGE);
    };
    let number = text.parse().ok();
    let limit = number.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
    limit.ok_or_else(|| ApiError::bad_request(&format!("limit: 1 to {LONGEST_PAGE}")))
}

fn cursor_of(call: &Call<Endpoint>) -> Result<Cursor, ApiError> {
    let Some(text) = call.query.get("cursor") else {
        return Ok(Cursor::default());
    };
    let wrong = |()| ApiError::bad_request("cursor: what `next` of the page before was");
    text.parse().map_err(wrong)
}

fn user_of(call: &Call<Endpoint>) -> Result<String, ApiError> {
    let user = call.capture();
    if user.len() > USER_BYTES {
        let message = format!("a user's name has at most {USER_BYTES} bytes");
        return Err(ApiError::bad_request(&message));
    }
    Ok(user.to_owned())
}

/// A duration of the body, written as in the file: `"10m"`.
fn duration(
    call: &Call<Endpoint>,
    key: &str,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, ApiError> {
    let Some(value) = call.body.get(key) else {
        return Ok(None);
    };
    let found = value.as_str().and_then(duration_from_text);
    let found = found.filter(|duration| range.contains(duration));
    let (from, to) = (range.start().as_secs(), range.end().as_secs());
    let wrong = || {
        let message = format!("{key}: a duration such as \"10m\", from {from}s to {to}s");
        ApiError::bad_request(&message)
    };
    found.map(Some).ok_or_else(wrong)
}

/// A second that has begun counts.
fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn state_of<T>(answer: &Result<T, Absence>) -> ShardState {
    match answer {
        Ok(_) => ShardState::Ok,
        Err(Absence::Gone) => ShardState::Gone,
        Err(Absence::Silent) => ShardState::Silent,
    }
}

fn missing(shard: usize, absence: Absence) -> MissingShard {
    let state = state_of::<()>(&Err(absence));
    MissingShard { shard, state }
}

fn missing_of<T>(answers: &[Result<T, Absence>]) -> Vec<MissingShard> {
    let numbered = answers.iter().enumerate();
    numbered
        .filter_map(|(shard, answer)| Some(missing(shard, answer.as_ref().err().copied()?)))
        .collect()
}

fn absent(shard: usize, absence: Absence) -> ApiError {
    let message = match absence {
        Absence::Gone => format!("shard turn-{shard} is gone, and its allocations with it"),
        Absence::Silent => {
            format!("shard turn-{shard} has not answered yet; it may still do as it was told")
        }
    };
    ApiError::new(503, "shard_missing", &message)
}
