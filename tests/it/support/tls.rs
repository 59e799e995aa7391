//! An authority of one's own and certificates by it, made by `openssl` as an administrator would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// An authority that no machine knows; its files are gone when dropped.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: TempDir,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Each has another name: of two with the same one, a client blames the signature and not the issuer.
        let name = dir.path().file_name().unwrap().display();
        openssl(
            dir.path(),
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority-{name} \
                 -keyout ca.key -out ca.crt"
            ),
        );
        Self { dir }
    }

    /// Its own certificate: what whoever trusts it has in `SSL_CERT_FILE`.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A certificate for these names (`DNS:…`, `IP:…`) and its key.
    pub(crate) fn certify(&self, names: &str) -> Certified {
        let stem = names.replace([':', ','], "-");
        std::fs::write(self.dir.path().join(format!("{stem}.ext")), format!("subjectAltName={names}\n"))
            .unwrap();
        openssl(
            self.dir.path(),
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server \
                 -keyout {stem}.crt.key -out {stem}.csr"
            ),
        );
        openssl(
            self.dir.path(),
            &format!(
                "x509 -req -in {stem}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {stem}.ext \
                 -out {stem}.crt"
            ),
        );
        let file = |kind: &str| self.dir.path().join(format!("{stem}.{kind}"));
        Certified { certificate: file("crt"), key: file("crt.key") }
    }

    /// A certificate for this machine.
    pub(crate) fn certify_loopback(&self) -> Certified {
        self.certify("DNS:localhost,IP:127.0.0.1")
    }
}

/// The files of a certificate.
#[derive(Debug)]
pub(crate) struct Certified {
    /// The certificate itself.
    pub(crate) certificate: PathBuf,
    /// Its private key, where HAProxy looks for it.
    pub(crate) key: PathBuf,
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    let output = command.output().expect("openssl; run `make test-deps`");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
