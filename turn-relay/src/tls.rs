//! The certificate of `tls` listeners: read, checked, and made ready for rustls with ring.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// The protocol names of RFC 7443: TURN, and STUN usages that a TURN server serves too.
const ALPN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

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
}

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";

/// Reads both files and checks that they belong together.
///
/// # Errors
/// Which file is at fault, and why.
pub(crate) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
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
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
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
