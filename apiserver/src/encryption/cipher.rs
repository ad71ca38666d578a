//! The ciphers, with upstream's forms of what is stored: `k8s:enc:aesgcm:v1:KEY:` and then nonce and ciphertext.

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm, KeyInit,
    aead::{Aead, Payload, consts::U12},
    aes::{Aes128, Aes192, Aes256},
};
use bytes::Bytes;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7};
use crypto_secretbox::XSalsa20Poly1305;
use ring::rand::{SecureRandom, SystemRandom};

type Aes192Gcm = AesGcm<Aes192, U12>;

/// What every ciphertext begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";
const GCM_NONCE: usize = 12;
const CBC_BLOCK: usize = 16;
const BOX_NONCE: usize = 24;

/// One key, and what is done with it.
pub(super) struct Cipher {
    prefix: Vec<u8>,
    algorithm: Algorithm,
}

enum Algorithm {
    Identity,
    Gcm128(Box<Aes128Gcm>),
    Gcm192(Box<Aes192Gcm>),
    Gcm256(Box<Aes256Gcm>),
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// Why a value could not be encrypted or decrypted. Says nothing about the value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CipherError {
    /// No key writes such values.
    #[error("no matching prefix found")]
    NoMatchingPrefix,
    /// It is a ciphertext, but none of the keys is configured.
    #[error("identity transformer tried to read encrypted data")]
    Encrypted,
    /// The wrong key, another object's value, or a value that was changed.
    #[error("the stored data cannot be authenticated or is malformed")]
    Malformed,
    /// The system has no randomness.
    #[error("failed to make a nonce")]
    Nonce,
}

impl Cipher {
    pub(super) fn identity() -> Cipher {
        Cipher { prefix: Vec::new(), algorithm: Algorithm::Identity }
    }

    /// AES-GCM with a key of 16, 24 or 32 bytes.
    pub(super) fn aes_gcm(name: &str, key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => Algorithm::Gcm128(Box::new(Aes128Gcm::new_from_slice(key).ok()?)),
            24 => Algorithm::Gcm192(Box::new(Aes192Gcm::new_from_slice(key).ok()?)),
            32 => Algorithm::Gcm256(Box::new(Aes256Gcm::new_from_slice(key).ok()?)),
            _ => return None,
        };
        Some(Cipher { prefix: prefix("aesgcm", name), algorithm })
    }

    /// AES-CBC with a key of 16, 24 or 32 bytes. Nothing tells whether a value was changed.
    pub(super) fn aes_cbc(name: &str, key: &[u8]) -> Option<Cipher> {
        let is_key = matches!(key.len(), 16 | 24 | 32);
        is_key.then(|| Cipher { prefix: prefix("aescbc", name), algorithm: Algorithm::Cbc(key.to_vec()) })
    }

    /// XSalsa20 and Poly1305 with a key of 32 bytes.
    pub(super) fn secretbox(name: &str, key: &[u8]) -> Option<Cipher> {
        let algorithm = Algorithm::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?));
        Some(Cipher { prefix: prefix("secretbox", name), algorithm })
    }

    /// Whether this key wrote the value.
    pub(super) fn wrote(&self, stored: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Identity => !stored.starts_with(ENCRYPTED),
            _ => stored.starts_with(&self.prefix),
        }
    }

    /// The value as it is stored under `path`.
    pub(super) fn seal(&self, path: &str, value: &Bytes) -> Result<Bytes, CipherError> {
        let aad = path.as_bytes();
        let (nonce, sealed) = match &self.algorithm {
            Algorithm::Identity => return Ok(value.clone()),
            Algorithm::Gcm128(cipher) => seal(&**cipher, random::<GCM_NONCE>()?, value, aad)?,
            Algorithm::Gcm192(cipher) => seal(&**cipher, random::<GCM_NONCE>()?, value, aad)?,
            Algorithm::Gcm256(cipher) => seal(&**cipher, random::<GCM_NONCE>()?, value, aad)?,
            Algorithm::Cbc(key) => {
                let iv = random::<CBC_BLOCK>()?;
                (iv.to_vec(), encrypt_cbc(key, &iv, value).ok_or(CipherError::Malformed)?)
            }
            Algorithm::Secretbox(cipher) => seal(&**cipher, random::<BOX_NONCE>()?, value, b"")?,
        };
        Ok([self.prefix.as_slice(), &nonce, &sealed].concat().into())
    }

    /// The value that is stored under `path`; the prefix has been looked at.
    pub(super) fn open(&self, path: &str, stored: &Bytes) -> Result<Bytes, CipherError> {
        let sealed = stored.get(self.prefix.len()..).ok_or(CipherError::Malformed)?;
        let aad = path.as_bytes();
        match &self.algorithm {
            Algorithm::Identity => Ok(stored.clone()),
            Algorithm::Gcm128(cipher) => open::<_, GCM_NONCE>(&**cipher, sealed, aad),
            Algorithm::Gcm192(cipher) => open::<_, GCM_NONCE>(&**cipher, sealed, aad),
            Algorithm::Gcm256(cipher) => open::<_, GCM_NONCE>(&**cipher, sealed, aad),
            Algorithm::Cbc(key) => {
                let (iv, sealed) = sealed.split_at_checked(CBC_BLOCK).ok_or(CipherError::Malformed)?;
                decrypt_cbc(key, iv, sealed).map(Bytes::from).ok_or(CipherError::Malformed)
            }
            Algorithm::Secretbox(cipher) => open::<_, BOX_NONCE>(&**cipher, sealed, b""),
        }
    }
}

fn prefix(algorithm: &str, name: &str) -> Vec<u8> {
    format!("k8s:enc:{algorithm}:v1:{name}:").into_bytes()
}

fn random<const N: usize>() -> Result<[u8; N], CipherError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CipherError::Nonce)?;
    Ok(bytes)
}

fn seal<C: Aead, const N: usize>(
    cipher: &C,
    nonce: [u8; N],
    value: &[u8],
    aad: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), CipherError> {
    let payload = Payload { msg: value, aad };
    let sealed = cipher.encrypt(nonce.as_slice().into(), payload).map_err(|_| CipherError::Malformed)?;
    Ok((nonce.to_vec(), sealed))
}

fn open<C: Aead, const N: usize>(cipher: &C, sealed: &[u8], aad: &[u8]) -> Result<Bytes, CipherError> {
    let (nonce, sealed) = sealed.split_at_checked(N).ok_or(CipherError::Malformed)?;
    let opened = cipher.decrypt(nonce.into(), Payload { msg: sealed, aad });
    opened.map(Bytes::from).map_err(|_| CipherError::Malformed)
}

fn encrypt_cbc(key: &[u8], iv: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    Some(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
    })
}

fn decrypt_cbc(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => {
            cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed)
        }
        24 => {
            cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed)
        }
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
    }
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/registry/secrets/a/b";

    fn ciphers() -> Vec<Cipher> {
        let key = |length: usize| vec![7; length];
        vec![
            Cipher::aes_gcm("k", &key(16)).unwrap(),
            Cipher::aes_gcm("k", &key(24)).unwrap(),
            Cipher::aes_gcm("k", &key(32)).unwrap(),
            Cipher::aes_cbc("k", &key(16)).unwrap(),
            Cipher::aes_cbc("k", &key(24)).unwrap(),
            Cipher::aes_cbc("k", &key(32)).unwrap(),
            Cipher::secretbox("k", &key(32)).unwrap(),
        ]
    }

    #[test]
    fn every_cipher_gives_back_what_it_was_given_and_never_twice_the_same() {
        let value = Bytes::from_static(b"a value that is longer than a block");
        for cipher in ciphers() {
            let (one, other) = (cipher.seal(PATH, &value).unwrap(), cipher.seal(PATH, &value).unwrap());
            assert_ne!(one, other);
            assert!(cipher.wrote(&one));
            assert_eq!(cipher.open(PATH, &one), Ok(value.clone()));
        }
    }

    #[test]
    fn what_was_changed_or_cut_is_refused() {
        let value = Bytes::from_static(b"hidden");
        for cipher in ciphers() {
            let sealed = cipher.seal(PATH, &value).unwrap();
            let cut = sealed.slice(..cipher.prefix.len() + 3);
            assert_eq!(cipher.open(PATH, &cut), Err(CipherError::Malformed));
            let mut changed = sealed.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert_ne!(cipher.open(PATH, &changed.into()), Ok(value.clone()));
        }
    }

    #[test]
    fn keys_have_the_lengths_that_the_ciphers_take() {
        assert!(Cipher::aes_gcm("k", &[0; 15]).is_none());
        assert!(Cipher::aes_cbc("k", &[0; 33]).is_none());
        assert!(Cipher::secretbox("k", &[0; 16]).is_none());
    }
}
