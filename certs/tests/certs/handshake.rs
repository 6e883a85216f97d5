//! The certificates in use: a mutual TLS handshake with rustls, in memory.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tempfile::TempDir;

fn quickstart() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certs::quickstart(dir.path(), &["192.168.1.20".to_owned()]).unwrap();
    dir
}

fn roots(folder: &Path) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(folder.join("ca.pem")).unwrap() {
        store.add(root.unwrap()).unwrap();
    }
    Arc::new(store)
}

fn chain(folder: &Path) -> Vec<CertificateDer<'static>> {
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem")).unwrap();
    chain.map(Result::unwrap).collect()
}

fn key(folder: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap()
}

/// Lets two connections talk until both are content; gives the certificate the server saw.
pub(crate) fn handshake(
    server: &Path,
    client: &Path,
    called: &str,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(server), provider.clone())
        .build()
        .unwrap();
    let server_config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(server), key(server))
        .unwrap();
    let client_config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(client))
        .with_client_auth_cert(chain(client), key(client))
        .unwrap();
    let name = ServerName::try_from(called.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(server.peer_certificates().unwrap()[0].clone())
}

#[test]
fn every_client_of_the_quickstart_is_known_to_the_bus() {
    let dir = quickstart();
    let bus = dir.path().join("broker/bus");
    for who in [
        "bridge/coap",
        "bridge/ws",
        "dashboard/dashboard",
        "operator/operator",
        "viewer/viewer",
    ] {
        let client = dir.path().join(who);
        for called in ["localhost", "127.0.0.1", "::1", "bus", "192.168.1.20"] {
            let seen = handshake(&bus, &client, called).unwrap();
            assert_eq!(seen, chain(&client)[0], "{who} at {called}");
        }
    }
}

#[test]
fn strangers_and_impostors_are_refused() {
    let dir = quickstart();
    let elsewhere = quickstart();
    let bus = dir.path().join("broker/bus");
    let viewer = dir.path().join("viewer/viewer");

    handshake(&bus, &viewer, "bus").unwrap();
    // A name that the bus doesn't have.
    handshake(&bus, &viewer, "other.example").unwrap_err();
    // Another authority's viewer, and another authority's bus.
    handshake(&bus, &elsewhere.path().join("viewer/viewer"), "bus").unwrap_err();
    handshake(&elsewhere.path().join("broker/bus"), &viewer, "bus").unwrap_err();
    // A client's certificate can't serve, a server's can't log in.
    handshake(&viewer, &viewer, "localhost").unwrap_err();
    handshake(&bus, &bus, "bus").unwrap_err();
}
