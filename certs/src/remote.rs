//! The certificates that a server shows, whoever signed them.
//!
//! It looks and does not trust: nothing is sent to the server but the handshake, which is broken
//! off.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::certificate::Certificate;
use crate::error::Error;

/// How long a server may take to accept and for each of its answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Host and port of a text like `localhost:8883` or `[::1]:8883`; `None` for anything else.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let is_host = !bare.is_empty() && !bare.contains(['/', '\\', ' ']);
    let is_ambiguous = bare.contains(':') && bare == host;
    (is_host && !is_ambiguous).then_some((bare, port.parse().ok()?))
}

/// Asks a TLS server for its certificates, its own first.
///
/// # Errors
/// It can't be reached, or speaks no TLS.
pub fn certificates_of(host: &str, port: u16) -> Result<Vec<Certificate>, Error> {
    let unreachable = |source| Error::Unreachable {
        server: format!("{host}:{port}"),
        source,
    };
    let mut stream = connect(host, port).map_err(unreachable)?;
    let seen = Arc::new(Seen::default());
    let mut connection = opening(host, seen.clone()).map_err(unreachable)?;
    // It ends in an error: the verifier breaks off once it has seen enough.
    let ended = connection.complete_io(&mut stream);
    let chain = seen.chain.lock().map(|chain| chain.clone());
    let chain = chain.unwrap_or_default();
    let certificates: Option<Vec<Certificate>> =
        chain.into_iter().map(Certificate::from_der).collect();
    match (certificates, ended) {
        (Some(certificates), _) if !certificates.is_empty() => Ok(certificates),
        (_, Err(source)) => Err(unreachable(source)),
        (_, Ok(_)) => Err(unreachable(std::io::ErrorKind::InvalidData.into())),
    }
}

fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::ErrorKind::NotFound.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn opening(host: &str, seen: Arc<Seen>) -> std::io::Result<ClientConnection> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(seen)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)
}

/// Keeps what a server shows, and trusts nobody.
#[derive(Debug, Default)]
struct Seen {
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut chain) = self.chain.lock() {
            *chain = std::iter::once(end_entity)
                .chain(intermediates)
                .map(|one| one.clone().into_owned())
                .collect();
        }
        Err(rustls::Error::General("seen enough".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen enough".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen enough".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_host_and_a_port() {
        assert_eq!(
            host_and_port("bus.example:8883"),
            Some(("bus.example", 8883))
        );
        assert_eq!(host_and_port("[::1]:8883"), Some(("::1", 8883)));
        for bad in [
            "bus",
            "bus:",
            ":1",
            "bus:mqtts",
            "::1",
            "a/b:1",
            "bus:65536",
        ] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
