//! What an operator orders of the relay as a whole: whoever owns the [`Server`] carries it out,
//! between two other things it does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ops::admin::api::{Api, ApiError, ApiToken};
use ops::{Health, logging};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::shapes::{Drained, QuotaSource, Quotas, ReloadOutcome};
use super::{Answers, Reach, answer};
use crate::config::{patched, to_json};
use crate::server::{ReloadError, Server};

/// Orders that wait; more are refused.
const WAITING: usize = 16;

/// What is ordered.
#[derive(Debug)]
pub(super) enum What {
    ShowQuotas,
    ChangeQuotas(Map<String, Value>),
    Drain(Option<Duration>),
    Undrain,
    Reload,
}

#[derive(Debug)]
struct Order {
    what: What,
    done: oneshot::Sender<Result<Value, ApiError>>,
}

/// Where orders are given.
#[derive(Debug, Clone)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Gives an order and waits until it is carried out.
    pub(super) async fn give(&self, what: What, until: Instant) -> Result<Value, ApiError> {
        let (done, outcome) = oneshot::channel();
        self.0
            .try_send(Order { what, done })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    ApiError::new(503, "busy", "too many orders are waiting")
                }
                mpsc::error::TrySendError::Closed(_) => stopping(),
            })?;
        match tokio::time::timeout_at(until, outcome).await {
            Ok(outcome) => outcome.map_err(|_| stopping())?,
            Err(_) => Err(ApiError::new(
                504,
                "timeout",
                "the order is not carried out yet, and may be later",
            )),
        }
    }
}

fn stopping() -> ApiError {
    ApiError::new(503, "stopping", "the relay is about to end")
}

/// Carries out what operators order. Dropped when the relay is to end, which refuses all further
/// orders.
#[derive(Debug)]
pub struct Operator {
    orders: mpsc::Receiver<Order>,
    reach: Arc<Reach>,
    health: Health,
    token: ApiToken,
    file: Option<PathBuf>,
    quotas_from: QuotaSource,
}

/// Something to do, from [`Operator::next`].
#[derive(Debug)]
pub struct Task(Doing);

#[derive(Debug)]
enum Doing {
    Order(Order),
    /// The deadline of a drain has passed.
    EndAllocations,
}

impl Operator {
    /// An operator and its routes on the admin listener. `file` is what a reload reads.
    #[must_use]
    pub fn new(health: Health, token: ApiToken, file: Option<PathBuf>) -> (Self, Api) {
        let (sender, orders) = mpsc::channel(WAITING);
        let reach = Arc::new(Reach::default());
        let answers = Answers::new(Orders(sender), Arc::clone(&reach), health.clone());
        let api = Api::new(token.clone(), answers);
        let operator = Self {
            orders,
            reach,
            health,
            token,
            file,
            quotas_from: QuotaSource::File,
        };
        (operator, api)
    }

    /// From here on calls reach this relay's shards.
    pub fn serves(&self, server: &Server) {
        self.reach.set(server);
    }

    /// What is to be done next. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Task {
        let deadline = self.reach.drain_deadline();
        let passed = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = self.orders.recv() => match order {
                Some(order) => Task(Doing::Order(order)),
                None => std::future::pending().await,
            },
            () = passed => Task(Doing::EndAllocations),
        }
    }

    /// Does it.
    pub fn carry_out(&mut self, task: Task, server: &mut Server) {
        match task.0 {
            Doing::Order(order) => {
                let outcome = self.obey(order.what, server);
                // Whoever ordered it may have given up.
                let _ = order.done.send(outcome);
            }
            Doing::EndAllocations => {
                self.reach.set_drain_deadline(None);
                tracing::warn!("the deadline has passed: the allocations that were left are ended");
                server.end_allocations();
            }
        }
    }

    /// The file was read again, by whomever: what it says of the process itself is in force too.
    pub fn reloaded(&mut self, server: &Server) {
        let config = server.config();
        logging::set_level(&config.log.level);
        self.token.replace(config.admin_token.clone());
        self.quotas_from = QuotaSource::File;
    }

    fn obey(&mut self, what: What, server: &mut Server) -> Result<Value, ApiError> {
        match what {
            What::ShowQuotas => answer(&self.quotas(server)),
            What::ChangeQuotas(patch) => {
                let mut config = server.config().clone();
                config.quota = patched(&config.quota, &patch).map_err(faults)?;
                server.reload(config).map_err(refused)?;
                self.quotas_from = QuotaSource::Operator;
                answer(&self.quotas(server))
            }
            What::Drain(deadline) => {
                tracing::info!(
                    deadline_seconds = deadline.map(|deadline| deadline.as_secs()),
                    "draining until told otherwise: no new allocations"
                );
                self.set_draining(true, deadline, server);
                answer(&self.drained(server))
            }
            What::Undrain => {
                self.set_draining(false, None, server);
                answer(&self.drained(server))
            }
            What::Reload => self.reload(server),
        }
    }

    fn set_draining(&self, draining: bool, deadline: Option<Duration>, server: &Server) {
        let deadline = deadline.map(|deadline| Instant::now() + deadline);
        self.reach.set_drain_deadline(deadline);
        self.health.set_draining(draining);
        server.set_draining(draining);
    }

    fn drained(&self, server: &Server) -> Drained {
        Drained {
            draining: self.health.is_draining(),
            seconds_left: self.reach.drain_seconds_left(),
            allocations: server.ledger().allocations(),
        }
    }

    fn quotas(&self, server: &Server) -> Quotas {
        let note = match self.quotas_from {
            QuotaSource::File => "as in the file",
            QuotaSource::Operator => {
                "changed by an operator: the file is unchanged, and a reload or restart returns to it"
            }
        };
        Quotas {
            quotas: to_json(&server.config().quota).into_iter().collect(),
            from: self.quotas_from,
            note: note.to_owned(),
        }
    }

    fn reload(&mut self, server: &mut Server) -> Result<Value, ApiError> {
        let Some(file) = &self.file else {
            let message = "started without --config: there is nothing to reload";
            return Err(ApiError::new(409, "no_file", message));
        };
        let reloaded = server.reload_file(file).map_err(refused)?;
        self.reloaded(server);
        let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        answer(&ReloadOutcome {
            changed: owned(reloaded.changed),
            need_restart: owned(reloaded.need_restart),
        })
    }
}

fn refused(error: ReloadError) -> ApiError {
    match error {
        ReloadError::File(problems) => faults(problems),
        ReloadError::Config(error) => ApiError::new(422, "invalid", &error.to_string()),
    }
}

fn faults(problems: ops::config::Problems) -> ApiError {
    let mut error = ApiError::new(422, "invalid", "refused whole; nothing has changed");
    let problems = problems.iter();
    error.faults = problems
        .map(|problem| (problem.key.clone(), problem.reason.clone()))
        .collect();
    error
}

/// When the allocations that are left of a drain are ended.
#[derive(Debug, Default)]
pub(super) struct DrainDeadline(Mutex<Option<Instant>>);

impl DrainDeadline {
    pub(super) fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, deadline: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }
}
