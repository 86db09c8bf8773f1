//! Certificates as openssl makes them.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::process::Command;

/// Certificates in a folder of their own.
pub struct Keys(pub tempfile::TempDir);

impl Keys {
    pub fn new() -> Keys {
        Keys(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub fn openssl(&self, command: &str) {
        let done = Command::new("openssl").args(command.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// `NAME.crt` and `NAME.key`, signed by itself.
    pub fn own(&self, name: &str, kind: &str) {
        let kind = if kind == "rsa" { "rsa:2048" } else { "ec -pkeyopt ec_paramgen_curve:prime256v1" };
        self.openssl(&format!(
            "req -x509 -newkey {kind} -nodes -keyout {name}.key -out {name}.crt -subj /CN={name} -days 3"
        ));
    }

    /// `NAME.crt` and `NAME.key`, signed by `ca`: X.509 version 1, as plain `openssl x509 -req` makes them.
    pub fn signed(&self, name: &str, ca: &str) {
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -out {name}.crt -days 3"
        ));
    }

    /// The two directives.
    pub fn shown(&self, name: &str) -> String {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        format!("ssl_certificate {certificate}; ssl_certificate_key {key};")
    }

    /// The same as an authority that others may be signed by, itself signed by `ca`.
    pub fn authority(&self, name: &str, ca: &str) {
        std::fs::write(self.0.path().join("authority.ext"), "basicConstraints=critical,CA:true\n").unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -out {name}.crt -days 3 \
             -extfile authority.ext"
        ));
    }

    /// `list` says that `ca` takes back what it signed for `name`.
    pub fn revoked(&self, name: &str, ca: &str, list: &str) {
        let write = |name: &str, text: &str| std::fs::write(self.0.path().join(name), text).unwrap();
        write("index.txt", "");
        write(
            "ca.conf",
            "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\ndefault_crl_days = 3\n",
        );
        let authority = format!("ca -config ca.conf -keyfile {ca}.key -cert {ca}.crt");
        self.openssl(&format!("{authority} -revoke {name}.crt"));
        self.openssl(&format!("{authority} -gencrl -out {list}"));
    }

    /// `NAME.crt` with `authority` behind it, under `chain`.
    pub fn chained(&self, name: &str, authority: &str, chain: &str) {
        let read = |name: &str| std::fs::read_to_string(self.0.path().join(format!("{name}.crt"))).unwrap();
        std::fs::write(self.0.path().join(chain), read(name) + &read(authority)).unwrap();
    }

    /// `key` under a password, which stands in `passwords` behind another.
    pub fn sealed(&self, name: &str) {
        self.openssl(&format!("pkcs8 -topk8 -in {name}.key -out {name}.sealed -passout pass:second"));
        std::fs::write(self.0.path().join("passwords"), "first\nsecond\n").unwrap();
    }
}
