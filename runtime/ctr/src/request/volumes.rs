//! Folders of the machine, and volumes, in a container.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::containers::check_name;
use crate::definition::{Spread, Volume};

/// `[SOURCE:]PATH[:OPTIONS]`: a source with a slash is a path of the machine, one without a volume's name.
pub fn parse(given: &str, volumes: &Path) -> Result<Volume> {
    let parts: Vec<&str> = given.split(':').collect();
    let invalid = || anyhow::anyhow!("invalid volume specification: '{given}'");
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(invalid()),
    };
    if !target.starts_with('/') {
        bail!("{}: invalid mount path: '{target}' mount path must be absolute", invalid());
    }
    if Path::new(target) == Path::new("/") {
        bail!("{}: invalid specification: destination can't be '/'", invalid());
    }
    let mut volume = match source {
        None => anonymous(target, volumes),
        Some(path) if path.starts_with(['/', '.']) => Volume {
            name: None,
            anonymous: false,
            source: std::path::absolute(path)?,
            target: target.to_owned(),
            read_only: false,
            no_copy: false,
            propagation: Spread::Private,
        },
        Some(name) => {
            check_name(name).map_err(|_| {
                anyhow::anyhow!(
                    "{}: \"{name}\" includes invalid characters for a local volume name, only \
                     \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
                     absolute path",
                    invalid()
                )
            })?;
            named(name, target, volumes)
        }
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => volume.read_only = true,
            "nocopy" => volume.no_copy = true,
            // Labels of SELinux are nothing that we do.
            "rw" | "z" | "Z" => {}
            "private" | "rprivate" => volume.propagation = Spread::Private,
            "slave" | "rslave" => volume.propagation = Spread::Slave,
            "shared" | "rshared" => volume.propagation = Spread::Shared,
            _ => bail!("{}: invalid mode: {option}", invalid()),
        }
    }
    Ok(volume)
}

/// A volume that nobody has named: it goes with the container.
pub fn anonymous(target: &str, volumes: &Path) -> Volume {
    let name = crate::run::new_id();
    Volume { anonymous: true, ..named(&name, target, volumes) }
}

fn named(name: &str, target: &str, volumes: &Path) -> Volume {
    let source: PathBuf = volumes.join(name);
    Volume {
        name: Some(name.to_owned()),
        anonymous: false,
        source,
        target: target.to_owned(),
        read_only: false,
        no_copy: false,
        propagation: Spread::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_paths_or_names() {
        let volumes = Path::new("/volumes");
        let path = parse("/data:/in:ro", volumes).unwrap();
        assert_eq!(
            (path.source.as_path(), path.target.as_str(), path.read_only),
            (Path::new("/data"), "/in", true)
        );
        let named = parse("cache:/in", volumes).unwrap();
        assert_eq!((named.source.as_path(), named.anonymous), (Path::new("/volumes/cache"), false));
        let nameless = parse("/in", volumes).unwrap();
        assert!(nameless.anonymous && nameless.source.starts_with("/volumes"));
        assert!(parse("cache:/in:nocopy", volumes).unwrap().no_copy && !named.no_copy);
        assert_eq!(parse("/a:/b:rw,rslave", volumes).unwrap().propagation, Spread::Slave);
    }

    #[test]
    fn bad_volumes_are_refused() {
        let refused = |given: &str| parse(given, Path::new("/volumes")).unwrap_err().to_string();
        assert!(refused("/a:b").ends_with("invalid mount path: 'b' mount path must be absolute"));
        assert!(refused("/a:/").ends_with("destination can't be '/'"));
        assert!(refused("/a:/b:xx").ends_with("invalid mode: xx"));
        assert!(refused("b@d:/x").contains("includes invalid characters for a local volume name"));
    }
}
