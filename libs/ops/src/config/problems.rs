//! What is wrong with a configuration: one line a fault, all of them together.

use std::fmt;

/// One fault: where it is and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; absent for a key that is missing.
    pub line: Option<usize>,
    /// Path of the key, such as `listen[2]` or `quota.allocations-per-user`; empty for the file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Every fault of one configuration, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    origin: String,
    problems: Vec<Problem>,
}

impl Problems {
    /// A single fault found outside a file's text, such as in a `Config` built by a program.
    #[must_use]
    pub fn one(origin: &str, key: &str, reason: &str) -> Self {
        let problem = Problem {
            line: None,
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        Self {
            origin: origin.to_owned(),
            problems: vec![problem],
        }
    }

    pub(super) fn sorted(origin: String, mut problems: Vec<Problem>) -> Self {
        // Faults without a line (missing keys) come last; the sort keeps the order of equals.
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self { origin, problems }
    }

    /// The faults one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// How many faults there are; never 0.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is no empty list of problems"
    )]
    pub fn len(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.origin)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
