//! The command line against a hub that speaks TLS: with the right authority, and with none.

use std::ffi::OsString;

use forge_tests::binary::{forgepool, root};
use forge_tests::process::Process;

use crate::command::text;

#[tokio::test]
async fn the_command_line_trusts_the_authority_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = rcgen::Issuer::new(params, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), params.signed_by(&own, &authority).unwrap().pem()).unwrap();
    std::fs::write(path("key.pem"), own.serialize_pem()).unwrap();

    let args = ["hub", "--parent-pipe", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"].map(OsString::from);
    let mut args: Vec<OsString> = args.into();
    for (name, value) in [("--data", "data"), ("--tls-cert", "cert.pem"), ("--tls-key", "key.pem")] {
        args.extend([name.into(), path(value).into()]);
    }
    let mut hub = Process::start("hub", &args, &[], dir.path());
    let ready = hub.ready().await;
    let url = format!("https://{}", ready["http"].as_str().unwrap());
    let api_key = ready["api_key"].as_str().unwrap().to_owned();
    let forge = async |ca: Option<&str>, url: &str| {
        let mut command = tokio::process::Command::new(forgepool());
        command.args(["jobs", "--url", url, "--key", &api_key]).current_dir(root());
        if let Some(ca) = ca {
            command.args(["--ca", &path(ca)]);
        }
        let output = forge_tests::within("end of the command", command.output()).await.unwrap();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = forge(Some("ca.pem"), &url).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = forge(None, &url).await;
    assert_eq!(code, 5, "an authority nobody named: {said}");
    let (code, said) = forge(Some("cert.pem"), &url.replace("https", "http")).await;
    assert_eq!(code, 3, "plain HTTP is told what to do: {said}");
    assert!(said.contains("https://"), "{said}");
    let (code, said) = forge(Some("key.pem"), &url).await;
    assert!(code == 1 && said.contains("key.pem"), "{said}");
    hub.close_stdin();
    assert!(hub.wait().await.success());
}
