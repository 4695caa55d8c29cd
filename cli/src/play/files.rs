//! The file that goes out and the file that comes in, each hashed on the way.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A file being sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    reader: BufReader<File>,
    /// The length at the start; what is appended later is not sent.
    length: u64,
    sent: u64,
    hash: Sha256,
}

/// A file being received: under a temporary name beside its place until it is proven.
#[derive(Debug)]
pub(crate) struct Incoming {
    place: PathBuf,
    temporary: PathBuf,
    writer: Option<BufWriter<File>>,
    received: u64,
    hash: Sha256,
}

/// A file that went over, for the last line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Why a file that was received is not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Spoilt {
    #[error("{received} bytes came of {announced}")]
    Length { received: u64, announced: u64 },
    #[error("its SHA-256 is {received}, announced was {announced}")]
    Hash { received: String, announced: String },
    #[error("it cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Outgoing {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self {
            length: metadata.len(),
            reader: BufReader::new(file),
            sent: 0,
            hash: Sha256::new(),
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The next piece of at most `size` bytes; none at the end.
    pub(crate) fn piece(&mut self, size: usize) -> io::Result<Option<Vec<u8>>> {
        let left = usize::try_from(self.length - self.sent).unwrap_or(usize::MAX);
        let mut piece = vec![0; size.min(left)];
        if piece.is_empty() {
            return Ok(None);
        }
        // A file that was cut short in the meantime ends here with an error, not with another hash.
        self.reader.read_exact(&mut piece)?;
        self.hash.update(&piece);
        self.sent += u64::try_from(piece.len()).unwrap_or(0);
        Ok(Some(piece))
    }

    /// Length and hash of what was sent.
    pub(crate) fn carried(&self) -> Carried {
        Carried {
            bytes: self.sent,
            sha256: hex(&self.hash),
        }
    }
}

impl Incoming {
    pub(crate) fn create(place: &Path) -> io::Result<Self> {
        let mut name = place
            .file_name()
            .ok_or(io::ErrorKind::IsADirectory)?
            .to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let temporary = place.with_file_name(name);
        let file = File::create(&temporary)?;
        Ok(Self {
            place: place.to_owned(),
            temporary,
            writer: Some(BufWriter::new(file)),
            received: 0,
            hash: Sha256::new(),
        })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hash.update(piece);
        self.received += u64::try_from(piece.len()).unwrap_or(0);
        match &mut self.writer {
            Some(writer) => writer.write_all(piece),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Puts the file in its place if it is what was announced.
    pub(crate) fn finish(&mut self, announced: &Carried) -> Result<(), Spoilt> {
        if self.received != announced.bytes {
            return Err(Spoilt::Length {
                received: self.received,
                announced: announced.bytes,
            });
        }
        let received = hex(&self.hash);
        if received != announced.sha256 {
            return Err(Spoilt::Hash {
                received,
                announced: announced.sha256.clone(),
            });
        }
        let finished_before = || io::Error::from(io::ErrorKind::AlreadyExists);
        let writer = self.writer.take().ok_or_else(finished_before)?;
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.temporary, &self.place)?;
        Ok(())
    }
}

impl Drop for Incoming {
    /// What was not proven is not left lying about.
    fn drop(&mut self) {
        if self.writer.take().is_some() || self.temporary.exists() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn hex(hash: &Sha256) -> String {
    hash.clone()
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("in");
        fs::write(&path, bytes).expect("written");
        (folder, path)
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("listed")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn file_goes_over_in_pieces_and_appears_whole() {
        let bytes: Vec<u8> = (0..100_000u32)
            .map(|i| (i % 251).to_le_bytes()[0])
            .collect();
        let (folder, path) = folder_with(&bytes);
        let mut outgoing = Outgoing::open(&path).expect("opened");
        let mut incoming = Incoming::create(&folder.path().join("out")).expect("created");
        while let Some(piece) = outgoing.piece(16 * 1024).expect("read") {
            assert!(
                !folder.path().join("out").exists(),
                "not there before it is whole"
            );
            incoming.write(&piece).expect("written");
        }
        incoming.finish(&outgoing.carried()).expect("whole");
        drop(incoming);
        assert_eq!(fs::read(folder.path().join("out")).expect("there"), bytes);
        assert_eq!(names(&folder), ["in", "out"]);
    }

    #[test]
    fn hash_is_sha_256() {
        let (_folder, path) = folder_with(b"abc");
        let mut outgoing = Outgoing::open(&path).expect("opened");
        assert_eq!(outgoing.piece(10).expect("read"), Some(b"abc".to_vec()));
        // FIPS 180-4, example of one block.
        assert_eq!(
            outgoing.carried().sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn spoilt_file_leaves_the_old_one_and_no_rest() {
        let (folder, place) = folder_with(b"old");
        for announced in [
            Carried {
                bytes: 4,
                sha256: String::new(),
            },
            Carried {
                bytes: 3,
                sha256: "00".to_owned(),
            },
        ] {
            let mut incoming = Incoming::create(&place).expect("created");
            incoming.write(b"new").expect("written");
            assert!(incoming.finish(&announced).is_err());
            drop(incoming);
            assert_eq!(fs::read(&place).expect("there"), b"old");
            assert_eq!(names(&folder), ["in"]);
        }
    }
}
