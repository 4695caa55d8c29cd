//! A daemon's configuration, made from the example in `deploy/config` by changing what every operator has to change.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use crate::workspace;

/// A configuration on its way from the example to a file.
#[derive(Debug, Clone)]
pub struct Config(Table);

impl Config {
    /// The example `deploy/config/NAME.toml`.
    ///
    /// # Errors
    /// When there is no such example or it is no TOML.
    pub fn example(name: &str) -> Result<Self> {
        let path = workspace::root()
            .join("deploy/config")
            .join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(
            toml::from_str(&text).with_context(|| path.display().to_string())?,
        ))
    }

    /// A configuration written out in a test.
    ///
    /// # Errors
    /// When it is no TOML.
    pub fn text(text: &str) -> Result<Self> {
        Ok(Self(toml::from_str(text)?))
    }

    /// Replaces or adds the keys of `changes` (TOML); tables are merged, anything else is replaced whole.
    ///
    /// # Errors
    /// When the changes are no TOML.
    pub fn with(mut self, changes: &str) -> Result<Self> {
        let changes: Table = toml::from_str(changes).with_context(|| changes.to_owned())?;
        merge(&mut self.0, changes);
        Ok(self)
    }

    /// Leaves a top-level key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<PathBuf> {
        let path = directory.join(format!("{name}.toml"));
        std::fs::write(&path, toml::to_string(&self.0)?)?;
        Ok(path)
    }
}

fn merge(into: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (into.get_mut(&key), change) {
            (Some(Value::Table(table)), Value::Table(change)) => merge(table, change),
            (_, change) => drop(into.insert(key, change)),
        }
    }
}
