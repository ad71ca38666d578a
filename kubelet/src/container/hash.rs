//! Tells whether a container was made from the spec that the pod has now.

use k8s_openapi::api::core::v1::Container;

/// A hash of what cannot change without a new container. As upstream, that is the name and the image alone:
/// fields that a newer version adds to the spec must not restart every container of a node.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:x}", fnv1a(format!("{}\0{image}", container.name).as_bytes()))
}

/// FNV-1a, 32 bits: stable between versions of Coracle and of the compiler.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_image_makes_another_container() {
        let container = |image: &str, arg: &str| Container {
            name: "web".into(),
            image: Some(image.into()),
            args: Some(vec![arg.into()]),
            ..Container::default()
        };
        assert_eq!(container_hash(&container("a", "x")), container_hash(&container("a", "y")));
        assert_ne!(container_hash(&container("a", "x")), container_hash(&container("b", "x")));
        assert_eq!(fnv1a(b"a"), 0xe40c292c);
    }
}
