//! What the sources of volumes must say, in pods and in PersistentVolumes.

use super::container::validate_no_backsteps;
use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::storage::validate_driver;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// What the sources cannot do without.
#[rustfmt::skip]
const NEEDED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("configMap", &["name"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("image", &["reference"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &["volume"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// Whose source it is. Those of PersistentVolumes name the namespaces of their secrets as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A volume of a pod.
    Pod,
    /// A PersistentVolume.
    PersistentVolume,
}

/// The source of a volume, under the name that upstream's messages have for it.
pub fn of<'a>(volume: &Field<'a>, kind: &str) -> Field<'a> {
    let source = volume.get(kind);
    match kind {
        "gcePersistentDisk" => Field { path: volume.get("persistentDisk").path, value: source.value },
        _ => source,
    }
}

/// The rules that are the same wherever a source stands. `kind` is the name of its field.
pub fn validate(kind: &str, source: &Field, place: Place, faults: &mut Faults) {
    let needed = NEEDED.binary_search_by(|(name, _)| (*name).cmp(kind));
    for name in needed.map(|index| NEEDED[index].1).unwrap_or_default() {
        faults.must_be_given(&source.get(name));
    }
    match kind {
        "awsElasticBlockStore" | "gcePersistentDisk" => {
            let partition = source.get("partition");
            if partition.number().is_some_and(|number| !(0..=255).contains(&number)) {
                faults.invalid(&partition, "must be between 1 and 255, inclusive");
            }
        }
        "azureDisk" => validate_azure_disk(source, faults),
        "cinder" => validate_secret(&source.get("secretRef"), place, faults),
        "csi" => validate_csi(source, place, faults),
        "fc" => validate_fibre_channel(source, faults),
        "flexVolume" => validate_options(&source.get("options"), faults),
        "flocker" => validate_flocker(source, faults),
        "hostPath" => {
            validate_no_backsteps(&source.get("path"), faults);
            faults.one_of(&source.get("type"), HOST_PATH_TYPES);
        }
        "iscsi" => validate_iscsi(source, faults),
        "local" => validate_no_backsteps(&source.get("path"), faults),
        "nfs" if !source.get("path").text().starts_with('/') => {
            faults.invalid(&source.get("path"), "must be an absolute path");
        }
        "quobyte" => validate_quobyte(source, faults),
        "storageos" => {
            faults.keeps(&source.get("volumeName"), name::dns_label);
            faults.keeps(&source.get("volumeNamespace"), name::dns_label);
            validate_secret(&source.get("secretRef"), place, faults);
        }
        _ => {}
    }
}

/// A secret that may be left out, but not be named by half.
fn validate_secret(secret: &Field, place: Place, faults: &mut Faults) {
    if secret.is_set() {
        faults.must_be_given(&secret.get("name"));
        if place == Place::PersistentVolume {
            faults.must_be_given(&secret.get("namespace"));
        }
    }
}

fn validate_csi(source: &Field, place: Place, faults: &mut Faults) {
    validate_driver(&source.get("driver"), faults);
    if place == Place::Pod {
        let secret = source.get("nodePublishSecretRef");
        if secret.is_set() && faults.must_be_given(&secret.get("name")) {
            let named = Field { path: source.get("name").path, value: secret.get("name").value };
            faults.keeps(&named, name::dns_subdomain);
        }
        return;
    }
    faults.must_be_given(&source.get("volumeHandle"));
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(name);
        if secret.is_set() {
            faults.must_keep(&secret.get("name"), name::dns_subdomain);
            faults.must_keep(&secret.get("namespace"), name::dns_label);
        }
    }
}

fn validate_azure_disk(source: &Field, faults: &mut Faults) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    faults.one_of(&source.get("cachingMode"), &["None", "ReadOnly", "ReadWrite"]);
    let (kind, address) = (source.get("kind"), source.get("diskURI"));
    faults.one_of(&kind, &["Dedicated", "Managed", "Shared"]);
    let (start, form) = match kind.text() {
        "Managed" => ("/subscriptions/", MANAGED),
        _ => ("https://", BLOB),
    };
    if kind.is_set() && !address.text().starts_with(start) {
        let address = Field { path: address.path.clone(), value: &address.text().into() };
        faults.not_supported(&address, &[form]);
    }
}

fn validate_fibre_channel(source: &Field, faults: &mut Faults) {
    let (names, ids, unit) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => faults.required(&names, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            faults.invalid(&names, "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    if names.is_empty() {
        return;
    }
    match unit.is_set() {
        true => faults.between(&unit, 0, 255),
        false => faults.required(&unit, "lun is required if targetWWNs is specified"),
    }
}

/// A driver's options may not be in the project's own name.
fn validate_options(options: &Field, faults: &mut Faults) {
    for (key, option) in options.entries() {
        let domain = key.split_once('/').map_or(key, |(domain, _)| domain).to_lowercase();
        let is_reserved =
            ["kubernetes.io", "k8s.io"].iter().any(|own| format!(".{domain}").ends_with(&format!(".{own}")));
        if is_reserved {
            let named = Field { path: option.path, value: &key.into() };
            faults.invalid(&named, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn validate_flocker(source: &Field, faults: &mut Faults) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.text().is_empty(), uuid.text().is_empty()) {
        (true, true) => faults.required(source, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let place = Field { path: source.path.clone(), value: &"resource".into() };
            faults.invalid(&place, "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.text().contains('/') {
        faults.invalid(&name, "must not contain '/'");
    }
}

fn validate_iscsi(source: &Field, faults: &mut Faults) {
    let initiator = source.get("initiatorName");
    let named = Field { path: source.get("initiatorname").path, value: initiator.value };
    for name in [source.get("iqn"), named] {
        let text = name.text();
        if text.is_empty() {
            continue;
        }
        if !["iqn", "eui", "naa"].iter().any(|start| text.starts_with(start)) {
            faults.invalid(&name, "must be valid format starting with iqn, eui, or naa");
        } else if !name::is_initiator(text) {
            faults.invalid(&name, "must be valid format");
        }
    }
    faults.between(&source.get("lun"), 0, 255);
    let needs_secret = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|name| source.get(name).is_true());
    if needs_secret && !source.get("secretRef").is_set() {
        faults.required(&source.get("secretRef"), "");
    }
}

fn validate_quobyte(source: &Field, faults: &mut Faults) {
    const FORM: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.text().is_empty() {
        return faults.required(&registry, FORM);
    }
    if tenant.text().len() > 64 {
        return faults.required(&tenant, "must be a UUID and may not exceed a length of 64 characters");
    }
    for pair in registry.text().split(',') {
        let host = pair.rsplit_once(':').map(|(host, _)| host);
        let is_bracketed = |host: &str| host.starts_with('[') && host.ends_with(']');
        if !host.is_some_and(|host| is_bracketed(host) || !host.contains([':', '[', ']'])) {
            faults.invalid(&registry, FORM);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(kind: &str, source: Value, place: Place) -> Vec<String> {
        let volume = json!({kind: source});
        let mut faults = Faults::new();
        let field = of(&Field { path: "spec".into(), value: &volume }, kind);
        validate(kind, &field, place, &mut faults);
        faults.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_source_says_what_it_cannot_do_without() {
        assert!(NEEDED.is_sorted_by_key(|(name, _)| *name));
        for (kind, needed) in NEEDED {
            let told = told(kind, json!({}), Place::Pod);
            for name in *needed {
                let path = if *kind == "gcePersistentDisk" { "persistentDisk" } else { kind };
                assert!(told.contains(&format!("spec.{path}.{name}: Required value")), "{told:?}");
            }
        }
    }

    #[test]
    fn names_of_initiators_have_one_of_three_forms() {
        for (name, why) in [
            ("iqn.2001-04.com.example:storage", None),
            ("eui.02004567A425678D", None),
            ("naa.52004567BA64678D0000000000000000", None),
            ("iqn.20-04.com.example:storage", Some("must be valid format")),
            ("iqn.2001-04.com.example", Some("must be valid format")),
            ("eui.1", Some("must be valid format")),
            ("disk", Some("must be valid format starting with iqn, eui, or naa")),
        ] {
            let told = told("iscsi", json!({"targetPortal": "a", "iqn": name, "lun": 0}), Place::Pod);
            let expected = why.map(|why| format!("spec.iscsi.iqn: Invalid value: {name:?}: {why}"));
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_persistent_volume_names_the_namespaces_of_its_secrets() {
        let source =
            json!({"driver": "a.example", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}});
        assert_eq!(told("csi", source.clone(), Place::Pod), [""; 0]);
        assert_eq!(
            told("csi", source, Place::PersistentVolume),
            ["spec.csi.nodePublishSecretRef.namespace: Required value"]
        );
    }

    #[test]
    fn sources_that_contradict_themselves_are_refused() {
        for (kind, source, expected) in [
            (
                "fc",
                json!({}),
                "spec.fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both",
            ),
            (
                "fc",
                json!({"targetWWNs": ["a"]}),
                "spec.fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
            (
                "flocker",
                json!({}),
                "spec.flocker: Required value: one of datasetName and datasetUUID is required",
            ),
            (
                "flexVolume",
                json!({"driver": "a/b", "options": {"x.k8s.io/y": ""}}),
                r#"spec.flexVolume.options[x.k8s.io/y]: Invalid value: "x.k8s.io/y": kubernetes.io and k8s.io namespaces are reserved"#,
            ),
            (
                "quobyte",
                json!({"volume": "v", "registry": "host"}),
                r#"spec.quobyte.registry: Invalid value: "host": must be a host:port pair or multiple pairs separated by commas"#,
            ),
            (
                "hostPath",
                json!({"path": "/a/../b"}),
                r#"spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'"#,
            ),
            (
                "gcePersistentDisk",
                json!({"pdName": "a", "partition": 256}),
                "spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ),
        ] {
            assert_eq!(told(kind, source, Place::Pod), [expected]);
        }
    }
}
