//! The way to the shards from outside their threads: told something, or asked and waited for, but
//! never longer than a deadline.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use mio::Waker;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use turn_relay_proto::{Now, Relay};

use crate::shard::Command;

/// One shard's end of it.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    commands: Sender<Command>,
    waker: Waker,
}

/// Why a shard has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// Its thread has ended.
    Gone,
    /// It has not come to it in time, and may do so yet.
    Silent,
}

impl ShardHandle {
    pub(crate) fn new(commands: Sender<Command>, waker: Waker) -> Self {
        Self { commands, waker }
    }

    /// Tells the shard, which hears of it between two batches. One that is gone hears nothing, and
    /// has said so itself.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }

    /// What the shard answers, which is on its way when this returns.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Relay, Now) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, answer) = oneshot::channel();
        self.tell(Command::Visit(Box::new(move |relay, now| {
            // Whoever asked may have given up.
            let _ = sender.send(question(relay, now));
        })));
        answer
    }
}

/// All shards of a relay, by number.
#[derive(Debug, Clone)]
pub(crate) struct Shards(Arc<[Arc<ShardHandle>]>);

impl Shards {
    pub(crate) fn new(handles: impl IntoIterator<Item = Arc<ShardHandle>>) -> Self {
        Self(handles.into_iter().collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What one shard answers; `None`: there is no such shard.
    pub(crate) async fn ask_one<T: Send + 'static>(
        &self,
        shard: usize,
        until: Instant,
        question: impl FnOnce(&mut Relay, Now) -> T + Send + 'static,
    ) -> Option<Result<T, Absence>> {
        let answer = self.0.get(shard)?.ask(question);
        Some(wait(answer, until).await)
    }

    /// What all of them answer, by number. They are asked at once.
    pub(crate) async fn ask_all<T: Send + 'static>(
        &self,
        until: Instant,
        question: impl Fn(&mut Relay, Now) -> T + Clone + Send + 'static,
    ) -> Vec<Result<T, Absence>> {
        let asked: Vec<_> = self
            .0
            .iter()
            .map(|shard| shard.ask(question.clone()))
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(wait(answer, until).await);
        }
        answers
    }
}

async fn wait<T>(answer: oneshot::Receiver<T>, until: Instant) -> Result<T, Absence> {
    match timeout_at(until, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // The question was dropped with the thread.
        Ok(Err(_)) => Err(Absence::Gone),
        Err(_) => Err(Absence::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};
    use std::time::Duration;

    use mio::Poll;
    use turn_relay_proto::RelayConfig;

    use super::*;
    use crate::source::WAKER;

    /// A shard whose thread does not come to its commands by itself.
    fn shard(poll: &Poll) -> (Arc<ShardHandle>, Receiver<Command>) {
        let (sender, commands) = mpsc::channel();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        (Arc::new(ShardHandle::new(sender, waker)), commands)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn a_shard_that_is_gone_or_silent_is_told_apart_and_waited_for_no_longer_than_the_deadline() {
        let polls = [(); 4].map(|()| Poll::new().unwrap());
        let (works, commands) = shard(&polls[0]);
        let (gone, its_commands) = shard(&polls[1]);
        let (silent, _kept) = shard(&polls[2]);
        let (ends, dropped_later) = shard(&polls[3]);
        drop(its_commands);
        let worker = std::thread::spawn(move || {
            let mut relay = Relay::new(RelayConfig::default(), [1; 32]);
            let (mono, unix) = net_io::clock::now();
            if let Ok(Command::Visit(visit)) = commands.recv() {
                visit(&mut relay, Now { mono, unix });
            }
            // This one ends with the question in its queue.
            drop(dropped_later);
        });
        let shards = Shards::new([works, gone, silent, ends]);
        let until = Instant::now() + Duration::from_millis(200);
        let question = |relay: &mut Relay, _: Now| relay.gauges().allocations;
        let answers = runtime().block_on(shards.ask_all(until, question));
        worker.join().unwrap();
        assert_eq!(
            answers,
            [
                Ok(0),
                Err(Absence::Gone),
                Err(Absence::Silent),
                Err(Absence::Gone)
            ]
        );
        let nobody = runtime().block_on(shards.ask_one(4, until, question));
        assert_eq!(nobody, None);
    }
}
