//! Binding requests with a window of them in flight, and what is wrong with the answers.

use std::net::SocketAddr;
use std::time::Duration;

use stun_wire::attribute::XorMappedAddress;
use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};

use super::args::StunArgs;
use super::flow::Flow;
use super::net::{Net, unspecified};
use super::report::Bindings;
use super::sample::Sample;
use super::stopwatch::Stopwatch;
use super::{Ids, LoadError, numbered_id};

/// Without an answer for so long, all requests in flight are lost.
const STALL: Duration = Duration::from_millis(100);
/// Requests sent before answers are looked at.
const MOST_AT_ONCE: u64 = 64;
/// For the last answers.
const DRAIN: Duration = Duration::from_millis(300);

/// One socket's requests.
struct Asker {
    run: u32,
    local: SocketAddr,
    flow: Flow,
    /// When a request left, by its number modulo the length; twice the window is longer than any wait for an answer.
    sent_at: Vec<Duration>,
    latency: Sample,
    wrong: u64,
}

/// Floods the server for as long as wanted.
pub(super) fn measure(args: &StunArgs) -> Result<Bindings, LoadError> {
    let mut net = Net::new()?;
    let socket = net.add(unspecified(args.server.ip()))?;
    let mut asker = Asker {
        run: Ids::new()?.run,
        local: net.local_addr(socket).ok_or(LoadError::NoPeer)?,
        flow: Flow::new(args.window.into()),
        sent_at: vec![Duration::ZERO; 2 * usize::from(args.window)],
        latency: Sample::new(),
        wrong: 0,
    };
    let mut watch = Stopwatch::start(&args.run);
    let mut next_check = STALL;
    let figures = loop {
        let asked = asker.ask(&mut net, socket, args.server, watch.elapsed());
        let patience = if asked { Duration::ZERO } else { STALL / 5 };
        asker.receive(&mut net, args.server, patience, &watch)?;
        if watch.elapsed() >= next_check {
            asker.flow.give_up_if_stalled();
            next_check = watch.elapsed() + STALL;
        }
        if let Some(figures) = watch.lap(|| Ok(asker.flow.received()))? {
            break figures;
        }
    };
    let until = watch.elapsed() + DRAIN;
    while asker.flow.missing() > 0 && watch.elapsed() < until {
        asker.receive(&mut net, args.server, STALL, &watch)?;
    }
    if asker.flow.received() == 0 {
        let (server, request) = (args.server, "Binding");
        return Err(LoadError::Silent { server, request });
    }
    Ok(Bindings {
        window: args.window,
        seconds: figures.seconds,
        answers: figures.done,
        answers_per_second: figures.per_second,
        sent: asker.flow.sent(),
        lost: asker.flow.missing(),
        wrong: asker.wrong,
        latency_us: asker.latency.percentiles(),
        server_cpu_us_per_answer: figures.server_cpu_us,
        server_busy: figures.server_busy,
        load_busy: figures.load_busy,
    })
}

impl Asker {
    /// Whether there was room for a request.
    fn ask(&mut self, net: &mut Net, socket: usize, server: SocketAddr, now: Duration) -> bool {
        let room = self.flow.room().min(MOST_AT_ONCE);
        let mut request = Vec::new();
        for _ in 0..room {
            let number = self.flow.take_number();
            request.clear();
            let id = numbered_id(self.run, number);
            MessageWriter::new(&mut request, Class::Request, Method::BINDING, id).finish();
            net.push(socket, server, &[&request]);
            if let Some(slot) = self.slot(number) {
                *slot = now;
            }
        }
        net.flush();
        room > 0
    }

    fn receive(
        &mut self,
        net: &mut Net,
        server: SocketAddr,
        patience: Duration,
        watch: &Stopwatch,
    ) -> Result<(), LoadError> {
        net.receive(patience, |_, datagram| {
            let number = self
                .number_answered(datagram.bytes)
                .filter(|_| datagram.from == server);
            match number {
                Some(number) if self.flow.arrived(number) => {
                    let sent = self.slot(number).map(|sent| *sent);
                    if let Some(sent) = sent.filter(|_| watch.is_measuring()) {
                        self.latency.add(watch.elapsed().saturating_sub(sent));
                    }
                }
                _ => self.wrong += 1,
            }
        })
    }

    /// Which request this is a right answer to: a success that names our port, as nothing is between us and the server
    /// that would change it.
    fn number_answered(&self, bytes: &[u8]) -> Option<u64> {
        let message = Message::parse(bytes).ok()?;
        let XorMappedAddress(seen) = message.attribute().ok()??;
        let is_right = message.class() == Class::Success
            && message.method() == Method::BINDING
            && seen.port() == self.local.port();
        number_of(self.run, message.transaction_id()).filter(|_| is_right)
    }

    fn slot(&mut self, number: u64) -> Option<&mut Duration> {
        let length = u64::try_from(self.sent_at.len()).ok()?;
        let at = usize::try_from(number.checked_rem(length)?).ok()?;
        self.sent_at.get_mut(at)
    }
}

/// The number in a transaction id of this run.
fn number_of(run: u32, TransactionId(id): TransactionId) -> Option<u64> {
    let (of, number) = id.split_first_chunk()?;
    let number = number.first_chunk()?;
    (u32::from_be_bytes(*of) == run).then_some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker() -> Asker {
        Asker {
            run: 7,
            local: SocketAddr::from(([0, 0, 0, 0], 4000)),
            flow: Flow::new(4),
            sent_at: vec![Duration::ZERO; 8],
            latency: Sample::new(),
            wrong: 0,
        }
    }

    fn answer(class: Class, run: u32, port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mapped = XorMappedAddress(SocketAddr::from(([192, 0, 2, 1], port)));
        let mut writer =
            MessageWriter::new(&mut bytes, class, Method::BINDING, numbered_id(run, 3));
        writer.attribute(&mapped);
        writer.finish();
        bytes
    }

    #[test]
    fn only_right_answers_count() {
        let asker = asker();
        assert_eq!(
            asker.number_answered(&answer(Class::Success, 7, 4000)),
            Some(3)
        );
        assert_eq!(
            asker.number_answered(&answer(Class::Success, 7, 4001)),
            None
        );
        assert_eq!(
            asker.number_answered(&answer(Class::Success, 8, 4000)),
            None
        );
        assert_eq!(asker.number_answered(&answer(Class::Error, 7, 4000)), None);
        assert_eq!(asker.number_answered(b"noise"), None);
    }
}
