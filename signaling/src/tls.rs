//! The certificate of `https` listeners: read and checked at start, read again when it changes.

use crate::config::TlsFiles;
use arc_swap::ArcSwap;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at for a change.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{key} = `{}`: {reason}", .path.display())]
pub struct TlsError {
    /// Key of the configuration.
    key: &'static str,
    /// The file it names.
    path: PathBuf,
    /// What is wrong.
    reason: String,
}

impl TlsError {
    fn new(key: &'static str, path: &Path, reason: impl ToString) -> Self {
        Self {
            key,
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// The certificate in force; handshakes take whichever is newest.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads both files and checks that they belong together.
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(read(files)?);
        Ok(Arc::new(Self {
            files: files.clone(),
            current,
        }))
    }

    /// What `https` listeners shake hands with.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(CERTIFICATE, &self.files.certificate, error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Looks for changed files for ever. A bad pair is reported and the old one stays in force.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut seen = self.changed_at();
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let changed = self.changed_at();
            if changed == seen {
                continue;
            }
            seen = changed;
            match self.reload() {
                Ok(()) => tracing::info!("certificate read again"),
                Err(error) => tracing::warn!(%error, "the changed certificate is not used"),
            }
        }
    }

    fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        let at = |path: &Path| {
            std::fs::metadata(path)
                .and_then(|file| file.modified())
                .ok()
        };
        [at(&self.files.certificate), at(&self.files.key)]
    }
}

struct Resolver(Arc<Certificate>);

impl fmt::Debug for Resolver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load_full())
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let TlsFiles { certificate, key } = files;
    let wrong_chain = |reason: &dyn fmt::Display| TlsError::new(CERTIFICATE, certificate, reason);
    let pem = std::fs::read(certificate).map_err(|error| wrong_chain(&error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| wrong_chain(&error))?;
    if chain.is_empty() {
        return Err(wrong_chain(&"holds no certificate in PEM form"));
    }
    let wrong_key = |reason: &dyn fmt::Display| TlsError::new(KEY, key, reason);
    let pem = std::fs::read(key).map_err(|error| wrong_key(&error))?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong_key(&error))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            wrong_key(&format!("is not the key of `{}`", certificate.display()))
        } else {
            wrong_chain(&error)
        }
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn faults_name_the_key_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let good = pair(folder.path(), "localhost");
        Certificate::load(&good).unwrap();
        let fault = |files: &TlsFiles| Certificate::load(files).unwrap_err().to_string();

        let absent = TlsFiles {
            certificate: folder.path().join("absent.pem"),
            ..good.clone()
        };
        let text = fault(&absent);
        assert!(
            text.starts_with("tls.certificate = `") && text.contains("absent.pem"),
            "{text}"
        );
        let swapped = TlsFiles {
            certificate: good.key.clone(),
            key: good.certificate.clone(),
        };
        assert!(fault(&swapped).contains("no certificate in PEM form"));

        let other = tempfile::tempdir().unwrap();
        let foreign = TlsFiles {
            key: pair(other.path(), "localhost").key,
            ..good
        };
        let text = fault(&foreign);
        assert!(
            text.starts_with("tls.key") && text.contains("is not the key of"),
            "{text}"
        );
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path(), "one.example");
        let certificate = Certificate::load(&files).unwrap();
        let leaf = || certificate.current.load().cert[0].clone();
        let first = leaf();
        pair(folder.path(), "two.example");
        certificate.reload().unwrap();
        let second = leaf();
        assert_ne!(first, second);
        std::fs::write(&files.key, "no key").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(leaf(), second);
    }
}
