//! The `rallypoint-stun` daemon.

fn main() {}
