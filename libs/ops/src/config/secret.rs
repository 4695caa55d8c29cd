//! Secrets come from files, never from the configuration itself or a command line.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Origin;

/// The shortest secret that is accepted: 128 bits, if its bytes are random.
const SHORTEST: usize = 16;
/// The longest: nobody writes one of this length, a wrong file has it.
const LONGEST: usize = 4096;
/// What examples and tutorials use, in lower case. A secret that is one of these is none.
const SAMPLES: [&str; 9] = [
    "changeme",
    "change-me",
    "replace-me",
    "secret",
    "password",
    "example",
    "rallypoint",
    "your-secret",
    "0123456789abcdef",
];

/// The content of a secret file: without its last line end, wiped when dropped, not shown by `Debug`.
///
/// Refused are files that others on the machine can read or the group can write, secrets shorter than
/// 16 bytes, sample values, and secrets of one repeated character.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret from anywhere but a file, such as a random one for this process alone.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves; do not keep a copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn read(path: &str, origin: &Origin) -> Result<Self, String> {
        let path = resolve(path, origin)?;
        let metadata = std::fs::metadata(&path).map_err(|e| format!("cannot be read: {e}"))?;
        if !metadata.is_file() {
            return Err("is no regular file".to_owned());
        }
        check_mode(&metadata)?;
        if metadata.len() > LONGEST as u64 {
            return Err(format!(
                "is longer than {LONGEST} bytes, so it is hardly a secret"
            ));
        }
        let bytes = std::fs::read(&path).map_err(|e| format!("cannot be read: {e}"))?;
        let mut bytes = Zeroizing::new(bytes);
        while bytes
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            bytes.pop();
        }
        check_strength(&bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `${CREDENTIALS_DIRECTORY}/name` is where systemd puts what `LoadCredential=` names.
pub(super) fn resolve(path: &str, origin: &Origin) -> Result<PathBuf, String> {
    let Some(rest) = path.strip_prefix("${CREDENTIALS_DIRECTORY}/") else {
        return Ok(origin.folder.join(path));
    };
    match (origin.environment)("CREDENTIALS_DIRECTORY") {
        Some(folder) => Ok(PathBuf::from(folder).join(rest)),
        None => {
            Err("CREDENTIALS_DIRECTORY is not set; systemd sets it with LoadCredential=".into())
        }
    }
}

// The owner is not judged: in a user namespace (PrivateUsers=) root's files seem to be nobody's.
#[cfg(unix)]
fn check_mode(metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!(
            "mode {mode:04o} lets others at it; chmod 0600 or 0640"
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

fn check_strength(bytes: &[u8]) -> Result<(), String> {
    let lower = bytes.to_ascii_lowercase();
    let is_sample = |sample: &&str| {
        lower
            .chunks(sample.len())
            .all(|c| sample.as_bytes().starts_with(c))
    };
    if !bytes.is_empty() && SAMPLES.iter().any(is_sample) {
        return Err("is a sample value, not a secret; try: openssl rand -hex 32".to_owned());
    }
    if bytes.len() < SHORTEST {
        let length = bytes.len();
        return Err(format!(
            "has {length} bytes, at least {SHORTEST} are needed; try: openssl rand -hex 32"
        ));
    }
    if bytes.windows(2).all(|pair| pair.first() == pair.last()) {
        return Err("is one character repeated; try: openssl rand -hex 32".to_owned());
    }
    Ok(())
}
