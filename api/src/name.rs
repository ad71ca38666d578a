//! What names, label keys and label values may look like (upstream's `validation` package).

/// A DNS-1123 subdomain; the error is upstream's message.
pub fn dns_subdomain(name: &str) -> Result<(), String> {
    const MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    if name.len() > 253 {
        return Err("must be no more than 253 bytes".into());
    }
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(is_alphanumeric)
            && bytes.last().is_some_and(is_alphanumeric)
            && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
    };
    if name.split('.').all(is_label) { Ok(()) } else { Err(MESSAGE.into()) }
}
