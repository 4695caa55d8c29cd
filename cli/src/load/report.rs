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
    pub(crate) window: Option<u16>,
    pub(crate) rate: Option<u32>,
    pub(crate) seconds: f64,
    /// One way, while measured.
    pub(crate) relayed: u64,
    pub(crate) relayed_per_second: f64,
    /// Given to the system to send, whole run; round trips with echo.
    pub(crate) sent: u64,
    /// Of those, what did not arrive.
    pub(crate) lost: u64,
    /// The system would not send them.
    pub(crate) unsent: u64,
    pub(crate) out_of_order: u64,
    /// Came to another flow than their own, or were never sent.
    pub(crate) foreign: u64,
    /// One way, with echo the round trip; only with a rate.
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) server_cpu_us_per_packet: Option<f64>,
    pub(crate) load_busy: Option<f64>,
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
    pub(crate) server_cpu_us_per_cycle: Option<f64>,
    pub(crate) load_busy: Option<f64>,
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
    pub(crate) load_busy: Option<f64>,
}

impl Relayed {
    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{:.0} packets/s relayed ({} in {:.1} s), {} of {} lost",
            self.relayed_per_second, self.relayed, self.seconds, self.lost, self.sent
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
        text += &costs(self.server_cpu_us_per_packet, "packet", self.load_busy);
        (json(self), text)
    }
}

impl Cycles {
    pub(crate) fn new(at_once: u16, failed: u64, figures: Figures) -> Self {
        Self {
            at_once,
            seconds: figures.seconds,
            cycles: figures.done,
            cycles_per_second: figures.per_second,
            failed,
            server_cpu_us_per_cycle: figures.server_cpu_us,
            load_busy: figures.load_busy,
        }
    }

    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{:.0} allocation cycles/s ({} in {:.1} s), {} failed",
            self.cycles_per_second, self.cycles, self.seconds, self.failed
        );
        text += &costs(self.server_cpu_us_per_cycle, "cycle", self.load_busy);
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
        text += &costs(self.server_cpu_us_per_answer, "answer", self.load_busy);
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

fn costs(server: Option<f64>, each: &str, load: Option<f64>) -> String {
    let server = server.map(|micros| format!("\nserver CPU: {micros:.2} us per {each}"));
    let load = load.map(|busy| {
        format!(
            "\nthis process was busy for {:.0} % of the time",
            busy * 100.0
        )
    });
    server.unwrap_or_default() + &load.unwrap_or_default()
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
            load_busy: Some(0.25),
        };
        let (json, text) = report.told();
        let expected = "250 answers/s (500 in 2.0 s), 10 of 510 lost\nlatency: median 40 us, 99 % within 90 us\n\
                        server CPU: 2.35 us per answer\nthis process was busy for 25 % of the time";
        assert_eq!(text, expected);
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(parsed["latency_us"]["p99"], 90);
        assert_eq!(parsed["answers_per_second"], 250.0);
    }
}
