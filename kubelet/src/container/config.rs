//! The CRI description of a container, from its spec. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode,
    NamespaceOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext, VolumeMount};

use super::env::ConfigError;
use super::expansion::expand;
use super::hash::container_hash;
use super::labels;
use crate::pod::view::PodView;
use crate::sandbox::namespace_options;

const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// The user that an image was built for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageUser {
    /// Its number, where the image gives one.
    pub uid: Option<i64>,
    /// Its name, where the image gives that.
    pub name: String,
}

/// What appears in a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A place on the node.
    Path(PathBuf),
    /// What an image holds.
    Image {
        /// The runtime's name for it.
        id: String,
        /// As the volume names it.
        asked: String,
        /// The part of it.
        sub_path: String,
    },
}

/// A place in the container and what appears there.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMount {
    /// What appears.
    pub origin: Origin,
    /// In the container.
    pub container: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// `mountPropagation`.
    pub propagation: MountPropagation,
    /// Whether mounts below it are read-only as well.
    pub recursive_read_only: bool,
}

/// What a container is made from, besides its spec.
pub struct Ingredients<'a> {
    /// The image as the runtime knows it.
    pub image_ref: &'a str,
    /// Whom the image runs as.
    pub image_user: &'a ImageUser,
    /// The environment, see [`super::env::environment`].
    pub environment: Vec<(String, String)>,
    /// Volumes and files, see [`volume_mounts`].
    pub mounts: Vec<HostMount>,
    /// Limits, see [`super::qos::container_resources`].
    pub resources: LinuxContainerResources,
    /// How many containers of this name came before it.
    pub attempt: u32,
    /// The container whose processes it sees.
    pub target: Option<String>,
    /// The pod's users.
    pub users: UserNamespace,
}

/// The whole description.
pub fn container_config(
    pod: &Pod,
    container: &Container,
    ingredients: Ingredients<'_>,
) -> Result<ContainerConfig, ConfigError> {
    check_user(pod, container, ingredients.image_user)?;
    let environment: HashMap<&str, &str> =
        ingredients.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expanded = |texts: &Option<Vec<String>>| -> Vec<String> {
        let value = |name: &str| environment.get(name).map(|value| value.to_string());
        texts.iter().flatten().map(|text| expand(text, value)).collect()
    };
    let image = container.image.clone().unwrap_or_default();
    let envs = ingredients.environment.iter();
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: ingredients.attempt }),
        image: Some(ImageSpec {
            image: ingredients.image_ref.to_string(),
            user_specified_image: image,
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: envs.map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: ingredients.mounts.into_iter().map(|mount| cri_mount(mount, &ingredients.users)).collect(),
        labels: HashMap::from([
            (labels::POD_NAME.to_string(), pod.name().to_string()),
            (labels::POD_NAMESPACE.to_string(), pod.namespace().to_string()),
            (labels::POD_UID.to_string(), pod.uid().to_string()),
            (labels::CONTAINER_NAME.to_string(), container.name.clone()),
        ]),
        annotations: annotations(pod, container, ingredients.attempt),
        log_path: format!("{}/{}.log", container.name, ingredients.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(ingredients.resources),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(pod, ingredients.target, ingredients.users)),
                ..security_context(pod, container, ingredients.image_user)
            }),
        }),
        stop_signal: stop_signal(container),
        ..ContainerConfig::default()
    })
}

fn namespaces(pod: &Pod, target: Option<String>, users: UserNamespace) -> NamespaceOption {
    let options = namespace_options(pod, users);
    match target {
        None => options,
        Some(target_id) => NamespaceOption { pid: NamespaceMode::Target as i32, target_id, ..options },
    }
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let message_path = container.termination_message_path.as_deref().unwrap_or(TERMINATION_MESSAGE_PATH);
    let message_policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let image = container.image.clone().unwrap_or_default();
    let pairs = [
        (labels::HASH, container_hash(container)),
        (labels::RESTART_COUNT, attempt.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, message_path.to_string()),
        (labels::TERMINATION_MESSAGE_POLICY, message_policy.to_string()),
        (labels::POD_GRACE_PERIOD, pod.spec().termination_grace_period_seconds.unwrap_or(30).to_string()),
        (labels::IMAGE, image),
        (labels::RESOURCES, serde_json::to_string(&container.resources).unwrap_or_default()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let signal = name
        .and_then(|name| cri::v1::Signal::from_str_name(&name.replace('+', "PLUS").replace('-', "MINUS")));
    signal.unwrap_or(cri::v1::Signal::RuntimeDefault) as i32
}

/// Files belong to the same ids inside as outside: the pod's users are mapped on each mount.
fn cri_mount(mount: HostMount, users: &UserNamespace) -> Mount {
    let (host_path, image, image_sub_path) = match mount.origin {
        Origin::Path(path) => (path.to_string_lossy().into_owned(), None, String::new()),
        Origin::Image { id, asked, sub_path } => {
            let image = ImageSpec { image: id, user_specified_image: asked, ..ImageSpec::default() };
            (String::new(), Some(image), sub_path)
        }
    };
    Mount {
        container_path: mount.container,
        host_path,
        image,
        image_sub_path,
        uid_mappings: users.uids.clone(),
        gid_mappings: users.gids.clone(),
        readonly: mount.read_only,
        propagation: mount.propagation as i32,
        recursive_read_only: mount.recursive_read_only,
        ..Mount::default()
    }
}

/// Where the container's volumes appear. `origin` gives what a volume is on the node, with the sub path that
/// is asked for; `can_recurse` says whether the runtime has mounts that are read-only to the last leaf.
pub fn volume_mounts(
    container: &Container,
    environment: &[(String, String)],
    can_recurse: bool,
    mut origin: impl FnMut(usize, &str, &str) -> Result<Origin, ConfigError>,
) -> Result<Vec<HostMount>, ConfigError> {
    let value =
        |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts
        .map(|(index, mount)| {
            let sub_path = match mount.sub_path_expr.as_deref() {
                Some(expression) => expand(expression, value),
                None => mount.sub_path.clone().unwrap_or_default(),
            };
            check_sub_path(&sub_path)?;
            let path = &mount.mount_path;
            Ok(HostMount {
                origin: origin(index, &mount.name, &sub_path)?,
                container: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
                read_only: mount.read_only == Some(true),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                    Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                    _ => MountPropagation::PropagationPrivate,
                },
                recursive_read_only: is_recursive(mount, can_recurse)?,
            })
        })
        .collect()
}

fn is_recursive(mount: &VolumeMount, can_recurse: bool) -> Result<bool, ConfigError> {
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !can_recurse => Err(ConfigError::Mount(format!(
            "volume \"{}\" requested recursive read-only mode, but it is not supported by the runtime",
            mount.name
        ))),
        Some("Enabled") => Ok(true),
        Some("IfPossible") => Ok(can_recurse),
        _ => Ok(false),
    }
}

fn check_sub_path(sub_path: &str) -> Result<(), ConfigError> {
    if sub_path.starts_with('/') {
        return Err(ConfigError::Mount(format!("error SubPath `{sub_path}` must not be an absolute path")));
    }
    if Path::new(sub_path).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(ConfigError::Mount(format!(
            "unable to provision SubPath `{sub_path}`: must not contain '..'"
        )));
    }
    Ok(())
}

/// Refuses what `runAsNonRoot` forbids, before anything runs.
fn check_user(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), ConfigError> {
    let own = container.security_context.as_ref();
    let whole = pod.spec().security_context.as_ref();
    let must_not_be_root =
        own.and_then(|own| own.run_as_non_root).or(whole.and_then(|whole| whole.run_as_non_root));
    if must_not_be_root != Some(true) {
        return Ok(());
    }
    let names = || (format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid()), container.name.clone());
    let asked = own.and_then(|own| own.run_as_user).or(whole.and_then(|whole| whole.run_as_user));
    match (asked, image.uid) {
        (Some(0), _) => {
            let (pod, container) = names();
            Err(ConfigError::UserBreaksPolicy { pod, container })
        }
        (Some(_), _) => Ok(()),
        (None, Some(uid)) if uid != 0 => Ok(()),
        (None, None) if !image.name.is_empty() && image.name != "root" => {
            let (pod, container) = names();
            Err(ConfigError::UserIsAName { user: image.name.clone(), pod, container })
        }
        _ => {
            let (pod, container) = names();
            Err(ConfigError::RunsAsRoot { pod, container })
        }
    }
}

fn security_context(pod: &Pod, container: &Container, image: &ImageUser) -> LinuxContainerSecurityContext {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let whole = pod.spec().security_context.as_ref();
    let is_privileged = own.privileged == Some(true);
    let is_unmasked = is_privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let capabilities = own.capabilities.as_ref();
    let asked = own.run_as_user.or(whole.and_then(|whole| whole.run_as_user));
    // As upstream: a runtime is always told the user, for it may refuse a group without one.
    let (user, username) = match asked {
        Some(user) => (Some(user), String::new()),
        None => (image.uid, image.name.clone()),
    };
    let group = own.run_as_group.or(whole.and_then(|whole| whole.run_as_group));
    let seccomp = own.seccomp_profile.as_ref().or(whole.and_then(|whole| whole.seccomp_profile.as_ref()));
    let paths = |paths: &[&str]| match is_unmasked {
        true => Vec::new(),
        false => paths.iter().map(|path| path.to_string()).collect(),
    };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: capabilities.and_then(|set| set.add.clone()).unwrap_or_default(),
            drop_capabilities: capabilities.and_then(|set| set.drop.clone()).unwrap_or_default(),
            ..Capability::default()
        }),
        privileged: is_privileged,
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_username: username,
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: supplemental_groups_policy(pod) as i32,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(cri::MASKED_PATHS),
        readonly_paths: paths(cri::READONLY_PATHS),
        seccomp: Some(seccomp_profile(seccomp, is_privileged)),
        ..LinuxContainerSecurityContext::default()
    }
}

/// The extra groups of every process of the pod: the volumes' group is one of them.
pub fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pod.spec().security_context else { return Vec::new() };
    let groups = context.supplemental_groups.iter().flatten().copied();
    groups.chain(context.fs_group).collect()
}

/// Whether the image's own groups count.
pub fn supplemental_groups_policy(pod: &Pod) -> SupplementalGroupsPolicy {
    let context = pod.spec().security_context.as_ref();
    match context.and_then(|context| context.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

/// The profile asked for; where none is, the runtime's own, but for privileged containers.
pub fn seccomp_profile(asked: Option<&SeccompProfile>, is_privileged: bool) -> SecurityProfile {
    let kind = match asked.map(|profile| profile.type_.as_str()) {
        Some("Unconfined") => ProfileType::Unconfined,
        Some("Localhost") => ProfileType::Localhost,
        Some(_) => ProfileType::RuntimeDefault,
        None if is_privileged => ProfileType::Unconfined,
        None => ProfileType::RuntimeDefault,
    };
    let path = asked.and_then(|profile| profile.localhost_profile.clone());
    SecurityProfile { profile_type: kind as i32, localhost_ref: path.unwrap_or_default() }
}

/// Reads back what [`annotations`] wrote.
pub fn annotation<'a>(annotations: &'a HashMap<String, String>, key: &str) -> &'a str {
    annotations.get(key).map(String::as_str).unwrap_or_default()
}

/// The volumes that a container uses, by name.
pub fn used_volumes(container: &Container) -> BTreeMap<&str, &str> {
    container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| (mount.name.as_str(), mount.mount_path.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(
        pod_context: Value,
        container: Value,
        image: &ImageUser,
    ) -> Result<ContainerConfig, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
            "spec": { "containers": [container], "securityContext": pod_context },
        }))
        .unwrap();
        let ingredients = Ingredients {
            image_ref: "sha256:1",
            image_user: image,
            environment: vec![("WHO".into(), "you".into())],
            mounts: Vec::new(),
            resources: LinuxContainerResources::default(),
            attempt: 2,
            target: None,
            users: UserNamespace::default(),
        };
        container_config(&pod, &pod.spec().containers[0], ingredients)
    }

    #[test]
    fn commands_are_expanded_and_everything_carries_its_name() {
        let container =
            json!({ "name": "c", "image": "busybox", "command": ["echo"], "args": ["hi $(WHO)", "$$(WHO)"] });
        let config = config(json!({}), container, &ImageUser::default()).unwrap();
        assert_eq!(
            (config.command, config.args),
            (vec!["echo".to_string()], vec!["hi you".into(), "$(WHO)".into()])
        );
        assert_eq!(config.log_path, "c/2.log");
        assert_eq!(config.labels["io.kubernetes.pod.name"], "web");
        assert_eq!(config.annotations["io.kubernetes.container.restartCount"], "2");
        assert_eq!(config.image.unwrap().user_specified_image, "busybox");
    }

    #[test]
    fn the_containers_security_context_wins_over_the_pods() {
        let container = json!({ "name": "c", "securityContext": {
            "runAsUser": 7, "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false,
            "seccompProfile": { "type": "Unconfined" } } });
        let context = json!({ "runAsUser": 5, "runAsGroup": 6, "fsGroup": 9, "supplementalGroups": [8] });
        let config = config(context, container, &ImageUser::default()).unwrap();
        let security = config.linux.unwrap().security_context.unwrap();
        assert_eq!(security.run_as_user.unwrap().value, 7);
        assert_eq!(security.run_as_group.unwrap().value, 6);
        assert_eq!(security.supplemental_groups, [8, 9]);
        assert!(security.no_new_privs);
        assert_eq!(security.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(security.seccomp.unwrap().profile_type, ProfileType::Unconfined as i32);
        assert!(security.masked_paths.contains(&"/proc/kcore".to_string()));
    }

    #[test]
    fn non_root_is_refused_in_upstreams_words() {
        let refused = |container: Value, image: ImageUser| {
            config(json!({ "runAsNonRoot": true }), container, &image).unwrap_err().to_string()
        };
        let container = json!({ "name": "c" });
        let root = ImageUser { uid: Some(0), name: String::new() };
        assert_eq!(
            refused(container.clone(), root),
            "container has runAsNonRoot and image will run as root (pod: \"web_shop(u)\", container: c)"
        );
        let named = ImageUser { uid: None, name: "www".into() };
        assert!(refused(container, named).contains("non-numeric user (www)"));
        let asked = json!({ "name": "c", "securityContext": { "runAsUser": 0 } });
        assert!(refused(asked, ImageUser::default()).contains("breaks non-root policy"));
    }

    #[test]
    fn sub_paths_are_expanded_and_cannot_leave_the_volume() {
        let mounts = |mount: Value| {
            let container: Container =
                serde_json::from_value(json!({ "name": "c", "volumeMounts": [mount] })).unwrap();
            volume_mounts(&container, &[("POD".into(), "p".into())], false, |_, volume, sub_path| {
                Ok(Origin::Path(Path::new("/v").join(volume).join(sub_path)))
            })
        };
        let found =
            mounts(json!({ "name": "data", "mountPath": "d", "subPathExpr": "a/$(POD)", "readOnly": true }));
        let found = found.unwrap().remove(0);
        let origin = Origin::Path(PathBuf::from("/v/data/a/p"));
        assert_eq!((found.origin, found.container.as_str()), (origin, "/d"));
        assert!(found.read_only);
        assert!(mounts(json!({ "name": "data", "mountPath": "/d", "subPath": "a/../../b" })).is_err());
        assert!(mounts(json!({ "name": "data", "mountPath": "/d", "subPath": "/etc" })).is_err());
    }

    #[test]
    fn read_only_to_the_last_leaf_is_had_where_the_runtime_can() {
        let recursive = |asked: Value, can_recurse: bool| {
            let mount =
                json!({ "name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": asked });
            let container: Container =
                serde_json::from_value(json!({ "name": "c", "volumeMounts": [mount] })).unwrap();
            let mounts = volume_mounts(&container, &[], can_recurse, |_, _, _| Ok(Origin::Path("/h".into())));
            mounts.map(|mounts| mounts[0].recursive_read_only).map_err(|error| error.to_string())
        };
        assert_eq!(recursive(json!("IfPossible"), true), Ok(true));
        assert_eq!(recursive(json!("IfPossible"), false), Ok(false));
        assert_eq!(recursive(json!("Enabled"), true), Ok(true));
        assert_eq!(recursive(json!(null), true), Ok(false));
        let refused =
            "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime";
        assert_eq!(recursive(json!("Enabled"), false), Err(refused.into()));
    }

    #[test]
    fn mounts_carry_the_pods_users_and_images_their_names() {
        let ids = cri::v1::IdMapping { host_id: 65_536, container_id: 0, length: 65_536 };
        let users = UserNamespace { uids: vec![ids], gids: vec![ids], ..UserNamespace::default() };
        let mount = HostMount {
            origin: Origin::Image { id: "sha256:1".into(), asked: "data:1".into(), sub_path: "etc".into() },
            container: "/v".into(),
            read_only: true,
            propagation: MountPropagation::PropagationPrivate,
            recursive_read_only: false,
        };
        let mount = cri_mount(mount, &users);
        assert_eq!((mount.uid_mappings, mount.gid_mappings), (vec![ids], vec![ids]));
        assert_eq!((mount.host_path.as_str(), mount.image_sub_path.as_str()), ("", "etc"));
        let image = mount.image.unwrap();
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "data:1"));
    }
}
