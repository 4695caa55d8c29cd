//! Rules that no compiler knows: what tracked files may be called and contain.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::workspace::{root, tracked_files};

/// Crates that decide and never touch the world: no clock, socket, thread, file, environment, or randomness of their own.
const PURE: &[&str] = &[
    "libs/stun-wire",
    "libs/signal-wire",
    "libs/credentials",
    "libs/nat-model",
    "stun-server/proto",
    "turn-relay/proto",
    "signaling/lobby",
    "client-sdk/proto",
];

/// What a pure crate would touch the world with.
const WORLD: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::env",
    "std::process",
    "rand::rng()",
    "thread_rng",
    "OsRng",
    "SysRng",
    "getrandom",
    "println!",
    "eprintln!",
];

/// Past this a file certainly holds a second noun; past `LONG` one should look for it.
const TOO_LONG: usize = 1000;
const LONG: usize = 600;

#[test]
fn modules_are_files_named_after_themselves() -> Result<()> {
    let found: Vec<_> = tracked_files()?
        .into_iter()
        .filter(|file| file.ends_with("mod.rs"))
        .collect();
    ensure!(found.is_empty(), "foo.rs with foo/, no mod.rs: {found:?}");
    Ok(())
}

#[test]
fn machines_and_leaves_do_not_touch_the_world() -> Result<()> {
    let mut faults = Vec::new();
    for file in rust_files()? {
        let Some(file_name) = file.to_str() else {
            continue;
        };
        let pure = PURE
            .iter()
            .any(|folder| file_name.starts_with(&format!("{folder}/src/")));
        // The tests of a machine may have a clock to set out from.
        if !pure || file.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in product_lines(&read(&file)?) {
            let touched = WORLD.iter().filter(|word| line.contains(**word));
            faults.extend(touched.map(|word| format!("{}:{number}: {word}", file.display())));
        }
    }
    ensure!(
        faults.is_empty(),
        "the world in a pure crate:\n{}",
        faults.join("\n")
    );
    Ok(())
}

#[test]
fn every_source_file_says_what_it_is() -> Result<()> {
    let mut silent = Vec::new();
    // `foo/tests.rs` are the tests of `foo.rs`, which says what it is.
    for file in rust_files()?.filter(|file| !file.ends_with("tests.rs")) {
        let text = read(&file)?;
        let head = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!["));
        if !head.is_some_and(|line| line.starts_with("//!")) {
            silent.push(file);
        }
    }
    ensure!(silent.is_empty(), "no `//!` at the top of {silent:?}");
    Ok(())
}

#[test]
fn no_source_file_outgrows_a_reader() -> Result<()> {
    let mut long = Vec::new();
    for file in rust_files()? {
        let lines = read(&file)?
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count();
        if lines > LONG {
            long.push((lines, file));
        }
    }
    long.sort();
    for (lines, file) in &long {
        println!(
            "{}: {lines} lines before its tests: is there a second noun in it?",
            file.display()
        );
    }
    let longest = long.last();
    ensure!(
        longest.is_none_or(|(lines, _)| *lines <= TOO_LONG),
        "{longest:?}"
    );
    Ok(())
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() -> Result<()> {
    for manifest in manifests()? {
        let table: toml::Table = toml::from_str(&read(&manifest)?)?;
        let inherited = table
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        ensure!(
            inherited == Some(true),
            "{}: `[lints] workspace = true`",
            manifest.display()
        );
        let package = table.get("package").context("a package")?;
        for key in ["version", "edition", "rust-version", "license"] {
            let inherited = package
                .get(key)
                .and_then(|value| value.get("workspace"))
                .is_some();
            ensure!(
                inherited,
                "{}: `{key}` comes from the workspace",
                manifest.display()
            );
        }
    }
    Ok(())
}

#[test]
fn versions_of_libraries_are_named_once() -> Result<()> {
    for manifest in manifests()? {
        let table: toml::Table = toml::from_str(&read(&manifest)?)?;
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, dependency) in dependencies {
                let inherited = dependency.get("workspace").is_some();
                ensure!(
                    inherited,
                    "{}: `{name}.workspace = true`",
                    manifest.display()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn libraries_come_from_crates_io() -> Result<()> {
    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let lock: toml::Table = toml::from_str(&read(Path::new("Cargo.lock"))?)?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .context("packages")?;
    for package in packages {
        let source = package.get("source").and_then(toml::Value::as_str);
        ensure!(source.is_none_or(|source| source == CRATES_IO), "{package}");
    }
    Ok(())
}

#[test]
fn nothing_tracked_knows_the_machine_it_was_written_on() -> Result<()> {
    // Put together here, so that this file does not contain what it looks for.
    let here = format!("{}/", root().display());
    let patterns: Vec<String> = vec![
        here,
        format!("{}work/", '/'),
        format!("{}home/", '/'),
        format!("{}root/", '/'),
        format!("replace{}with =", '-'),
        format!("extra{}index-url", '-'),
        format!("--index{}url", '-'),
        format!("npm_config{}registry", '_'),
    ];
    let mut faults = Vec::new();
    for file in tracked_files()? {
        // What is not text (corpora, pictures) names no machine.
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let known = patterns.iter().filter(|pattern| names(line, pattern));
            faults.extend(known.map(|it| format!("{}:{}: {it}", file.display(), number + 1)));
        }
    }
    ensure!(
        faults.is_empty(),
        "machine paths or registries:\n{}",
        faults.join("\n")
    );
    Ok(())
}

#[test]
fn examples_of_deploy_are_well_formed() -> Result<()> {
    let in_deploy = |file: &&PathBuf| file.starts_with("deploy");
    let files = tracked_files()?;
    let mut configurations = 0;
    for file in files.iter().filter(in_deploy) {
        let text = read(file)?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => {
                let table: Result<toml::Table, _> = toml::from_str(&text);
                table.with_context(|| file.display().to_string())?;
                configurations += usize::from(file.starts_with("deploy/config"));
            }
            Some("service") => {
                for section in ["[Unit]", "[Service]", "[Install]"] {
                    ensure!(text.contains(section), "{}: no {section}", file.display());
                }
            }
            Some("json") => {
                let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
                value.with_context(|| file.display().to_string())?;
            }
            _ => ensure!(
                !text.contains('\t') || !is_yaml(file),
                "{}: a tab in YAML",
                file.display()
            ),
        }
    }
    ensure!(
        configurations >= 3,
        "one example for each daemon, found {configurations}"
    );
    Ok(())
}

#[test]
fn the_files_a_reader_expects_are_there() -> Result<()> {
    let expected = [
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/ARCHITECTURE.md",
        "docs/CONTRIBUTING.md",
        ".ci/run",
        ".rustfmt.toml",
        ".clippy.toml",
        ".deny.toml",
        "Cargo.lock",
    ];
    let tracked = tracked_files()?;
    let missing: Vec<_> = expected
        .iter()
        .filter(|name| !tracked.iter().any(|file| file == Path::new(name)))
        .collect();
    ensure!(missing.is_empty(), "not tracked: {missing:?}");
    Ok(())
}

fn rust_files() -> Result<impl Iterator<Item = PathBuf>> {
    let files = tracked_files()?.into_iter();
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")))
}

/// The manifests of the workspace's members. The fuzz targets are a workspace of their own (they need nightly).
fn manifests() -> Result<impl Iterator<Item = PathBuf>> {
    let members = tracked_files()?
        .into_iter()
        .filter(|file| file.ends_with("Cargo.toml"));
    Ok(members.filter(|file| file != Path::new("Cargo.toml") && !file.starts_with("tests/fuzz")))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())
}

/// The lines of a file that are product: comments left out, and everything from the tests at its end on.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let product = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"));
    let numbered = product.enumerate().map(|(index, line)| (index + 1, line));
    numbered.map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

/// Whether a path or word starts in this line: not behind another part of a path, nor as the target of a copy (`host:/dir`).
fn names(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|before| before.is_alphanumeric() || "._-}~*/:".contains(before))
    })
}

fn is_yaml(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "yml" || extension == "yaml")
}
