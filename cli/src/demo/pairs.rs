//! Who plays in the demo: four pairs of players, the NATs they sit behind, and the paths that theory promises them.

use nat_model::Kind;

use crate::demo::record::Path;

/// One pair of the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairPlan {
    pub(crate) names: [&'static str; 2],
    pub(crate) nats: [Kind; 2],
    pub(crate) expected: Path,
    /// Whether the direct path is cut at the first player's NAT while they play.
    pub(crate) cut: bool,
}

/// The pairs, in the order of the table.
pub(crate) const PAIRS: [PairPlan; 4] = [
    PairPlan {
        names: ["anna", "ben"],
        nats: [Kind::PortRestricted, Kind::PortRestricted],
        expected: Path::Direct,
        cut: true,
    },
    PairPlan {
        names: ["chloe", "dan"],
        nats: [Kind::FullCone, Kind::SymmetricRandom],
        expected: Path::Direct,
        cut: false,
    },
    PairPlan {
        names: ["emma", "finn"],
        nats: [Kind::SymmetricRandom, Kind::SymmetricRandom],
        expected: Path::Relay,
        cut: false,
    },
    PairPlan {
        names: ["grace", "hugo"],
        nats: [Kind::UdpBlocked, Kind::PortRestricted],
        expected: Path::RelayOverTcp,
        cut: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_those_of_theory() {
        for plan in PAIRS {
            let [a, b] = plan.nats.map(Kind::behaviour);
            let theory = match (a.punches(&b), a.udp && b.udp) {
                (true, _) => Path::Direct,
                (false, true) => Path::Relay,
                (false, false) => Path::RelayOverTcp,
            };
            assert_eq!(plan.expected, theory, "{plan:?}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = PAIRS.iter().flat_map(|plan| plan.names).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2 * PAIRS.len());
    }
}
