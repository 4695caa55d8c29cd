//! What is told of allocations that were held.

use serde::Serialize;

use super::super::memory::Memory;

/// Allocations held, and what they cost the server.
#[derive(Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) wanted: u16,
    /// With permission and channel.
    pub(crate) held: usize,
    /// Why the last of the others is missing.
    pub(crate) refusal: Option<String>,
    /// Making all of them, from the first request to the last answer.
    pub(crate) setup_seconds: f64,
    /// Rounds in which all were renewed.
    pub(crate) renewals: u32,
    /// Not renewed in some round.
    pub(crate) expired: usize,
    pub(crate) probe: Option<Probe>,
    /// Ended by their clients.
    pub(crate) released: usize,
    pub(crate) release_seconds: f64,
    pub(crate) server: Option<Cost>,
}

/// One packet each way over every allocation held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Probe {
    /// From its client to the peer, with its relayed address as source.
    pub(crate) up: usize,
    /// From the peer to its client, in its channel.
    pub(crate) down: usize,
}

/// What the server's process holds at three moments.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    /// Before the first request.
    pub(crate) idle: Memory,
    pub(crate) held: Memory,
    /// After the last allocation ended.
    pub(crate) released: Memory,
    /// The most that was ever resident.
    pub(crate) peak_rss: u64,
    /// Resident when held over idle, for each allocation held.
    pub(crate) bytes_per_allocation: Option<f64>,
}

impl Held {
    /// As JSON and as text.
    pub(crate) fn told(&self) -> (String, String) {
        let mut text = format!(
            "{} of {} allocations held, made in {:.1} s, {} released in {:.1} s",
            self.held, self.wanted, self.setup_seconds, self.released, self.release_seconds
        );
        if let Some(refusal) = &self.refusal {
            text += &format!("\nlast refusal: {refusal}");
        }
        if self.expired > 0 {
            text += &format!("\n{} not renewed", self.expired);
        }
        if let Some(Probe { up, down }) = self.probe {
            text += &format!("\npackets carried: {up} up, {down} down");
        }
        if let Some(cost) = &self.server {
            text += &cost.told();
        }
        let json = serde_json::to_string(self).expect("numbers and names serialize");
        (json, text)
    }
}

impl Cost {
    fn told(&self) -> String {
        let each = self.bytes_per_allocation;
        let each = each.map_or_else(String::new, |bytes| {
            format!("\n{bytes:.0} bytes of the server an allocation")
        });
        format!(
            "\nresident: {} KiB idle, {} KiB held, {} KiB after release, {} KiB at most{each}",
            self.idle.rss / 1024,
            self.held.rss / 1024,
            self.released.rss / 1024,
            self.peak_rss / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(rss: u64) -> Memory {
        Memory {
            rss,
            anonymous: rss / 2,
            descriptors: 9,
            kernel_slab: 0,
        }
    }

    #[test]
    fn both_forms_tell_the_same_figures() {
        let report = Held {
            wanted: 20,
            held: 16,
            refusal: Some("486".into()),
            setup_seconds: 1.25,
            renewals: 2,
            expired: 1,
            probe: Some(Probe { up: 15, down: 14 }),
            released: 16,
            release_seconds: 0.5,
            server: Some(Cost {
                idle: memory(1024),
                held: memory(4096),
                released: memory(2048),
                peak_rss: 8192,
                bytes_per_allocation: Some(192.0),
            }),
        };
        let (json, text) = report.told();
        let expected = "16 of 20 allocations held, made in 1.2 s, 16 released in 0.5 s\nlast refusal: 486\n\
                        1 not renewed\npackets carried: 15 up, 14 down\nresident: 1 KiB idle, 4 KiB held, 2 KiB after \
                        release, 8 KiB at most\n192 bytes of the server an allocation";
        assert_eq!(text, expected);
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(parsed["server"]["held"]["rss"], 4096);
        assert_eq!(parsed["probe"]["down"], 14);
    }
}
