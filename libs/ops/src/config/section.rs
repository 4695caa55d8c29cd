//! A table of the file, asked for its keys one by one; what is wrong is collected on the way.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{FromValue, Value};
use super::{ListenUrl, Origin, Problem, Problems, Scheme, Secret, secret};

/// A configuration type, read from one table.
pub trait FromRaw: Sized {
    /// Asks `section` for every key this type has. `None` only after a fault was reported.
    fn from_raw(section: &mut Section<'_>) -> Option<Self>;
}

/// One table of a configuration file.
///
/// Every method names the key it reads; keys that were never named are faults at the end. A value at
/// fault is reported and its default returned, so that reading goes on to the next fault.
#[derive(Debug)]
pub struct Section<'d> {
    path: String,
    table: &'d DeTable<'d>,
    known: BTreeSet<&'static str>,
    document: &'d Document<'d>,
}

/// What all sections of one file share.
pub(super) struct Document<'d> {
    text: &'d str,
    origin: &'d Origin,
    problems: RefCell<Vec<Problem>>,
}

impl std::fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.origin.name)
    }
}

pub(super) fn read_document<T: FromRaw>(text: &str, origin: Origin) -> Result<T, Problems> {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let document = Document {
        text,
        origin: &origin,
        problems: RefCell::default(),
    };
    for error in &syntax_errors {
        let line = error.span().map(|span| document.line_at(span.start));
        document.report(line, String::new(), error.message().to_owned());
    }
    let config = Section::open(String::new(), root.get_ref(), &document).read::<T>();
    let mut problems = document.problems.into_inner();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => {
            if problems.is_empty() {
                let reason = "incomplete".to_owned();
                problems.push(Problem {
                    line: None,
                    key: String::new(),
                    reason,
                });
            }
            Err(Problems::sorted(origin.name, problems))
        }
    }
}

impl<'d> Section<'d> {
    /// The value of `key`, or `default` when it is absent.
    pub fn value<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of `key` if it is there and right.
    pub fn optional<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        let raw = self.find(key)?;
        self.convert(self.path_of(key), raw)
    }

    /// The value of `key`; its absence is a fault.
    pub fn required<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        if self.find(key).is_none() {
            self.problem(key, &format!("missing, expected {}", T::EXPECTED));
            return None;
        }
        self.optional(key)
    }

    /// The value of `key` within `range`, or `default` when it is absent.
    pub fn ranged<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromValue + PartialOrd + Display + Clone,
    {
        self.checked(key, default, |value| {
            if range.contains(value) {
                return Ok(());
            }
            Err(format!(
                "{value} is out of range, expected {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// The value of `key` if `check` accepts it, or `default` when it is absent.
    pub fn checked<T: FromValue + Clone>(
        &mut self,
        key: &'static str,
        default: T,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> T {
        let Some(value) = self.optional(key) else {
            return default;
        };
        match check(&value) {
            Ok(()) => value,
            Err(reason) => {
                self.problem(key, &reason);
                default
            }
        }
    }

    /// One of a few named choices, or `default` when `key` is absent.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> T {
        let Some(text) = self.optional::<String>(key) else {
            return default;
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.problem(key, &format!("`{text}`: expected {}", in_words(&names)));
        default
    }

    /// Every element of an array, each fault with its place; `None` when `key` is absent.
    pub fn list<T: FromValue>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let raw = self.find(key)?;
        let DeValue::Array(array) = raw.get_ref() else {
            self.report_at(self.path_of(key), raw, "expected an array");
            return None;
        };
        let path = self.path_of(key);
        let convert = |(index, raw)| self.convert(format!("{path}[{index}]"), raw);
        Some(array.iter().enumerate().filter_map(convert).collect())
    }

    /// The listeners under `key`: URLs of the allowed schemes, none of them twice; `None` when `key` is
    /// absent or nothing in it is right.
    pub fn listen_urls(&mut self, key: &'static str, allowed: &[Scheme]) -> Option<Vec<ListenUrl>> {
        let raw = self.find(key)?;
        let DeValue::Array(array) = raw.get_ref() else {
            self.report_at(self.path_of(key), raw, "expected an array of listen URLs");
            return None;
        };
        let mut urls: Vec<ListenUrl> = Vec::new();
        for (index, raw) in array.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            let Some(text) = self.convert::<String>(path.clone(), raw) else {
                continue;
            };
            match ListenUrl::parse(&text, allowed) {
                Ok(url) if urls.contains(&url) => {
                    self.report_at(path, raw, &format!("`{text}`: listed twice"));
                }
                Ok(url) => urls.push(url),
                Err(reason) => self.report_at(path, raw, &format!("`{text}`: {reason}")),
            }
        }
        let all_at_fault = urls.is_empty() && !array.is_empty();
        (!all_at_fault).then_some(urls)
    }

    /// A table whose keys are values too, such as `{ "10.0.0.5" = "203.0.113.10" }`.
    pub fn map<K: FromValue, V: FromValue>(&mut self, key: &'static str) -> Option<Vec<(K, V)>> {
        let raw = self.find(key)?;
        let DeValue::Table(table) = raw.get_ref() else {
            self.report_at(self.path_of(key), raw, "expected a table");
            return None;
        };
        let mut pairs = Vec::new();
        for (name, raw) in table {
            let path = format!("{}.\"{}\"", self.path_of(key), name.get_ref());
            let from = match K::from_value(&Value::text_of(name.get_ref())) {
                Ok(from) => Some(from),
                Err(reason) => {
                    let line = self.document.line_at(name.span().start);
                    self.document
                        .report(Some(line), path.clone(), format!("the key: {reason}"));
                    None
                }
            };
            if let (Some(from), Some(to)) = (from, self.convert(path, raw)) {
                pairs.push((from, to));
            }
        }
        Some(pairs)
    }

    /// The table under `key`; an absent table is read as an empty one, so that its defaults apply.
    pub fn section<T: FromRaw>(&mut self, key: &'static str) -> Option<T> {
        if self.find(key).is_some() {
            return self.optional_section(key);
        }
        let empty = DeTable::new();
        Section::open(self.path_of(key), &empty, self.document).read()
    }

    /// The table under `key` if there is one.
    pub fn optional_section<T: FromRaw>(&mut self, key: &'static str) -> Option<T> {
        let raw = self.find(key)?;
        let DeValue::Table(table) = raw.get_ref() else {
            self.report_at(self.path_of(key), raw, &format!("expected a table [{key}]"));
            return None;
        };
        Section::open(self.path_of(key), table, self.document).read()
    }

    /// Every table of `[[key]]`, or none when there is none.
    pub fn tables<T: FromRaw>(&mut self, key: &'static str) -> Vec<T> {
        let Some(raw) = self.find(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = raw.get_ref() else {
            self.report_at(
                self.path_of(key),
                raw,
                &format!("expected tables [[{key}]]"),
            );
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, raw) in array.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            let DeValue::Table(table) = raw.get_ref() else {
                self.report_at(path, raw, "expected a table");
                continue;
            };
            items.extend(Section::open(path, table, self.document).read::<T>());
        }
        items
    }

    /// The path that `key` names, resolved like those of secrets: relative ones start at the folder
    /// of the configuration file. Whether a file is there shows when it is opened.
    pub fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.required::<String>(key)?;
        match secret::resolve(&path, self.document.origin) {
            Ok(path) => Some(path),
            Err(reason) => {
                self.problem(key, &format!("`{path}`: {reason}"));
                None
            }
        }
    }

    /// The secret in the file that `key` names; see [`Secret`] for what is refused.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let path = self.required::<String>(key)?;
        match Secret::read(&path, self.document.origin) {
            Ok(secret) => Some(secret),
            Err(reason) => {
                self.problem(key, &format!("`{path}`: {reason}"));
                None
            }
        }
    }

    /// The secret in the file that the environment variable `NAME_FILE` names, if it is set.
    pub fn secret_from_environment(&mut self, name: &str) -> Option<Secret> {
        let lookup = self.document.origin.environment;
        if lookup(name).is_some() {
            let reason = format!("a secret in the environment itself is refused, set {name}_FILE");
            self.document.report(None, format!("${name}"), reason);
        }
        let variable = format!("{name}_FILE");
        let path = lookup(&variable)?.to_string_lossy().into_owned();
        match Secret::read(&path, self.document.origin) {
            Ok(secret) => Some(secret),
            Err(reason) => {
                self.document
                    .report(None, format!("${variable}"), format!("`{path}`: {reason}"));
                None
            }
        }
    }

    /// The text under `key` if it holds one: for keys that take a word in place of something else.
    pub fn word(&mut self, key: &'static str) -> Option<&'d str> {
        self.find(key)?.get_ref().as_str()
    }

    /// Whether the file has `key`; counts as naming it.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Reports a fault of `key`, such as one that only shows beside another key.
    pub fn problem(&mut self, key: &'static str, reason: &str) {
        match self.find(key) {
            Some(raw) => self.report_at(self.path_of(key), raw, reason),
            None => self
                .document
                .report(None, self.path_of(key), reason.to_owned()),
        }
    }

    fn open(path: String, table: &'d DeTable<'d>, document: &'d Document<'d>) -> Self {
        Self {
            path,
            table,
            known: BTreeSet::new(),
            document,
        }
    }

    fn read<T: FromRaw>(mut self) -> Option<T> {
        let value = T::from_raw(&mut self);
        self.report_unknown_keys();
        value
    }

    fn report_unknown_keys(&self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(name) {
                continue;
            }
            let line = self.document.line_at(key.span().start);
            let reason = match nearest(name, &self.known) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => "unknown key".to_owned(),
            };
            self.document.report(Some(line), self.path_of(name), reason);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.insert(key);
        self.table.get(key)
    }

    fn convert<T: FromValue>(&self, path: String, raw: &Spanned<DeValue<'_>>) -> Option<T> {
        match T::from_value(&Value::new(raw.get_ref())) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.report_at(path, raw, &reason);
                None
            }
        }
    }

    fn report_at(&self, path: String, raw: &Spanned<DeValue<'_>>, reason: &str) {
        let line = self.document.line_at(raw.span().start);
        self.document.report(Some(line), path, reason.to_owned());
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl Document<'_> {
    fn report(&self, line: Option<usize>, key: String, reason: String) {
        self.problems
            .borrow_mut()
            .push(Problem { line, key, reason });
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self
            .text
            .as_bytes()
            .get(..offset)
            .unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The known key that `name` was probably meant to be: at most two edits away, and most of it right.
fn nearest<'k>(name: &str, known: &BTreeSet<&'k str>) -> Option<&'k str> {
    let distances = known.iter().map(|key| (edit_distance(name, key), *key));
    let close = distances.filter(|(distance, _)| *distance <= 2 && *distance * 2 < name.len());
    close.min().map(|(_, key)| key)
}

/// Levenshtein distance of two short keys, row by row.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut previous = i;
        let mut next = vec![i + 1];
        for (above, b) in row.iter().skip(1).zip(right.chars()) {
            let beside = next.last().copied().unwrap_or(i + 1);
            let substituted = previous + usize::from(a != b);
            next.push(substituted.min(above + 1).min(beside + 1));
            previous = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// "udp, tcp or tls".
pub(super) fn in_words(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
