//! TLS to the signaling server and to relays: the public roots, and what the game trusts beside them.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, version};

use crate::error::ConfigError;
use crate::network::Stream;

/// RFC 7443: what a relay's TLS listener may be asked for.
const ALPN_TURN: &[u8] = b"stun.turn";

/// Opens TLS on a stream.
#[derive(Clone)]
pub(crate) struct Connector {
    web: TlsConnector,
    turn: TlsConnector,
}

impl Connector {
    /// Trusts the public roots and `extra` certificates (DER).
    pub(crate) fn new(extra: &[Vec<u8>]) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for (index, certificate) in extra.iter().enumerate() {
            roots
                .add(CertificateDer::from(certificate.as_slice()))
                .map_err(|error| ConfigError::Certificate {
                    index,
                    reason: error.to_string(),
                })?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| ConfigError::System {
                reason: error.to_string(),
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut turn = config.clone();
        turn.alpn_protocols = vec![ALPN_TURN.to_vec()];
        Ok(Self {
            web: TlsConnector::from(Arc::new(config)),
            turn: TlsConnector::from(Arc::new(turn)),
        })
    }

    /// To a signaling server.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, String> {
        handshake(&self.web, host, stream).await
    }

    /// To a relay.
    pub(crate) async fn connect_relay(
        &self,
        host: &str,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, String> {
        handshake(&self.turn, host, stream).await
    }
}

async fn handshake(
    connector: &TlsConnector,
    host: &str,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is no name a certificate can carry"))?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| format!("TLS with {host}: {error}"))?;
    Ok(Box::new(stream))
}
