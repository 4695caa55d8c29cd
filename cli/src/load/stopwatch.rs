//! When counting begins and ends, and the figures that follow from it.

use std::time::{Duration, Instant};

use net_io::clock;

use super::LoadError;
use super::args::RunArgs;

/// Until caches, queues and the server's batches are what they stay.
const WARM_UP: Duration = Duration::from_millis(300);

/// Times one run.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    length: Duration,
    server_pid: Option<u32>,
    start: Option<Mark>,
}

/// Everything that only ever grows, at one moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    done: u64,
    server: Option<Duration>,
    own: Option<Duration>,
}

/// What was done between two marks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) seconds: f64,
    pub(crate) done: u64,
    pub(crate) per_second: f64,
    /// CPU time of the server's process for each, in microseconds.
    pub(crate) server_cpu_us: Option<f64>,
    /// How busy the server's process was: near 1 for each of its threads it was the limit.
    pub(crate) server_busy: Option<f64>,
    /// How busy this process was: near 1 it was the limit, and not the server.
    pub(crate) load_busy: Option<f64>,
}

impl Stopwatch {
    pub(crate) fn start(run: &RunArgs) -> Self {
        Self {
            began: clock::mono(),
            length: run.seconds,
            server_pid: run.server_pid,
            start: None,
        }
    }

    /// Since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether what happens is counted.
    pub(crate) fn is_measuring(&self) -> bool {
        self.start.is_some()
    }

    /// To be called all along; the figures when time is up. How much was done in all is asked at begin and end alone.
    pub(crate) fn lap(
        &mut self,
        done: impl FnOnce() -> Result<u64, LoadError>,
    ) -> Result<Option<Figures>, LoadError> {
        let at = self.elapsed();
        match self.start {
            None if at >= WARM_UP => self.start = Some(self.mark(at, done()?)?),
            Some(start) if at >= start.at + self.length => {
                return Ok(Some(figures(start, self.mark(at, done()?)?)));
            }
            _ => {}
        }
        Ok(None)
    }

    fn mark(&self, at: Duration, done: u64) -> Result<Mark, LoadError> {
        Ok(Mark {
            at,
            done,
            server: self
                .server_pid
                .map(|pid| clock::cpu_time_of(pid).map_err(|error| LoadError::Cpu(pid, error)))
                .transpose()?,
            own: clock::cpu_time_of(std::process::id()).ok(),
        })
    }
}

fn figures(start: Mark, end: Mark) -> Figures {
    let seconds = (end.at - start.at).as_secs_f64();
    let done = end.done - start.done;
    let between = |start: Option<Duration>, end: Option<Duration>| {
        Some(end?.saturating_sub(start?).as_secs_f64())
    };
    let server = between(start.server, end.server);
    let own = between(start.own, end.own);
    #[expect(clippy::cast_precision_loss, reason = "no run does 2^53 of anything")]
    let count = done as f64;
    Figures {
        seconds,
        done,
        per_second: count / seconds,
        server_cpu_us: server.filter(|_| done > 0).map(|time| time * 1e6 / count),
        server_busy: server.map(|time| time / seconds),
        load_busy: own.map(|time| time / seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: u64, done: u64, server: Option<u64>) -> Mark {
        Mark {
            at: Duration::from_millis(at),
            done,
            server: server.map(Duration::from_millis),
            own: Some(Duration::from_millis(at / 2)),
        }
    }

    #[test]
    fn figures_are_of_the_time_between_the_marks() {
        let expected = Figures {
            seconds: 2.0,
            done: 400_000,
            per_second: 200_000.0,
            server_cpu_us: Some(2.5),
            server_busy: Some(0.5),
            load_busy: Some(0.5),
        };
        let told = figures(
            mark(300, 50_000, Some(700)),
            mark(2300, 450_000, Some(1700)),
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_done_has_no_cost_each() {
        let told = figures(mark(0, 5, Some(1)), mark(1000, 5, Some(9)));
        assert_eq!((told.per_second, told.server_cpu_us), (0.0, None));
        let unwatched = figures(mark(0, 0, None), mark(1000, 5, None));
        assert_eq!(unwatched.server_cpu_us, None);
    }
}
