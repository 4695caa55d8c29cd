//! The certificate of TLS listeners: read, checked, and made ready for rustls with ring; in
//! [`Serving`] the one in use, replaced while connections run.
//!
//! What is spoken under TLS is the caller's: protocol names (ALPN) are arguments.

mod certificates;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use certificates::{Certificates, Reload, Reloads, Serving, declare};

use crate::config::{FromRaw, ListenUrl, Section};

/// The files of a `[tls]` section: certificate chain and private key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl FromRaw for TlsFiles {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let (certificate, key) = (section.file("certificate"), section.file("key"));
        Some(Self {
            certificate: certificate?,
            key: key?,
        })
    }
}

/// Why a certificate cannot be served; names the key of the configuration and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{key} = `{}`: {source}", .path.display())]
    Unreadable {
        /// Key of the configuration.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("{key} = `{}`: {reason}", .path.display())]
    Content {
        /// Key of the configuration.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A listener without a certificate.
    #[error("tls: missing; {0} needs certificate and key")]
    Missing(ListenUrl),
    /// The system has no thread that could watch the files.
    #[error("watching the certificate: {0}")]
    Watch(io::Error),
}

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";

/// Reads both files, checks that they belong together, and offers the protocols named in `alpn`.
///
/// # Errors
/// Which file is at fault, and why.
pub fn load(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(&files.certificate)?;
    let key = read_key(&files.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| content(CERTIFICATE, &files.certificate, error.to_string()))?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| refuse_pair(files, &error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A stream is no place for requests that may be replayed: no early data, which is the default.
    debug_assert_eq!(config.max_early_data_size, 0);
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(CERTIFICATE, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(content(
            CERTIFICATE,
            path,
            "holds no certificate in PEM form".to_owned(),
        )),
        Ok(chain) => Ok(chain),
        Err(error) => Err(content(CERTIFICATE, path, error.to_string())),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(KEY, path)?;
    check_mode(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            return content(KEY, path, "holds no private key in PEM form".to_owned());
        }
        content(KEY, path, error.to_string())
    })
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        key,
        path: path.to_owned(),
        source,
    };
    fs::read(path).map_err(unreadable)
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt as _;

    let metadata = fs::metadata(path).map_err(|source| TlsError::Unreadable {
        key: KEY,
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let reason = format!("mode {mode:04o} lets everybody read the key; chmod 0600 or 0640");
    Err(content(KEY, path, reason))
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

fn refuse_pair(files: &TlsFiles, error: &rustls::Error) -> TlsError {
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        let reason = format!("is not the key of `{}`", files.certificate.display());
        return content(KEY, &files.key, reason);
    }
    content(CERTIFICATE, &files.certificate, error.to_string())
}

fn content(key: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::Content {
        key,
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPN: &[&[u8]] = &[b"some protocol"];

    fn pair(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
        };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        keep_secret(&files.key);
        files
    }

    #[cfg(unix)]
    fn keep_secret(key: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[cfg(not(unix))]
    fn keep_secret(_: &Path) {}

    #[test]
    fn faults_name_the_key_and_the_file() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let good = pair(folder.path(), "localhost");
        assert_eq!(
            load(&good, ALPN).unwrap().alpn_protocols,
            [b"some protocol"]
        );
        let fault = |certificate: &Path, key: &Path| {
            let files = TlsFiles {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            };
            load(&files, ALPN).unwrap_err().to_string()
        };
        let absent = folder.path().join("absent.pem");
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        keep_secret(&empty);
        let foreign = pair(other.path(), "localhost").key;
        let cases = [
            (
                fault(&absent, &good.key),
                "tls.certificate = `",
                "absent.pem",
            ),
            (
                fault(&good.key, &good.key),
                "tls.certificate",
                "no certificate in PEM form",
            ),
            (
                fault(&good.certificate, &empty),
                "tls.key",
                "no private key in PEM form",
            ),
            (
                fault(&good.certificate, &foreign),
                "tls.key",
                "is not the key of",
            ),
        ];
        for (said, key, reason) in cases {
            assert!(said.starts_with(key) && said.contains(reason), "{said}");
        }
    }

    #[test]
    fn a_changed_pair_is_served_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path(), "one.example");
        let registry = crate::metrics::Registry::new();
        let reloads = declare(&registry).unwrap();
        let certificates = Certificates::load(&files, ALPN).unwrap();
        let first = certificates.current();
        pair(folder.path(), "two.example");
        certificates.reload(&files, &reloads);
        let second = certificates.current();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(&files.key, "no key").unwrap();
        certificates.reload(&files, &reloads);
        assert!(Arc::ptr_eq(&second, &certificates.current()));
        let text = registry.render();
        for outcome in ["served", "refused"] {
            let sample =
                format!("rallypoint_tls_certificate_reloads_total{{outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&sample), "{text}");
        }
    }

    #[test]
    fn another_pair_is_served_and_another_broken_one_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = pair(folder.path(), "one.example");
        let registry = crate::metrics::Registry::new();
        let reloads = declare(&registry).unwrap();
        let mut serving = Serving::start(files.clone(), ALPN, reloads).unwrap();
        let first = serving.certificates().current();
        let others = pair(other.path(), "two.example");
        serving.take_over(&others).unwrap();
        let second = serving.certificates().current();
        assert!(!Arc::ptr_eq(&first, &second));
        let mixed = TlsFiles {
            certificate: files.certificate,
            key: others.key,
        };
        let refused = serving.take_over(&mixed).unwrap_err().to_string();
        assert!(refused.starts_with("tls.key"), "{refused}");
        assert!(Arc::ptr_eq(&second, &serving.certificates().current()));
        let text = registry.render();
        let counts = ["served\"} 1", "refused\"} 0"];
        assert!(counts.iter().all(|count| text.contains(count)), "{text}");
    }
}
