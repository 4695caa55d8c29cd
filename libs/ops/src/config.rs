//! Configuration files: TOML in, a value that cannot be wrong out, or every fault at once.
//!
//! A configuration type implements [`FromRaw`] by asking a [`Section`] for its keys one by one. The
//! section collects what is wrong as it goes (bad values, missing keys and, at its end, keys nobody
//! asked for), so that a person corrects a file once and not fault by fault:
//!
//! ```text
//! turn.toml:3: listen[2]: `upd://0.0.0.0:3478`: unknown scheme `upd`, expected udp, tcp or tls
//! turn.toml:9: quota.alocations-per-user: unknown key; did you mean `allocations-per-user`?
//! ```
//!
//! ```
//! use ops::config::{self, FromRaw, Section};
//!
//! struct Limits { per_second: u32 }
//!
//! impl FromRaw for Limits {
//!     fn from_raw(section: &mut Section<'_>) -> Option<Self> {
//!         Some(Limits { per_second: section.ranged("per-second", 100, 1..=1_000_000) })
//!     }
//! }
//!
//! assert_eq!(config::parse::<Limits>("per-second = 5").unwrap().per_second, 5);
//! assert!(config::parse::<Limits>("per-secnd = 5").is_err());
//! ```

mod listen;
mod problems;
mod proxy;
mod secret;
mod section;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use listen::{ListenUrl, Scheme};
pub use problems::{Problem, Problems};
pub use proxy::ProxyListeners;
pub use secret::Secret;
pub use section::{FromRaw, Section};
pub use value::{AddrOrOff, FromValue, IpPrefix, PortRange, Size, Value, duration_from_text};

/// Exit code of a process whose configuration is at fault: `EX_CONFIG` of sysexits.h.
pub const EXIT_CODE: u8 = 78;

/// Reads and checks the file at `path`; relative paths in it start at its folder.
///
/// # Errors
/// Every fault of the file, or the one reason why it cannot be read.
pub fn load<T: FromRaw>(path: &Path) -> Result<T, Problems> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problems::one(&name, "", &format!("cannot be read: {error}")))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    read(
        &text,
        Origin {
            name,
            folder,
            environment,
        },
    )
}

/// Checks configuration text that is in no file; relative paths in it start at the current folder.
///
/// # Errors
/// Every fault of the text.
pub fn parse<T: FromRaw>(text: &str) -> Result<T, Problems> {
    read(
        text,
        Origin {
            name: "configuration".to_owned(),
            folder: PathBuf::new(),
            environment,
        },
    )
}

/// Where a text comes from and what surrounds it.
struct Origin {
    name: String,
    folder: PathBuf,
    environment: fn(&str) -> Option<OsString>,
}

fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn read<T: FromRaw>(text: &str, origin: Origin) -> Result<T, Problems> {
    section::read_document(text, origin)
}

#[cfg(test)]
mod tests;
