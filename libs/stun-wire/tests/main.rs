//! The tests of the codec, in one binary.

mod bodies;
mod differential;
mod fuzz_corpus;
mod no_allocation;
mod rfc_vectors;
mod round_trip;
mod signatures;
mod support;
