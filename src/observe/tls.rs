//! TLS for the metrics listener: 1.2 and 1.3, one certificate, no client certificates.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as TlsError, ServerConfig};

use super::protection::{ProtectionError, ReadFile};

/// The `metrics.tls_cert` file, as messages name it.
const CERTIFICATE: &str = "the certificate";
/// The `metrics.tls_key` file, as messages name it.
const KEY: &str = "the private key";

/// Makes what shakes hands, of a PEM certificate chain and the PEM key of its first certificate.
///
/// # Errors
///
/// When a file cannot be read, holds nothing of its kind, or the two do not belong together.
pub(super) fn acceptor(
    certificate: &Path,
    key: &Path,
    read: ReadFile,
) -> Result<TlsAcceptor, ProtectionError> {
    let read =
        |what, file: &Path| read(file).map_err(|error| ProtectionError::read(what, file, error));
    let chain = read(CERTIFICATE, certificate)?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(CERTIFICATE, certificate, &error))?;
    if chain.is_empty() {
        let reason = "there is no PEM certificate in it";
        return Err(ProtectionError::wrong(CERTIFICATE, certificate, reason));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(KEY, key)?)
        .map_err(|error| not_pem(KEY, key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map_err(|error| {
            if matches!(error, TlsError::InconsistentKeys(_)) {
                let reason = format!("it is not the key of {}", certificate.display());
                ProtectionError::wrong(KEY, key, reason)
            } else if matches!(error, TlsError::InvalidCertificate(_)) {
                ProtectionError::wrong(CERTIFICATE, certificate, error)
            } else {
                ProtectionError::wrong(KEY, key, error)
            }
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn not_pem(what: &'static str, file: &Path, error: &PemError) -> ProtectionError {
    // Others may quote what they cannot read, so they are not told.
    let reason = if matches!(error, PemError::NoItemsFound) {
        "the file has none (it has to be PEM)"
    } else if matches!(error, PemError::MissingSectionEnd { .. }) {
        "it is cut off"
    } else {
        "it is not valid PEM"
    };
    ProtectionError::wrong(what, file, reason)
}
