//! How spans get to a collector: one HTTP request for each batch, with a deadline.
//!
//! The exporter's own clients want a runtime of their own making; this one uses the runtime it is
//! called on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An answer is a few bytes; more is not read.
const MOST_ANSWER_BYTES: usize = 64 * 1024;
/// Where distributions keep the authorities they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Sends batches.
pub(super) struct Client {
    limit: Duration,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes one for a URL; `authorities` is a PEM file that stands in for the system's own.
    /// `limit` is for a whole exchange.
    ///
    /// # Errors
    ///
    /// When the URL needs TLS and there is no authority to trust.
    pub(super) fn new(
        url: &Uri,
        authorities: Option<PathBuf>,
        limit: Duration,
    ) -> Result<Self, String> {
        let tls = match url.scheme_str() {
            Some("https") => Some(connector(authorities)?),
            _ => None,
        };
        Ok(Self { limit, tls })
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = request.uri().clone();
        let host = url.host().ok_or("the URL has no host")?;
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = url.port_u16().unwrap_or(default);
        let stream = TcpStream::connect((plain, port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => converse(stream, request).await,
            Some(tls) => {
                let name = ServerName::try_from(plain.to_owned())?;
                converse(tls.connect(name, stream).await?, request).await
            }
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match timeout(self.limit, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

async fn converse<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or with the peer; what is wrong with it the sender hears.
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse()?;
    let request = Request::from_parts(parts, Full::new(body));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MOST_ANSWER_BYTES).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

fn connector(authorities: Option<PathBuf>) -> Result<TlsConnector, String> {
    let file = authorities
        .or_else(|| AUTHORITIES.iter().map(PathBuf::from).find(|f| f.exists()))
        .ok_or("https needs a file of authorities: set OTEL_EXPORTER_OTLP_CERTIFICATE")?;
    let unusable = |why: &dyn std::fmt::Display| format!("cannot use {}: {why}", file.display());
    let mut roots = RootCertStore::empty();
    let text = std::fs::read(&file).map_err(|error| unusable(&error))?;
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if roots.is_empty() {
        return Err(unusable(&"there is no PEM certificate in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
