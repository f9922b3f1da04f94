//! The HTTP API over TLS: both versions of HTTP, only for who trusts the right authority, with a certificate that can be
//! exchanged while it is in use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Client;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use support::Hub;

/// An authority, which signs for localhost.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), der: certificate.der().clone() }
    }

    /// Writes a new certificate and its key.
    fn certify(&self, folder: &Path, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    }

    /// A client that trusts this authority alone and offers these protocols.
    fn client(&self, protocols: &[&str]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        reqwest::Client::builder().tls_backend_preconfigured(config).tls_info(true).build().unwrap()
    }
}

fn start(data: &Path, files: &Path) -> Hub {
    let file = |name: &str| files.join(name).to_str().unwrap().to_owned();
    Hub::start(data, &["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")])
}

fn url(hub: &Hub, path: &str) -> String {
    hub.url(path).replace("http://", "https://")
}

/// The certificate a new connection is shown.
async fn shown(authority: &Authority, hub: &Hub) -> Vec<u8> {
    let response = authority.client(&["http/1.1"]).get(url(hub, "/healthz")).send().await.unwrap();
    response.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}

#[tokio::test]
async fn both_versions_are_spoken_and_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.certify(folder.path(), 2120);
    let hub = start(&folder.path().join("data"), folder.path());
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], reqwest::Version::HTTP_2),
        (&["http/1.1"], reqwest::Version::HTTP_11),
        (&[], reqwest::Version::HTTP_11),
    ] {
        let client = authority.client(protocols);
        let response = client.get(url(&hub, "/api/v0/jobs")).bearer_auth(&hub.key).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }
    // A body over h2, and where it came from.
    let client = authority.client(&["h2"]);
    let made = client.post(url(&hub, "/api/v0/agents/tokens")).bearer_auth(&hub.key).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let log = client.get(url(&hub, "/api/v0/audit?limit=1")).bearer_auth(&hub.key).send().await.unwrap();
    assert_eq!(log.json::<serde_json::Value>().await.unwrap()["items"][0]["peer"], "127.0.0.1");
    // Another authority's client.
    let stranger = Authority::new().client(&["h2"]).get(url(&hub, "/healthz")).send().await;
    assert!(stranger.unwrap_err().is_connect());
    // Plain HTTP is told what is wrong.
    let mut plain = TcpStream::connect(hub.ready["http"].as_str().unwrap()).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{said}");
    let body: serde_json::Value = serde_json::from_str(said.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["code"], &body["status"]), (&"request.schema".into(), &400.into()));
    // Whoever says nothing holds nobody up.
    let _silent = TcpStream::connect(hub.ready["http"].as_str().unwrap()).unwrap();
    assert_eq!(client.get(url(&hub, "/readyz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_open_connections_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.certify(folder.path(), 2120);
    let hub = start(&folder.path().join("data"), folder.path());
    let before = shown(&authority, &hub).await;
    let open = authority.client(&["h2"]);
    let ask = || async {
        let response = open.get(url(&hub, "/healthz")).send().await.unwrap();
        let seen = response.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
        assert_eq!(response.status(), 200);
        seen
    };
    assert_eq!(ask().await, before);
    authority.certify(folder.path(), 2121);
    hub.hang_up();
    let mut after = shown(&authority, &hub).await;
    while after == before {
        after = shown(&authority, &hub).await;
    }
    assert_eq!(ask().await, before, "the connection that was open stays");
    // A pair that does not fit changes nothing.
    std::fs::write(folder.path().join("cert.pem"), "nothing").unwrap();
    hub.hang_up();
    for _ in 0..20 {
        assert_eq!(shown(&authority, &hub).await, after);
    }
}

#[test]
fn what_cannot_be_served_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let fails = || {
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_forge-hub"))
            .args(["--http", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--data", &file("data")])
            .args(["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")])
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = fails();
    assert!(said.contains("cert.pem: No such file"), "{said}");
    authority.certify(folder.path(), 2120);
    let certificate = std::fs::read(folder.path().join("cert.pem")).unwrap();
    authority.certify(folder.path(), 2120);
    std::fs::write(folder.path().join("cert.pem"), certificate).unwrap();
    let said = fails();
    assert!(said.contains("is not that of the first certificate"), "{said}");
}
