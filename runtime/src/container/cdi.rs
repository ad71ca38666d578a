//! Devices by name: what a vendor's Container Device Interface files say that a container needs for one.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cri::v1;
use serde::Deserialize;

use super::devices::{self, Granted};
use super::spec::{Access, DeviceNode, Source, Volume};
use crate::sys::mount::Propagation;

/// Where the files are; of two that know a device, the one in the later directory counts.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// What devices add to a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes.
    pub devices: Vec<Granted>,
    /// Parts of the node's file tree.
    pub volumes: Vec<Volume>,
    /// Groups that the process is in.
    pub groups: Vec<u32>,
}

/// The devices that a container asks for by name.
pub fn names(config: &v1::ContainerConfig) -> Vec<String> {
    let annotated = config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    let annotated = annotated.flat_map(|(_, value)| value.split(',').map(str::trim));
    let mut seen = HashSet::new();
    let all = config.cdi_devices.iter().map(|device| device.name.as_str()).chain(annotated);
    all.filter(|name| !name.is_empty() && seen.insert(name.to_owned())).map(str::to_owned).collect()
}

/// Finds out what these devices add.
pub fn edits(names: &[String], directories: &[&Path]) -> Result<Edits, String> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let files = read(directories).map_err(|error| format!("failed to read CDI files: {error}"))?;
    let unknown: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| find(&files, name).is_none()).collect();
    if !unknown.is_empty() {
        return Err(format!("CDI device injection failed: unresolvable CDI devices {}", unknown.join(", ")));
    }
    let mut general = HashSet::new();
    for name in names {
        let Some((number, device)) = find(&files, name) else { continue };
        // What all devices of a file need is added once.
        if general.insert(number) {
            files[number].container_edits.add_to(&mut edits, name)?;
        }
        device.container_edits.add_to(&mut edits, name)?;
    }
    Ok(edits)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiFile {
    kind: String,
    #[serde(default)]
    devices: Vec<CdiDevice>,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiDevice {
    name: String,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerEdits {
    env: Vec<String>,
    device_nodes: Vec<CdiNode>,
    mounts: Vec<CdiMount>,
    hooks: Vec<CdiHook>,
    additional_gids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<u64>,
    minor: Option<u64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiMount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CdiHook {
    hook_name: String,
}

/// All files, those that count more first.
fn read(directories: &[&Path]) -> io::Result<Vec<CdiFile>> {
    let mut files = Vec::new();
    for directory in directories.iter().rev() {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        for entry in entries {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if !matches!(extension, Some("json" | "yaml" | "yml")) {
                continue;
            }
            // JSON is YAML.
            let file = serde_yaml::from_str(&fs::read_to_string(&path)?);
            files.push(file.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?);
        }
    }
    Ok(files)
}

fn find<'a>(files: &'a [CdiFile], name: &str) -> Option<(usize, &'a CdiDevice)> {
    let (kind, name) = name.split_once('=')?;
    let mut of_kind = files.iter().enumerate().filter(|(_, file)| file.kind == kind);
    of_kind.find_map(|(number, file)| Some((number, file.devices.iter().find(|device| device.name == name)?)))
}

impl ContainerEdits {
    fn add_to(&self, edits: &mut Edits, name: &str) -> Result<(), String> {
        if let Some(hook) = self.hooks.first() {
            return Err(format!(
                "CDI device {name} wants a {} hook, and this runtime runs no hooks",
                hook.hook_name
            ));
        }
        edits.env.extend(self.env.iter().cloned());
        edits.groups.extend(self.additional_gids.iter().filter(|gid| **gid != 0));
        for node in &self.device_nodes {
            let node = node.resolve().map_err(|error| format!("CDI device {name}: {error}"))?;
            edits.devices.push(node);
        }
        let volume = |mount: &CdiMount| Volume {
            source: Source::Path(mount.host_path.clone()),
            target: mount.container_path.clone(),
            access: if mount.options.iter().any(|option| option == "ro") {
                Access::Read
            } else {
                Access::Write
            },
            propagation: Propagation::Private,
            map_ids: false,
        };
        edits.volumes.extend(self.mounts.iter().map(volume));
        Ok(())
    }
}

impl CdiNode {
    /// What the file does not say is as on the node.
    fn resolve(&self) -> Result<Granted, String> {
        let source = self.host_path.as_ref().unwrap_or(&self.path);
        let mut node = match (self.kind.as_deref(), self.major, self.minor) {
            (Some(kind @ ("c" | "u" | "b")), Some(major), Some(minor)) => {
                let kind = if kind == "b" { 'b' } else { 'c' };
                DeviceNode { path: self.path.clone(), kind, major, minor, mode: 0o666, uid: 0, gid: 0 }
            }
            _ => devices::device(source, &self.path)
                .map_err(|error| format!("{}: {error}", source.display()))?
                .ok_or_else(|| format!("{} is no device", source.display()))?,
        };
        node.mode = self.file_mode.unwrap_or(node.mode);
        node.uid = self.uid.unwrap_or(node.uid);
        node.gid = self.gid.unwrap_or(node.gid);
        Ok((node, self.permissions.clone().unwrap_or_else(|| "rw".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
cdiVersion: "0.6.0"
kind: example.com/toy
containerEdits:
  env: [TOYS=yes]
devices:
- name: ball
  containerEdits:
    deviceNodes:
    - { path: /dev/ball, hostPath: /dev/zero, permissions: r }
    mounts:
    - { hostPath: /etc, containerPath: /toys, options: [ro, rbind] }
    additionalGids: [44]
- name: robot
  containerEdits:
    hooks:
    - { hookName: createContainer, path: /usr/bin/robot }
"#;

    fn found(name: &str) -> Result<Edits, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("toy.yaml"), FILE).unwrap();
        edits(&[name.to_owned()], &[directory.path()])
    }

    #[test]
    fn a_device_brings_along_what_it_needs() {
        let edits = found("example.com/toy=ball").unwrap();
        assert_eq!(edits.env, ["TOYS=yes"]);
        assert_eq!(edits.groups, [44]);
        let (node, access) = &edits.devices[0];
        assert_eq!((node.path.to_str(), node.minor, access.as_str()), (Some("/dev/ball"), 5, "r"));
        assert_eq!(edits.volumes[0].access, Access::Read);
    }

    #[test]
    fn a_device_that_nobody_knows_is_named() {
        let refused = found("example.com/toy=doll").unwrap_err();
        assert_eq!(refused, "CDI device injection failed: unresolvable CDI devices example.com/toy=doll");
        assert!(found("example.com/toy=robot").unwrap_err().contains("runs no hooks"));
    }

    #[test]
    fn names_come_from_the_field_and_from_annotations() {
        let config = v1::ContainerConfig {
            cdi_devices: vec![v1::CdiDevice { name: "a.b/c=d".into() }],
            annotations: [("cdi.k8s.io/x".to_owned(), "a.b/c=d,a.b/c=e".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(names(&config), ["a.b/c=d", "a.b/c=e"]);
    }
}
