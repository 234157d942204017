//! Where `serve` listens, and who may come in.

use std::{io, net::SocketAddr, net::TcpListener, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq as _;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{cli::Serve as Args, kernel::files};

/// It is open, and nobody is let in yet.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) guard: Guard,
    address: SocketAddr,
}

/// Who may come in.
pub(super) struct Guard {
    /// Only who speaks TLS.
    pub(super) tls: Option<TlsAcceptor>,
    /// Only who has this token.
    token: Option<Vec<u8>>,
}

impl Door {
    /// Reads what the flags name, and listens.
    pub(super) fn open(args: &Args) -> anyhow::Result<Self> {
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(tls(certificate, key)?),
            _ => None,
        };
        let token = args.token_file.as_deref().map(token).transpose()?;
        let listen = args.listen;
        if !listen.ip().to_canonical().is_loopback() && tls.is_none() && token.is_none() {
            if !args.insecure {
                bail!(
                    "will not listen on {listen}\nwhy: who reaches that address could read what this host's ports do\nfix: --listen 127.0.0.1:{}; or --tls-cert with --tls-key, --token-file, or --insecure",
                    listen.port()
                );
            }
            log::warn!(
                "{listen} gives the metrics to whoever reaches it, without TLS or a token (--insecure)"
            );
        }
        let listener = TcpListener::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
        let address = listener.local_addr().context("cannot tell where it listens")?;
        Ok(Self { listener, guard: Guard { tls, token }, address })
    }

    /// Where the metrics are.
    pub(super) fn url(&self) -> String {
        let scheme = if self.guard.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/metrics", self.address)
    }
}

impl Guard {
    /// Whether a request has the token, if one is asked for. The answer takes as long however much of a token is right.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
        sent.is_some_and(|(scheme, sent)| {
            scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(sent.ct_eq(token))
        })
    }
}

fn cannot_listen(listen: SocketAddr, error: &io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "see who has it (ss -ltnp sport = :{}), or choose another port with --listen",
                listen.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => "name an address of this host (ip addr)".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take root or CAP_NET_BIND_SERVICE; choose another with --listen".to_owned()
        }
        _ => "choose another address or port with --listen".to_owned(),
    };
    anyhow::anyhow!("cannot listen on {listen}\nwhy: {error}\nfix: {fix}")
}

fn token(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = secret("token", path)?;
    let token = bytes.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        bail!(
            "cannot use the token in {}\nwhy: it is empty, or not one word of ASCII\nfix: openssl rand -hex 32 > {0}",
            path.display()
        );
    }
    Ok(token.to_vec())
}

fn tls(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let bad = |what: &str, path: &Path, why: &dyn std::fmt::Display| {
        anyhow::anyhow!(
            "cannot use the {what} in {}\nwhy: {why}\nfix: name a PEM file with a {what} (openssl req -x509 makes one)",
            path.display()
        )
    };
    let (pem, _) = read("certificate", certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| bad("certificate", certificate, &error))?;
    if chain.is_empty() {
        return Err(bad("certificate", certificate, &"there is none in it"));
    }
    let pem = secret("private key", key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| bad("private key", key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| bad("private key", key, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Reads a file that nobody else is to read.
fn secret(what: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let (bytes, of_all) = read(what, path)?;
    if of_all {
        bail!(
            "will not use the {what} in {}\nwhy: every user of this host may read it, so it is no secret\nfix: chmod o= {0}",
            path.display()
        );
    }
    Ok(bytes)
}

fn read(what: &str, path: &Path) -> anyhow::Result<(Vec<u8>, bool)> {
    files::read(path).map_err(|error| {
        anyhow::anyhow!(
            "cannot read the {what} in {}\nwhy: {error}\nfix: name a file that is there and that this user may read",
            path.display()
        )
    })
}
