//! A certificate authority for one test.

use foobar_user::plan::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A folder with a CA and certificates of servers.
pub(crate) struct Pki {
    folder: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new(servers: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "the test's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a CA");
        let issuer = Issuer::new(params, ca_key);
        let write = |name: String, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        write("ca.pem".into(), ca.pem());
        for server in servers {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![(*server).to_owned()]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, *server);
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            write(format!("{server}.pem"), certificate.pem());
            write(format!("{server}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    pub(crate) fn files(&self, server: &str) -> TlsFiles {
        let path = |name: String| self.folder.path().join(name);
        TlsFiles {
            ca: path("ca.pem".into()),
            certificate: path(format!("{server}.pem")),
            key: path(format!("{server}.key")),
        }
    }
}
