//! Ten lines a second of each kind, then one line that counts the rest.
//!
//! A kind is a place in the program that logs, so there are as many as the program has, and no text that a stranger
//! chose makes another. Whatever goes wrong ten thousand times a second fills no disk with it and hides nothing else.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use super::{ByLevel, OPERATOR};

/// Lines of a kind in any second.
const LINES: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Of the lines that count the others; they are one a second and kind by themselves.
pub(super) const SUMMARY: &str = "rallypoint::log";

/// How many lines of each level were held back.
pub(super) static SUPPRESSED: ByLevel = ByLevel::new();

/// Lets lines pass or holds them back; clones share the bound.
#[derive(Debug, Clone)]
pub(super) struct RateLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kinds: Mutex<Kinds>,
    /// Something was held back where nothing was before.
    held_back: Condvar,
}

impl RateLimit {
    /// Starts the thread that says how much was held back; it sleeps while nothing is. Without a thread the bound
    /// holds all the same, and the metric counts.
    pub(super) fn start() -> Self {
        let limit = Self(Arc::new(Shared {
            kinds: Mutex::new(Kinds::default()),
            held_back: Condvar::new(),
        }));
        let shared = Arc::clone(&limit.0);
        let _no_summaries = thread::Builder::new()
            .name("log-summary".to_owned())
            .spawn(move || summarise_forever(&shared));
        limit
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for RateLimit {
    // `callsite_enabled` stays at "sometimes": only then is each event judged from the start.
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let kind = event.metadata();
        if kind.name() == OPERATOR || kind.target() == SUMMARY {
            return true;
        }
        let passes = self.0.lock().admit(kind, read_clock());
        match passes {
            Passes::Yes => return true,
            Passes::No => {}
            Passes::NoForTheFirstTime => self.0.held_back.notify_one(),
        }
        SUPPRESSED.inc(*kind.level());
        false
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell's own clock, read where a line is logged"
)]
fn read_clock() -> Instant {
    Instant::now()
}

/// Writes the summaries when they are due. Logs without the lock: its lines come back to [`RateLimit`].
fn summarise_forever(shared: &Shared) {
    loop {
        let due = {
            let mut kinds = shared.lock();
            loop {
                let now = read_clock();
                let due = kinds.take_due(now);
                if !due.is_empty() {
                    break due;
                }
                kinds = match kinds.next_due() {
                    None => shared
                        .held_back
                        .wait(kinds)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(next) => {
                        let wait = next.saturating_duration_since(now);
                        let waited = shared.held_back.wait_timeout(kinds, wait);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        };
        for one in due {
            one.log();
        }
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passes {
    Yes,
    No,
    /// The first of its kind since the last summary: one becomes due.
    NoForTheFirstTime,
}

/// What passed of each kind, and what did not. A few dozen, looked for one by one.
#[derive(Debug, Default)]
struct Kinds(Vec<Kind>);

#[derive(Debug)]
struct Kind {
    callsite: Identifier,
    level: Level,
    place: String,
    /// When the last lines passed; the oldest is at `oldest` once all are used.
    passed: [Option<Instant>; LINES],
    oldest: usize,
    held_back: u64,
    summary_at: Option<Instant>,
}

/// Lines of one kind that were held back.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    level: Level,
    place: String,
    count: u64,
}

impl Kinds {
    fn admit(&mut self, line: &Metadata<'_>, now: Instant) -> Passes {
        let known = self
            .0
            .iter_mut()
            .find(|kind| kind.callsite == line.callsite());
        match known {
            Some(kind) => kind.admit(now),
            None => self.0.push_mut(Kind::of(line)).admit(now),
        }
    }

    /// The summaries that are due, in the order they became so.
    fn take_due(&mut self, now: Instant) -> Vec<Summary> {
        let is_due = |kind: &&mut Kind| kind.summary_at.is_some_and(|at| at <= now);
        let mut due: Vec<&mut Kind> = self.0.iter_mut().filter(is_due).collect();
        due.sort_by_key(|kind| kind.summary_at);
        due.into_iter().map(Kind::summary).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|kind| kind.summary_at).min()
    }
}

impl Kind {
    fn of(line: &Metadata<'_>) -> Self {
        Self {
            callsite: line.callsite(),
            level: *line.level(),
            place: format!("{}:{}", line.target(), line.line().unwrap_or(0)),
            passed: [None; LINES],
            oldest: 0,
            held_back: 0,
            summary_at: None,
        }
    }

    fn admit(&mut self, now: Instant) -> Passes {
        let Some(slot) = self.passed.get_mut(self.oldest) else {
            return Passes::Yes;
        };
        if slot.is_none_or(|tenth_last| now.saturating_duration_since(tenth_last) >= SECOND) {
            *slot = Some(now);
            self.oldest = (self.oldest + 1) % LINES;
            return Passes::Yes;
        }
        self.held_back += 1;
        if self.summary_at.is_some() {
            return Passes::No;
        }
        self.summary_at = Some(now + SECOND);
        Passes::NoForTheFirstTime
    }

    fn summary(&mut self) -> Summary {
        self.summary_at = None;
        Summary {
            level: self.level,
            place: self.place.clone(),
            count: std::mem::take(&mut self.held_back),
        }
    }
}

impl Summary {
    /// At the level of what it counts, so that it is seen where that would have been.
    fn log(&self) {
        let Self { place, count, .. } = self;
        macro_rules! at {
            ($level:ident) => {
                tracing::event!(target: SUMMARY, Level::$level, of = place, suppressed = count, "more lines of one kind")
            };
        }
        match self.level {
            Level::ERROR => at!(ERROR),
            Level::WARN => at!(WARN),
            Level::INFO => at!(INFO),
            Level::DEBUG => at!(DEBUG),
            Level::TRACE => at!(TRACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::DefaultCallsite;

    use super::*;

    fn kind() -> Kind {
        static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
        static METADATA: Metadata<'static> = tracing::metadata! {
            name: "a line",
            target: "turn_relay::shard",
            level: Level::WARN,
            fields: &[],
            callsite: &CALLSITE,
            kind: tracing::metadata::Kind::EVENT
        };
        Kind::of(&METADATA)
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn ten_lines_pass_in_any_second_wherever_it_begins() {
        let (mut kind, start) = (kind(), read_clock());
        // One line each millisecond for 5 s: no stretch of 1 s has more than ten that pass.
        let passed: Vec<u64> = (0..5000)
            .filter(|ms| kind.admit(after(start, *ms)) == Passes::Yes)
            .collect();
        assert_eq!(passed.len(), 50);
        assert!(
            passed
                .windows(LINES + 1)
                .all(|eleven| eleven[LINES] - eleven[0] >= 1000)
        );
    }

    #[test]
    fn nine_lines_a_second_are_never_held_back() {
        let (mut kind, start) = (kind(), read_clock());
        for line in 0..1000 {
            assert_eq!(kind.admit(after(start, line * 112)), Passes::Yes);
        }
        assert_eq!((kind.held_back, kind.summary_at), (0, None));
    }

    #[test]
    fn what_was_held_back_is_counted_once_a_second() {
        let (mut kind, start) = (kind(), read_clock());
        let outcomes: Vec<Passes> = (0..14).map(|_| kind.admit(start)).collect();
        let mut expected = vec![Passes::Yes; LINES];
        expected.extend([
            Passes::NoForTheFirstTime,
            Passes::No,
            Passes::No,
            Passes::No,
        ]);
        assert_eq!(outcomes, expected);
        assert_eq!(kind.summary_at, Some(after(start, 1000)));

        let summary = Summary {
            level: Level::WARN,
            place: kind.place.clone(),
            count: 4,
        };
        assert_eq!(kind.summary(), summary);
        assert_eq!((kind.held_back, kind.summary_at), (0, None));
        assert_eq!(kind.admit(after(start, 1000)), Passes::Yes);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_holds_back() {
        let (mut kind, start) = (kind(), read_clock());
        let later = after(start, 10_000);
        for _ in 0..LINES {
            assert_eq!(kind.admit(later), Passes::Yes);
        }
        assert_eq!(kind.admit(start), Passes::NoForTheFirstTime);
    }
}
