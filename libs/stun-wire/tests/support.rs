//! What several tests use.

pub(crate) mod mutate;
pub(crate) mod samples;
pub(crate) mod vectors;
