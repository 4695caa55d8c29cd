//! What the documents point at exists: files, headings, crates, programs and their options.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::binaries;
use e2e::workspace::{root, tracked_files};

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut broken = Vec::new();
    for file in documents()? {
        let text = read(&file)?;
        for link in links(&text) {
            if let Some(fault) = fault_in(&file, &link)? {
                broken.push(format!("{}: {link}: {fault}", file.display()));
            }
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

#[test]
fn files_named_in_code_spans_exist() -> Result<()> {
    let top: BTreeSet<String> = tracked_files()?
        .iter()
        .filter(|file| file.components().count() > 1)
        .filter_map(|file| file.iter().next()?.to_str().map(str::to_owned))
        .collect();
    let mut missing = Vec::new();
    for file in documents()? {
        for span in code_spans(&read(&file)?) {
            let plain = span
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let starts_here = span
                .split('/')
                .next()
                .is_some_and(|first| top.contains(first));
            if plain && starts_here && span.contains('/') && !root().join(&span).exists() {
                missing.push(format!("{}: {span}", file.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

/// Documents name files by the end of their path, and tests as `file.rs::function`.
#[test]
fn files_and_tests_named_by_their_end_exist() -> Result<()> {
    const BY_THEIR_END: [&str; 2] = ["docs/rfc-coverage.md", "docs/security-goals.md"];
    let sources: Vec<PathBuf> = tracked_files()?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    let mut missing = Vec::new();
    let mut checked = 0;
    for file in documents()? {
        let by_its_end = BY_THEIR_END.iter().any(|name| file == Path::new(name));
        for span in code_spans(&read(&file)?) {
            let (name, function) = match span.split_once(".rs::") {
                Some((name, function)) => (format!("{name}.rs"), Some(function)),
                None if by_its_end && span.ends_with(".rs") => (span.clone(), None),
                None => continue,
            };
            checked += 1;
            let found = sources
                .iter()
                .filter(|source| source.ends_with(&name))
                .any(|source| function.is_none_or(|function| is_test(source, function)));
            if !found {
                missing.push(format!("{}: {span}", file.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    ensure!(checked > 150, "only {checked} names were found");
    Ok(())
}

/// Whether the file has a test of that name.
fn is_test(source: &Path, function: &str) -> bool {
    let Ok(text) = read(source) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let declares = ["fn ", "async fn "].iter().any(|prefix| {
            line.strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix(function))
                .is_some_and(|rest| rest.starts_with('('))
        });
        let attributes = lines[..at]
            .iter()
            .rev()
            .take_while(|above| above.starts_with("#[") || above.starts_with("//"));
        declares && attributes.into_iter().any(|line| line.contains("test"))
    })
}

#[test]
fn crates_named_with_cargo_exist() -> Result<()> {
    let manifests = tracked_files()?
        .into_iter()
        .filter(|file| file.ends_with("Cargo.toml"));
    let names: BTreeSet<String> = manifests
        .filter_map(|file| toml::from_str::<toml::Table>(&read(&file).ok()?).ok())
        .filter_map(|manifest| {
            manifest
                .get("package")?
                .get("name")?
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    for file in documents()? {
        for command in commands(&read(&file)?).filter(|command| command.contains("cargo ")) {
            let words: Vec<_> = command.split_whitespace().collect();
            for pair in words.windows(2) {
                let [flag, name] = pair else { continue };
                let known = !matches!(*flag, "-p" | "--package") || names.contains(*name);
                ensure!(known, "{}: no package `{name}`: {command}", file.display());
            }
        }
    }
    Ok(())
}

#[test]
fn commands_of_ours_know_the_options_they_are_shown_with() -> Result<()> {
    let mut faults = Vec::new();
    let mut checked = 0;
    for file in documents()? {
        for command in commands(&read(&file)?) {
            let Some((program, arguments)) = ours(&command) else {
                continue;
            };
            checked += 1;
            if let Some(fault) = unknown_in(&program, &arguments)? {
                faults.push(format!("{}: {fault}: {command}", file.display()));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(checked > 0, "no document shows a command of ours");
    Ok(())
}

#[test]
fn ci_runs_the_commands_of_the_readme() -> Result<()> {
    let readme = read(Path::new("README.md"))?;
    let ci = read(Path::new(".ci/run"))?;
    for command in [
        "cargo run --release -p rallypoint -- demo",
        "cargo test --workspace",
    ] {
        ensure!(
            readme.contains(command),
            "README.md does not show `{command}`"
        );
        ensure!(ci.contains(command), ".ci/run does not run `{command}`");
    }
    Ok(())
}

fn documents() -> Result<Vec<PathBuf>> {
    let files = tracked_files()?.into_iter();
    Ok(files
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"))
        .collect())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())
}

/// The targets of `[text](target)` and `src="target"`, outside code blocks.
fn links(text: &str) -> Vec<String> {
    let prose = outside_blocks(text);
    let inline = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let html = prose
        .split("src=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    inline
        .chain(html)
        .map(|target| target.trim().to_owned())
        .collect()
}

fn fault_in(document: &Path, link: &str) -> Result<Option<String>> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => document.to_owned(),
        _ => document
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join(file),
    };
    if !root().join(&target).exists() {
        return Ok(Some("no such file".to_owned()));
    }
    let headings_matter = !anchor.is_empty() && target.extension().is_some_and(|it| it == "md");
    if !headings_matter {
        return Ok(None);
    }
    let text = read(&target)?;
    let found = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| slug(line) == anchor);
    Ok((!found).then(|| "no such heading".to_owned()))
}

/// A heading as the renderers turn it into an anchor.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// `code` in prose.
fn code_spans(text: &str) -> Vec<String> {
    let prose = outside_blocks(text);
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn outside_blocks(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Command lines in code blocks, with or without a prompt; continued lines are joined, comments dropped.
fn commands(text: &str) -> impl Iterator<Item = String> {
    let blocks = text.split("```").skip(1).step_by(2);
    let shell = blocks.filter(|block| {
        let language = block.lines().next().unwrap_or_default();
        ["", "sh", "bash", "console", "shell"].contains(&language)
    });
    let joined: Vec<String> = shell.map(|block| block.replace("\\\n", " ")).collect();
    let lines: Vec<String> = joined
        .iter()
        .flat_map(|block| block.lines().skip(1))
        .map(|line| {
            line.trim()
                .trim_start_matches("$ ")
                .trim_start_matches("# ")
        })
        .map(|line| {
            line.split(" #")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .collect();
    lines.into_iter()
}

/// The program of ours that a command runs, and its arguments up to the first pipe or redirection.
fn ours(command: &str) -> Option<(PathBuf, Vec<String>)> {
    let words: Vec<&str> = command
        .split_whitespace()
        .take_while(|word| !["|", ">", "<", "&&", "&", ";", "2>&1"].contains(word))
        .collect();
    let programs = [
        "rallypoint",
        "rallypoint-stun",
        "rallypoint-turn",
        "rallypoint-signal",
    ];
    let at = if words.first() == Some(&"cargo") {
        // `cargo run -p rallypoint -- demo`
        let package = words.windows(2).find(|pair| pair[0] == "-p")?[1];
        ensure_named(package, &programs)?;
        words
            .iter()
            .position(|word| *word == "--")
            .unwrap_or(words.len() - 1)
    } else {
        words
            .iter()
            .position(|word| programs.iter().any(|program| is_program(word, program)))?
    };
    let name = if words[0] == "cargo" {
        "rallypoint"
    } else {
        words[at].rsplit('/').next()?
    };
    let program = binaries::program(name).ok()?;
    let arguments = words[at + 1..]
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    Some((program, arguments))
}

fn ensure_named(package: &str, programs: &[&str]) -> Option<()> {
    programs.contains(&package).then_some(())
}

fn is_program(word: &str, program: &str) -> bool {
    word == program || word.ends_with(&format!("/{program}"))
}

/// Asks the program for help on the subcommand and looks for each option in it.
fn unknown_in(program: &Path, arguments: &[String]) -> Result<Option<String>> {
    let subcommand: Vec<&String> = arguments
        .iter()
        .take_while(|word| {
            word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
        })
        .collect();
    let output = Command::new(program)
        .args(&subcommand)
        .arg("--help")
        .output()?;
    if !output.status.success() {
        return Ok(Some(format!("no subcommand {subcommand:?}")));
    }
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let options = arguments
        .iter()
        .filter(|word| word.starts_with("--") && word.len() > 2);
    for option in options {
        let name = option.split('=').next().unwrap_or_default();
        if !help.contains(name) && name != "--version" {
            return Ok(Some(format!("no option {name}")));
        }
    }
    Ok(None)
}
