//! Whether a certificate and a key belong together, as Go's `tls.X509KeyPair` says it.

use x509_parser::{
    oid_registry::asn1_rs::FromDer, pem::Pem, prelude::X509Certificate, public_key::PublicKey,
};

/// The largest public half that is looked for, in bytes (16 Kibit; RSA in use ends at half of that, and Go's TLS
/// stops there). Searching takes time in proportion to it for every byte of the key, and both come from clients.
const MOST_PUBLIC: usize = 16 * 1024 / 8;

/// Why a TLS server could not use the pair; nothing when it could, as far as can be told from the outside.
pub fn key_pair(certificate: &[u8], key: &[u8]) -> Option<String> {
    let fault = certificate_in(certificate).and_then(|certificate| {
        let key = key_in(key)?;
        fits(&certificate, &key)
    });
    fault.err().map(|why| format!("tls: {why}"))
}

fn blocks(text: &[u8]) -> Vec<Pem> {
    Pem::iter_from_buffer(text).filter_map(Result::ok).collect()
}

fn certificate_in(text: &[u8]) -> Result<Vec<u8>, String> {
    let blocks = blocks(text);
    if let Some(found) = blocks.iter().find(|block| block.label == "CERTIFICATE") {
        return Ok(found.contents.clone());
    }
    Err(match blocks.as_slice() {
        [] => "failed to find any PEM data in certificate input".into(),
        [one] if one.label.ends_with("PRIVATE KEY") => "failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".into(),
        _ => format!(
            "failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            labels(&blocks)
        ),
    })
}

fn key_in(text: &[u8]) -> Result<Pem, String> {
    let mut blocks = blocks(text);
    let is_key = |block: &Pem| block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY");
    if let Some(index) = blocks.iter().position(is_key) {
        return Ok(blocks.swap_remove(index));
    }
    Err(match blocks.as_slice() {
        [] => "failed to find any PEM data in key input".into(),
        [one] if one.label == "CERTIFICATE" => {
            "found a certificate rather than a key in the PEM for the private key".into()
        }
        _ => format!(
            "failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            labels(&blocks)
        ),
    })
}

fn labels(blocks: &[Pem]) -> String {
    blocks.iter().map(|block| block.label.as_str()).collect::<Vec<_>>().join(" ")
}

/// A key that is written with its public half has that of the certificate in it.
fn fits(certificate: &[u8], key: &Pem) -> Result<(), String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Err("failed to parse certificate".into());
    };
    let info = certificate.public_key();
    let (half, is_elliptic) = match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => (rsa.modulus.to_vec(), false),
        Ok(PublicKey::EC(point)) => (point.data().to_vec(), true),
        // Of other keys the file has the private half alone.
        _ => return Ok(()),
    };
    // SEC 1 lets the public half be left out.
    let may_lack = is_elliptic && key.contents.len() < half.len() * 2;
    if may_lack || may_contain(&key.contents, &half) {
        return Ok(());
    }
    Err("private key does not match public key".into())
}

fn may_contain(key: &[u8], half: &[u8]) -> bool {
    half.len() > MOST_PUBLIC || key.windows(half.len().max(1)).any(|window| window == half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_half_of_no_sensible_size_is_not_looked_for() {
        let key = [0; 4 * MOST_PUBLIC];
        assert!(may_contain(&key, &[0; MOST_PUBLIC]));
        assert!(!may_contain(&key, &[1; MOST_PUBLIC]));
        assert!(may_contain(&key, &[1; MOST_PUBLIC + 1]));
    }

    #[test]
    fn a_pair_that_no_server_could_use_is_named() {
        let [(certificate, key), (_, other)] = ["a", "b"].map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_string()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        });
        let said = |certificate: &str, key: &str| key_pair(certificate.as_bytes(), key.as_bytes());
        assert_eq!(said(&certificate, &key), None);
        assert_eq!(said(&certificate, &other).unwrap(), "tls: private key does not match public key");
        assert_eq!(said("", "").unwrap(), "tls: failed to find any PEM data in certificate input");
        assert_eq!(said(&certificate, "x").unwrap(), "tls: failed to find any PEM data in key input");
        assert_eq!(
            said(&key, &certificate).unwrap(),
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
        );
        assert_eq!(
            said(&certificate, &certificate).unwrap(),
            "tls: found a certificate rather than a key in the PEM for the private key"
        );
    }
}
