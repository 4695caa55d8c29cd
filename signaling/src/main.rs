//! The `rallypoint-signal` daemon.

fn main() {}
