//! What is told of a run: one JSON object, or some lines.

use serde::Serialize;

use super::args::{Direction, Framing};
use super::sample::Percentiles;
use super::stopwatch::Figures;

/// Relayed packets. Counts are of the whole run, rates of the measured part.
#[derive(Debug, Serialize)]
pub(crate) struct Relayed {
    pub(crate) direction: Direction,
    pub(crate) framing: Framing,
    pub(crate) pairs: bool,
    pub(crate) clients: u16,
    pub(crate) size: u16,
    pub(crate) burst: u16,
    pub(crate) wire: bool,
    pub(crate) offload: bool,
    pub(crate) window: Option<u16>,
    pub(crate) rate: Option<u32>,
    pub(crate) seconds: f64,
    /// One way, while measured.
    pub(crate) relayed: u64,
    pub(crate) relayed_per_second: f64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// The system would not send them.
    pub(crate) unsent: u64,
    pub(crate) out_of_order: u64,
    /// Came to another flow than their own, or were never sent.
    pub(crate) foreign: u64,
    /// One way, with echo the round trip; only with a rate.
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) server_cpu_us_per_packet: Option<f64>,
    pub(crate) server_busy: Option<f64>,
    pub(crate) load_busy: Option<f64>,
}

/// What became of the packets of a whole run.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    /// Every packet was waited for.
    Followed {
        /// Given to the system to send; round trips with echo.
        sent: u64,
        /// Of those, what did not arrive.
        lost: u64,
    },
    /// A flood: what the server has no time for is no loss.
    Flood {
        /// Given to the system to send.
        offered: u64,
        /// What came to the sockets, whoever sent it: more than was offered would be something else.
        arrived: u64,
        /// Of what was offered, what did not arrive.
        not_relayed: u64,
        /// What was read of all that arrived, and found to be in its place unless it is among the foreign.
        checked: u64,
        /// Of what arrived the share that clients got; with both directions alone.
        down_share: Option<f64>,
    },
}

impl Outcome {
    fn told(&self) -> String {
        match self {
            Self::Followed { sent, lost } => format!("{lost} of {sent} lost"),
            Self::Flood {
                offered,
                not_relayed,
                checked,
                down_share,
                ..
            } => {
                let down = down_share.map_or_else(String::new, |share| {
                    format!(", {:.0} % of the others to clients", share * 100.0)
                });
                format!("{not_relayed} of {offered} offered were not{down}; {checked} checked")
            }
        }
    }
}

/// Allocation cycles.
#[derive(Debug, Serialize)]
pub(crate) struct Cycles {
    pub(crate) at_once: u16,
    pub(crate) seconds: f64,
    pub(crate) cycles: u64,
    pub(crate) cycles_per_second: f64,
    /// Refused or never answered, whole run.
    pub(crate) failed: u64,
    /// What the server said to one of these; without it they are silence.
    pub(crate) last_refusal: Option<String>,
    pub(crate) server_cpu_us_per_cycle: Option<f64>,
    pub(crate) server_busy: Option<f64>,
    pub(crate) load_busy: Option<f64>,
}

/// Cycles that came to nothing.
#[derive(Debug)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    pub(crate) last_refusal: Option<String>,
}

/// Binding answers.
#[derive(Debug, Serialize)]
pub(crate) struct Bindings {
    pub(crate) window: u16,
    pub(crate) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) answers_per_second: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Answers that name another port than ours, or to what was never asked.
    pub(crate) wrong: u64,
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) server_cpu_us_per_answer: Option<f64>,
    pub(crate) server_busy: Option<f64>,
    pub(crate) load_busy: Option<f64>,
}

impl Relayed {
    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{:.0} packets/s relayed ({} in {:.1} s), {}",
            self.relayed_per_second,
            self.relayed,
            self.seconds,
            self.outcome.told()
        );
        for (count, what) in [
            (self.foreign, "came to a flow that is not theirs"),
            (self.out_of_order, "out of order"),
            (self.unsent, "not sent by this system"),
        ] {
            if count > 0 {
                text += &format!("\n{count} {what}");
            }
        }
        text += &latency(self.latency_us);
        text += &costs(
            self.server_cpu_us_per_packet,
            "packet",
            (self.server_busy, self.load_busy),
        );
        (json(self), text)
    }
}

impl Cycles {
    pub(crate) fn new(at_once: u16, failures: Failures, figures: Figures) -> Self {
        Self {
            at_once,
            seconds: figures.seconds,
            cycles: figures.done,
            cycles_per_second: figures.per_second,
            failed: failures.count,
            last_refusal: failures.last_refusal,
            server_cpu_us_per_cycle: figures.server_cpu_us,
            server_busy: figures.server_busy,
            load_busy: figures.load_busy,
        }
    }

    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{:.0} allocation cycles/s ({} in {:.1} s), {} failed",
            self.cycles_per_second, self.cycles, self.seconds, self.failed
        );
        if let Some(refusal) = &self.last_refusal {
            text += &format!(", the last so: {refusal}");
        }
        text += &costs(
            self.server_cpu_us_per_cycle,
            "cycle",
            (self.server_busy, self.load_busy),
        );
        (json(self), text)
    }
}

impl Bindings {
    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{:.0} answers/s ({} in {:.1} s), {} of {} lost",
            self.answers_per_second, self.answers, self.seconds, self.lost, self.sent
        );
        if self.wrong > 0 {
            text += &format!("\n{} wrong answers", self.wrong);
        }
        text += &latency(self.latency_us);
        text += &costs(
            self.server_cpu_us_per_answer,
            "answer",
            (self.server_busy, self.load_busy),
        );
        (json(self), text)
    }
}

fn json(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("numbers and names serialize")
}

fn latency(told: Option<Percentiles>) -> String {
    told.map_or_else(String::new, |Percentiles { p50, p99 }| {
        format!("\nlatency: median {p50} us, 99 % within {p99} us")
    })
}

fn costs(
    server: Option<f64>,
    each: &str,
    (server_busy, load_busy): (Option<f64>, Option<f64>),
) -> String {
    let mut text = String::new();
    if let Some(micros) = server {
        text += &format!("\nserver CPU: {micros:.2} us per {each}");
    }
    for (who, busy) in [("server", server_busy), ("load", load_busy)] {
        if let Some(busy) = busy {
            text += &format!("\n{who} busy for {:.0} % of the time", busy * 100.0);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same_figures() {
        let report = Bindings {
            window: 128,
            seconds: 2.0,
            answers: 500,
            answers_per_second: 250.0,
            sent: 510,
            lost: 10,
            wrong: 0,
            latency_us: Some(Percentiles { p50: 40, p99: 90 }),
            server_cpu_us_per_answer: Some(2.3516),
            server_busy: Some(0.5879),
            load_busy: Some(0.25),
        };
        let (json, text) = report.told();
        let expected = "250 answers/s (500 in 2.0 s), 10 of 510 lost\nlatency: median 40 us, 99 % within 90 us\n\
                        server CPU: 2.35 us per answer\nserver busy for 59 % of the time\nload busy for 25 % of the time";
        assert_eq!(text, expected);
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(parsed["latency_us"]["p99"], 90);
        assert_eq!(parsed["answers_per_second"], 250.0);
    }
}
