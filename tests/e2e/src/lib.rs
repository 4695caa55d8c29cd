//! The laboratory of the end-to-end tests: real processes in real network namespaces behind real NATs.
//!
//! Read in this order: [`requirements`] (what a test needs and how it says that it is missing), [`netns`] (one namespace),
//! [`nat`] (what a router's rules are), [`core`] (the internet in the middle: it counts, cuts and records), [`lab`] (homes
//! and servers around it), then [`processes`], [`binaries`], [`config`], [`deployment`], [`local`], [`player`], [`relayed`] and
//! [`meeting`], which put the real programs into it. [`relay`], [`page`] and [`browser`] serve clients that no one here wrote.
//!
//! Everything a test makes carries the test process's id in its name, disappears on drop (a panic included), and is
//! swept up by the next run if the process was killed.

pub mod binaries;
pub mod browser;
pub mod capture;
pub mod config;
pub mod core;
pub mod daemon;
pub mod deployment;
pub mod http;
pub mod lab;
pub mod local;
pub mod meeting;
pub mod nat;
pub mod netns;
pub mod page;
pub mod player;
pub mod processes;
pub mod relay;
pub mod relayed;
pub mod requirements;
pub mod usage;
pub mod wait;
pub mod workspace;
