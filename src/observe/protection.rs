//! What protects the metrics listener: TLS and passwords, as in the Prometheus exporter toolkit.
//!
//! Both come from files that are read at start and at every reload. A set is read as a whole
//! before any of it is in force, so a wrong file never leaves half a protection behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::auth::Accounts;
use super::tls;

/// The files that a protection is made of. None of them: no protection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectionFiles {
    /// The certificate chain and its private key (PEM).
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `user: bcrypt-hash` lines.
    pub accounts: Option<PathBuf>,
}

/// Reads a whole file, without waiting for anybody.
pub type ReadFile = fn(&Path) -> io::Result<Vec<u8>>;

/// What a connection has to get past.
#[derive(Clone, Default)]
pub struct Protection {
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) accounts: Option<Arc<Accounts>>,
}

impl Protection {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When one cannot be read or is not what it has to be: names the file and the reason, never
    /// anything of a key or a password.
    pub fn load(files: &ProtectionFiles, read: ReadFile) -> Result<Self, ProtectionError> {
        let tls = match &files.certificate {
            Some((certificate, key)) => Some(tls::acceptor(certificate, key, read)?),
            None => None,
        };
        let accounts = match &files.accounts {
            Some(file) => Some(Arc::new(Accounts::load(file, read)?)),
            None => None,
        };
        Ok(Self { tls, accounts })
    }
}

impl std::fmt::Debug for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protection")
            .field("tls", &self.tls.is_some())
            .field("accounts", &self.accounts.is_some())
            .finish()
    }
}

/// Why a file cannot protect the metrics listener.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    /// It cannot be read.
    #[error("cannot read {what} {}", file.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it has to be.
    #[error("cannot use {what} {}: {reason}", file.display())]
    Wrong {
        /// What it is for.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ProtectionError {
    pub(super) fn wrong(what: &'static str, file: &Path, reason: impl ToString) -> Self {
        Self::Wrong {
            what,
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn read(what: &'static str, file: &Path, source: io::Error) -> Self {
        Self::Read {
            what,
            file: file.to_owned(),
            source,
        }
    }
}
