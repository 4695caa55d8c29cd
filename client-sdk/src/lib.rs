//! The client SDK: join a room, get encrypted paths to the other players.

pub mod network;
