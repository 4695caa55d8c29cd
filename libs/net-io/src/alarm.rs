//! A deadline that ends a poll, without a timeout for each poll.
//!
//! A timeout is a timer that the system sets before each sleep and removes after it, which at 100,000 sleeps a second is a
//! part of all it does, though the deadlines themselves hardly change. On Linux an alarm is one timer that stays set
//! (`timerfd`); elsewhere the poll gets its timeout.

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

/// The deadline of one poll.
#[derive(Debug)]
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
    /// When the timer goes off; nothing is set once that is past.
    #[cfg(target_os = "linux")]
    set_for: Option<Instant>,
}

impl Alarm {
    /// An alarm that has the poll of `registry` return with `token` (on Linux: elsewhere there is never such an event).
    ///
    /// # Errors
    /// The system gives no timer.
    #[cfg(target_os = "linux")]
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        use mio::event::Source as _;
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        mio::unix::SourceFd(&timer.as_raw_fd()).register(
            registry,
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Self {
            timer,
            set_for: None,
        })
    }

    /// As on Linux.
    #[cfg(not(target_os = "linux"))]
    pub fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The timeout to poll with now, so that the poll returns when `deadline` has come. It may return before.
    #[cfg(target_os = "linux")]
    pub fn timeout(&mut self, deadline: Option<Instant>, now: Instant) -> Option<Duration> {
        let deadline = deadline?;
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Some(left);
        }
        // One that goes off too early is cheaper than setting it for each deadline that is put off.
        if self.set_for.is_some_and(|at| now < at && at <= deadline) {
            return None;
        }
        match self.set(left) {
            Ok(()) => {
                self.set_for = Some(deadline);
                None
            }
            Err(_) => Some(left),
        }
    }

    /// As on Linux.
    #[cfg(not(target_os = "linux"))]
    pub fn timeout(&mut self, deadline: Option<Instant>, now: Instant) -> Option<Duration> {
        deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Its event has come: what it was set for is past.
    pub fn note_event(&mut self) {
        #[cfg(target_os = "linux")]
        {
            self.set_for = None;
        }
    }

    /// Has the timer go off once, in `left`. What it told before is forgotten with that.
    #[cfg(target_os = "linux")]
    fn set(&self, left: Duration) -> rustix::io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;
    use crate::clock;

    const TOKEN: Token = Token(7);

    fn alarm() -> (Poll, Events, Alarm) {
        let poll = Poll::new().expect("a poll");
        let alarm = Alarm::new(poll.registry(), TOKEN).expect("an alarm");
        (poll, Events::with_capacity(4), alarm)
    }

    /// Polls until `deadline`; how often it took.
    fn sleep_until(
        deadline: Instant,
        poll: &mut Poll,
        events: &mut Events,
        alarm: &mut Alarm,
    ) -> u32 {
        let mut polls = 0;
        while clock::mono() < deadline {
            let timeout = alarm.timeout(Some(deadline), clock::mono());
            // A test that fails does so in 10 seconds.
            let timeout = timeout.unwrap_or(Duration::from_secs(10));
            poll.poll(events, Some(timeout)).expect("it polls");
            if events.iter().any(|event| event.token() == TOKEN) {
                alarm.note_event();
            }
            polls += 1;
        }
        polls
    }

    #[test]
    fn a_poll_ends_at_the_deadline_and_so_does_the_next() {
        let (mut poll, mut events, mut alarm) = alarm();
        let began = clock::mono();
        for number in 1..=3 {
            let deadline = began + Duration::from_millis(30) * number;
            let polls = sleep_until(deadline, &mut poll, &mut events, &mut alarm);
            assert!(polls <= 3, "{polls}");
            assert!(clock::mono() < deadline + Duration::from_secs(5));
        }
    }

    #[test]
    fn an_earlier_deadline_is_kept_and_a_later_one_costs_nothing() {
        let (mut poll, mut events, mut alarm) = alarm();
        let began = clock::mono();
        let at = |millis| Some(began + Duration::from_millis(millis));
        alarm.timeout(at(100_000), began);
        alarm.timeout(at(200_000), began);
        let soon = began + Duration::from_millis(30);
        sleep_until(soon, &mut poll, &mut events, &mut alarm);
        assert!(clock::mono() < began + Duration::from_secs(5));
        #[cfg(target_os = "linux")]
        {
            let (_, _, mut alarm) = self::alarm();
            alarm.timeout(at(100_000), began);
            alarm.timeout(at(200_000), began);
            assert_eq!(alarm.set_for, at(100_000));
        }
    }

    #[test]
    fn what_is_due_does_not_wait_and_no_deadline_waits_for_ever() {
        let (_poll, _events, mut alarm) = alarm();
        let now = clock::mono();
        assert_eq!(alarm.timeout(Some(now), now), Some(Duration::ZERO));
        assert_eq!(alarm.timeout(None, now), None);
    }
}
