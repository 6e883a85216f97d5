//! A certificate as constrained nodes take it: DER, and a C header that can be compiled in.

use std::fmt::Write as _;

use crate::certificate::Certificate;
use crate::key::Key;
use crate::name::Identity;

/// The files of an identity for a program in C.
pub(crate) struct Embedded {
    /// Name, whether it is secret, and content.
    pub(crate) files: Vec<(&'static str, bool, Vec<u8>)>,
}

impl Embedded {
    /// The first trust anchor of `ca`, the certificate and, when it is here, its key (PKCS#8).
    pub(crate) fn new(
        identity: &Identity,
        ca: &Certificate,
        certificate: &Certificate,
        key: &Key,
    ) -> Self {
        let mut files = vec![
            ("ca.der", false, ca.der.to_vec()),
            ("cert.der", false, certificate.der.to_vec()),
        ];
        if let Key::Pair(pair) = key {
            files.push(("key.der", true, pair.serialized_der().to_vec()));
        }
        let header = header(identity, &files);
        files.push(("identity.h", true, header.into_bytes()));
        Self { files }
    }
}

fn header(identity: &Identity, files: &[(&'static str, bool, Vec<u8>)]) -> String {
    let mut text = format!(
        "/* The identity {identity} of nodebus, in DER. Secret where it holds a key. */\n\
         #ifndef NODEBUS_IDENTITY_H\n#define NODEBUS_IDENTITY_H\n"
    );
    for (name, _, content) in files {
        let stem = name.trim_end_matches(".der");
        text += &format!("\nstatic const unsigned char nodebus_{stem}_der[] = {{\n");
        for line in content.chunks(12) {
            text.push_str("   ");
            for byte in line {
                // Writing to a String can't fail.
                if write!(text, " 0x{byte:02x},").is_err() {
                    break;
                }
            }
            text.push('\n');
        }
        text += "};\n";
    }
    text += "\n#endif\n";
    text
}
