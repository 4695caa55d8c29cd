//! The dependency table of `docs/ARCHITECTURE.md`, held against what cargo says.
//!
//! ```text
//! stun-wire  signal-wire  credentials  nat-model          leaves: nothing of ours
//!      ↑          ↑           ↑
//! stun-server-proto  turn-relay-proto  signaling-lobby  client-sdk-proto      machines: leaves only
//!      ↑                  ↑                 ↑                ↑
//! stun-server        turn-relay        signaling        client-sdk            shells: own machine, leaves, net-io, ops
//! cli: any product's library                            (client-sdk: not ops)
//! tests/*: anything; nothing uses tests/*
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use e2e::workspace;

const LEAVES: &[&str] = &["stun-wire", "signal-wire", "credentials"];
const MACHINES: &[&str] = &[
    "stun-server-proto",
    "turn-relay-proto",
    "signaling-lobby",
    "client-sdk-proto",
];
/// Each shell with its own machine.
const SHELLS: &[(&str, &str)] = &[
    ("stun-server", "stun-server-proto"),
    ("turn-relay", "turn-relay-proto"),
    ("signaling", "signaling-lobby"),
    ("client-sdk", "client-sdk-proto"),
];

/// What no machine and no leaf may reach, directly or through others: runtimes, sockets, clocks of runtimes,
/// configuration, metrics, logs to a terminal.
const OUTSIDE: &[&str] = &[
    "tokio",
    "mio",
    "async-std",
    "smol",
    "hyper",
    "axum",
    "socket2",
    "quinn",
    "quinn-udp",
    "if-addrs",
    "prometheus",
    "toml",
    "clap",
    "tracing-subscriber",
    "redis",
    "sqlx",
    "signal-hook",
    "chrono",
];

/// The foreign stack: an oracle and a peer in tests, never in a product.
const ORACLES: &[&str] = &["webrtc-ice", "turn", "stun", "webrtc-util", "stun-types"];

#[test]
fn every_crate_uses_only_what_its_layer_may() -> Result<()> {
    let workspace = Workspace::read()?;
    let allowed = table();
    for package in workspace.members() {
        let name = package.name.as_str();
        let allowed = allowed
            .get(name)
            .with_context(|| format!("`{name}` is in no layer: add it to the table above"))?;
        let used = workspace.ours(package, |kind| kind != DependencyKind::Development);
        let forbidden: Vec<_> = used.difference(allowed).collect();
        ensure!(
            forbidden.is_empty(),
            "`{name}` may not depend on {forbidden:?}"
        );
    }
    Ok(())
}

#[test]
fn machines_and_leaves_reach_nothing_outside() -> Result<()> {
    let workspace = Workspace::read()?;
    for name in LEAVES.iter().chain(MACHINES).chain(&["nat-model"]) {
        let reached = workspace.reached_by(name)?;
        let outside: Vec<_> = OUTSIDE
            .iter()
            .filter(|bad| reached.contains(**bad))
            .collect();
        ensure!(outside.is_empty(), "`{name}` reaches {outside:?}");
        let shells: Vec<_> = SHELLS
            .iter()
            .filter(|(shell, _)| reached.contains(*shell))
            .collect();
        ensure!(shells.is_empty(), "`{name}` reaches {shells:?}");
    }
    Ok(())
}

#[test]
fn the_sdk_carries_no_server_code() -> Result<()> {
    let workspace = Workspace::read()?;
    let reached = workspace.reached_by("client-sdk")?;
    let server = [
        "ops",
        "credentials",
        "prometheus",
        "hyper",
        "toml",
        "stun-server",
        "stun-server-proto",
        "turn-relay",
        "turn-relay-proto",
        "signaling",
        "signaling-lobby",
    ];
    let carried: Vec<_> = server
        .iter()
        .filter(|name| reached.contains(**name))
        .collect();
    ensure!(carried.is_empty(), "client-sdk reaches {carried:?}");
    Ok(())
}

#[test]
fn nothing_depends_on_the_tests() -> Result<()> {
    let workspace = Workspace::read()?;
    for package in workspace.members() {
        let used = workspace.ours(package, |_| true);
        ensure!(
            !used.contains("e2e"),
            "`{}` depends on tests/e2e",
            package.name
        );
    }
    Ok(())
}

#[test]
fn one_crate_names_prometheus() -> Result<()> {
    let workspace = Workspace::read()?;
    let named: Vec<_> = workspace
        .members()
        .filter(|package| {
            package
                .dependencies
                .iter()
                .any(|dependency| dependency.name == "prometheus")
        })
        .map(|package| package.name.as_str())
        .collect();
    ensure!(named == ["ops"], "`prometheus` is named by {named:?}");
    Ok(())
}

#[test]
fn foreign_stacks_are_peers_in_tests_only() -> Result<()> {
    let workspace = Workspace::read()?;
    for package in workspace.members() {
        for dependency in &package.dependencies {
            let oracle = ORACLES.contains(&dependency.name.as_str());
            ensure!(
                !oracle || dependency.kind == DependencyKind::Development,
                "`{}` uses `{}` outside its tests",
                package.name,
                dependency.name
            );
        }
    }
    // As peers they must be there: a test that proves our independence of them would otherwise prove nothing.
    let e2e = workspace.package("e2e")?;
    for oracle in ["webrtc-ice", "turn", "stun"] {
        let used = e2e
            .dependencies
            .iter()
            .any(|dependency| dependency.name == oracle);
        ensure!(used, "no test uses `{oracle}`");
    }
    Ok(())
}

#[test]
fn one_provider_of_cryptography() -> Result<()> {
    let workspace = Workspace::read()?;
    for name in [
        "stun-server",
        "turn-relay",
        "signaling",
        "client-sdk",
        "rallypoint",
    ] {
        let reached = workspace.reached_by(name)?;
        let second: Vec<_> = [
            "aws-lc-rs",
            "aws-lc-sys",
            "openssl",
            "openssl-sys",
            "native-tls",
        ]
        .into_iter()
        .filter(|bad| reached.contains(*bad))
        .collect();
        ensure!(second.is_empty(), "`{name}` reaches {second:?} beside ring");
    }
    Ok(())
}

/// Which of our crates each of our crates may use.
fn table() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut table = BTreeMap::new();
    for leaf in LEAVES.iter().chain(&["nat-model", "net-io", "ops"]) {
        table.insert(*leaf, BTreeSet::new());
    }
    for machine in MACHINES {
        table.insert(machine, LEAVES.iter().copied().collect());
    }
    for (shell, machine) in SHELLS {
        let mut may: BTreeSet<_> = LEAVES.iter().copied().chain([*machine, "net-io"]).collect();
        if *shell != "client-sdk" {
            may.insert("ops");
        }
        table.insert(shell, may);
    }
    let libraries =
        LEAVES
            .iter()
            .copied()
            .chain(["net-io", "ops", "nat-model", "client-sdk-proto"]);
    let products = SHELLS.iter().map(|(shell, _)| *shell);
    let everything: BTreeSet<_> = libraries.chain(products).collect();
    table.insert("rallypoint", everything.clone());
    table.insert("e2e", everything);
    table
}

struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    /// Reads the graph of this machine's platform: the others' libraries are not fetched by a build.
    fn read() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(workspace::root().join("Cargo.toml"))
            .other_options(vec![
                "--offline".to_owned(),
                "--filter-platform".to_owned(),
                host()?,
            ])
            .exec()?;
        Ok(Self { metadata })
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.metadata.workspace_packages().into_iter()
    }

    fn package(&self, name: &str) -> Result<&Package> {
        let found = self.members().find(|package| package.name.as_str() == name);
        found.with_context(|| format!("no package `{name}`"))
    }

    /// Our crates that a crate names, in dependencies of the given kinds.
    fn ours<'a>(
        &'a self,
        package: &'a Package,
        wanted: impl Fn(DependencyKind) -> bool,
    ) -> BTreeSet<&'a str> {
        let ours: BTreeSet<_> = self.members().map(|member| member.name.as_str()).collect();
        let named = package
            .dependencies
            .iter()
            .filter(|dependency| wanted(dependency.kind));
        named
            .map(|dependency| dependency.name.as_str())
            .filter(|name| ours.contains(name))
            .collect()
    }

    /// The names of everything that a crate reaches through normal dependencies, on this platform.
    fn reached_by(&self, name: &str) -> Result<BTreeSet<&str>> {
        let resolve = self.metadata.resolve.as_ref().context("a resolved graph")?;
        let mut waiting = vec![&self.package(name)?.id];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = resolve
                .nodes
                .iter()
                .find(|node| &node.id == id)
                .context("a resolved package")?;
            let normal = node.deps.iter().filter(|dependency| {
                dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            });
            waiting.extend(normal.map(|dependency| &dependency.pkg));
        }
        seen.remove(&self.package(name)?.id);
        let names = seen.into_iter().map(|id| self.metadata[id].name.as_str());
        Ok(names.collect())
    }
}

/// The platform that `rustc` builds for here.
fn host() -> Result<String> {
    let version = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("rustc -vV")?;
    let version = String::from_utf8(version.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("a host in `rustc -vV`")?.to_owned())
}
