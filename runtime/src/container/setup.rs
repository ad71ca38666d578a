//! The steps from a bare process to a container: a plain list, in the order they are taken.
//!
//! The order is what keeps a container in: what belongs to the node is opened while the node's tree is
//! still there (volumes, the writable layer); then the mounts are cut off and the container's tree is built
//! and entered; then rights are given up, one after the other, until only the user's program is left.
//!
//! A pod with a user namespace of its own: what only the node's root may do comes before the process enters it,
//! and the mounts, the control groups and the process numbers made from there on belong to that namespace.
//!
//! A process that joins a pid namespace where others live already: those with CAP_SYS_PTRACE see through it, by
//! `/proc/<pid>/root` and by its descriptors, and may take its rights over. It goes in there only when the node's tree
//! is out of sight, no descriptor of the shim is open, and it may do no more than its program (and, without
//! no_new_privs, load its filter). This holds from Linux 6.18 on: before, a child that makes the container's procfs is
//! in there for a moment with the node's tree and CAP_SYS_ADMIN.

use std::path::{Path, PathBuf};

use super::ids::{IdMap, Owner};
use super::spec::{
    Access, Capabilities, DeviceNode, Label, Membership, PidNamespace, Process, Root, Source, Spec, User,
};
use crate::sys::mount::Propagation;

/// One step; [`super::carry_out`] takes it.
#[derive(Clone, Debug, PartialEq)]
pub enum SetupStep {
    /// Moves into the version 1 control groups. (Into the version 2 one a process is born.)
    JoinCgroups(Vec<PathBuf>),
    /// Sets how likely the process is chosen when memory runs out.
    SetOomScore(i32),
    /// Limits the number of open files.
    LimitFiles(u64),
    /// Gives the prepared standard streams to the user, for a program may open them again by their names.
    OwnStreams(Owner),
    /// Opens a volume of the node, detached.
    OpenVolume {
        /// Its number.
        index: usize,
        /// On the node.
        source: PathBuf,
        /// Whether it can be written.
        access: Access,
        /// How later mounts spread.
        propagation: Propagation,
        /// Whether its ids are those of the pod's user namespace.
        map_ids: bool,
    },
    /// Opens the pod's shared memory, or the node's.
    OpenSharedMemory {
        /// The node's.
        of_host: bool,
    },
    /// Cuts all mounts off from the node's.
    IsolateMounts,
    /// Shows the image layers in this directory with the ids of the pod's user namespace.
    MapLayers(PathBuf),
    /// Opens an image as a volume that nobody can write to.
    OpenImage {
        /// The volume's number.
        index: usize,
        /// Topmost first.
        layers: Vec<PathBuf>,
        /// The part of it that is wanted.
        sub_path: PathBuf,
        /// A directory of the container's own where it may be on its way.
        place: PathBuf,
    },
    /// Puts image layers and writable layer together.
    MountRoot {
        /// Which.
        root: Root,
        /// Who root is on the node.
        owner: Owner,
    },
    /// Makes a new `/dev` with the devices that every container has, and these, where nobody can see it yet.
    MakeDev {
        /// Which.
        devices: Vec<DeviceNode>,
        /// Who root is on the node.
        owner: Owner,
    },
    /// Sees its own control group as the root of all.
    NewCgroupNamespace,
    /// Enters the pod's user namespace as its root, with a new mount and a new control group namespace.
    EnterUserNamespace {
        /// With a new pid namespace too.
        own_pids: bool,
    },
    /// Puts the root file system where it can be entered.
    AttachRoot,
    /// A procfs of the process's own pid namespace, at `/proc`.
    MountProc,
    /// The kernel's view of the machine, at `/sys`.
    MountSys {
        /// For privileged containers.
        writable: bool,
    },
    /// The container's own control groups, below `/sys/fs/cgroup`.
    MountCgroups {
        /// Which.
        groups: Membership,
        /// For privileged containers.
        writable: bool,
    },
    /// The new `/dev`, and terminals in it.
    MountDev,
    /// The shared memory at `/dev/shm`.
    MountSharedMemory,
    /// POSIX message queues of the IPC namespace, at `/dev/mqueue`.
    MountMessageQueues,
    /// Makes a volume visible at its place.
    AttachVolume {
        /// Its number.
        index: usize,
        /// In the container.
        target: PathBuf,
    },
    /// Hides what is at this path.
    Mask(PathBuf),
    /// Protects what is at this path from writing.
    Protect(PathBuf),
    /// Protects the root file system, but not what is mounted in it.
    ProtectRoot,
    /// Opens where the security module hears of the label: in the container such a file could be another one.
    OpenLabel(Label),
    /// Makes the container's tree the only one.
    EnterRoot,
    /// Becomes the leader of a session of its own.
    NewSession,
    /// Opens a terminal of the container as the standard streams, and hands the other side to the shim.
    OpenTerminal {
        /// Whether it is the console of the container too.
        console: bool,
        /// Whose it is.
        owner: User,
        /// Its first size, if that is known: columns and rows.
        size: Option<(u16, u16)>,
    },
    /// Makes the terminal the session's.
    TakeTerminal,
    /// Connects the standard streams to what the shim has prepared.
    ConnectStreams,
    /// Goes to the directory, making it when it is missing.
    EnterDirectory(PathBuf),
    /// Gives up capabilities that neither the process nor its descendants may ever have.
    LimitCapabilities(Capabilities),
    /// Loads a filter of system calls while still having the right to.
    Filter(PathBuf),
    /// Becomes the user.
    BecomeUser(User),
    /// As the last one, but keeps the right to load a filter until then.
    KeepRightToFilter {
        /// What is meant for it.
        capabilities: Capabilities,
        /// For whom.
        user: u32,
    },
    /// Goes on as a new process in the pid namespace that is joined: others see it from here on.
    GoAmongOthers,
    /// Keeps the capabilities meant for it and no other.
    SetCapabilities {
        /// What is meant for it.
        capabilities: Capabilities,
        /// For whom: root holds them by itself, others by inheritance.
        user: u32,
    },
    /// Tells the security module what the program will be.
    ApplyLabel(Label),
    /// From now on no program gives more rights than there are.
    NoNewPrivileges,
    /// Gives signals their default meaning.
    ResetSignals,
    /// Leaves no descriptor of the shim to the program.
    CloseDescriptors,
    /// Becomes the program.
    Execute {
        /// The program and its arguments.
        args: Vec<String>,
        /// `NAME=value`.
        env: Vec<String>,
    },
}

impl SetupStep {
    /// What the step is called where its time is told.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }
}

/// The steps that make a container and start its first process.
pub fn container_setup(spec: &Spec) -> Vec<SetupStep> {
    let mut steps = join(&spec.cgroup, &spec.process, spec.ids.as_ref());
    steps.extend(open_from_the_node(spec));
    match &spec.ids {
        None => steps.push(SetupStep::NewCgroupNamespace),
        Some(_) => {
            let own_pids = spec.pid == PidNamespace::Own;
            steps.push(SetupStep::EnterUserNamespace { own_pids });
        }
    }
    steps.extend(build_tree(spec));
    let company = if spec.pid.is_joined() { Company::Joined } else { Company::None };
    steps.extend(become_program(&spec.process, true, company));
    steps
}

/// The steps that start one more process in a container whose namespaces have been joined.
pub fn process_setup(process: &Process) -> Vec<SetupStep> {
    become_program(process, false, Company::Joined)
}

/// Who is in a process's pid namespace before it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Company {
    /// Nobody, or the whole node.
    None,
    /// Containers, which it is to join.
    Joined,
}

/// The steps of an exec before the process joins the namespaces of a running container: the node's own
/// files, such as control groups, are out of sight afterwards.
pub fn join_container(groups: &Membership, process: &Process, ids: Option<&IdMap>) -> Vec<SetupStep> {
    join(groups, process, ids)
}

/// What only the node's root may do for a process, in the node's own file tree.
fn join(groups: &Membership, process: &Process, ids: Option<&IdMap>) -> Vec<SetupStep> {
    let directories = groups.split.iter().map(|(_, directory)| directory.clone()).collect();
    let mut steps = vec![SetupStep::JoinCgroups(directories)];
    steps.extend(process.oom_score_adj.map(SetupStep::SetOomScore));
    steps.extend(process.open_files.map(SetupStep::LimitFiles));
    if !process.terminal {
        steps.push(SetupStep::OwnStreams(on_the_node(ids, process.user.uid, process.user.gid)));
    }
    steps
}

/// Who somebody of the container is on the node; who has no id there is nobody.
fn on_the_node(ids: Option<&IdMap>, uid: u32, gid: u32) -> Owner {
    const NOBODY: u32 = 65_534;
    match ids {
        None => Owner { uid, gid },
        Some(ids) => ids.owner(uid, gid).unwrap_or(Owner { uid: NOBODY, gid: NOBODY }),
    }
}

fn open_from_the_node(spec: &Spec) -> Vec<SetupStep> {
    let mut steps = Vec::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        if let Source::Path(source) = &volume.source {
            let (source, map_ids) = (source.clone(), volume.map_ids);
            let (access, propagation) = (volume.access, volume.propagation);
            steps.push(SetupStep::OpenVolume { index, source, access, propagation, map_ids });
        }
    }
    steps.push(SetupStep::OpenSharedMemory { of_host: spec.host_ipc });
    steps.push(SetupStep::IsolateMounts);
    if spec.ids.is_some() {
        // One mapping for all layers: the kernel's lock on mounts is one for the whole machine.
        let layers = spec.root.layers.first().and_then(|layer| layer.parent());
        steps.extend(layers.map(|directory| SetupStep::MapLayers(directory.to_owned())));
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        if let Source::Image { layers, sub_path } = &volume.source {
            let (layers, sub_path) = (layers.clone(), sub_path.clone());
            steps.push(SetupStep::OpenImage { index, layers, sub_path, place: spec.root.snapshot.clone() });
        }
    }
    let owner = on_the_node(spec.ids.as_ref(), 0, 0);
    steps.push(SetupStep::MountRoot { root: spec.root.clone(), owner });
    steps.push(SetupStep::MakeDev { devices: spec.devices.clone(), owner });
    steps
}

fn build_tree(spec: &Spec) -> Vec<SetupStep> {
    let mut steps = vec![
        SetupStep::AttachRoot,
        SetupStep::MountSys { writable: spec.privileged },
        SetupStep::MountCgroups { groups: spec.cgroup.clone(), writable: spec.privileged },
        SetupStep::MountDev,
        SetupStep::MountSharedMemory,
        SetupStep::MountMessageQueues,
    ];
    // Making a procfs may take somebody in the joined pid namespace, who must not have the node's tree either. Only
    // where there is a procfs already may a user namespace make one, so that its processes cannot come second.
    let enters_first = spec.pid.is_joined() && spec.ids.is_none();
    let label = spec.process.label.clone().filter(|_| !spec.pid.is_joined()).map(SetupStep::OpenLabel);
    if enters_first {
        steps.push(SetupStep::EnterRoot);
    }
    steps.push(SetupStep::MountProc);
    for (index, volume) in spec.volumes.iter().enumerate() {
        steps.push(SetupStep::AttachVolume { index, target: volume.target.clone() });
    }
    steps.extend(spec.readonly_paths.iter().cloned().map(SetupStep::Protect));
    steps.extend(spec.masked_paths.iter().cloned().map(SetupStep::Mask));
    if spec.root.readonly {
        steps.push(SetupStep::ProtectRoot);
    }
    if !enters_first {
        steps.extend(label);
        steps.push(SetupStep::EnterRoot);
    }
    steps
}

fn become_program(process: &Process, is_first: bool, company: Company) -> Vec<SetupStep> {
    let user = &process.user;
    let mut steps = vec![if process.terminal {
        SetupStep::OpenTerminal { console: is_first, owner: user.clone(), size: process.terminal_size }
    } else {
        SetupStep::ConnectStreams
    }];
    steps.push(SetupStep::EnterDirectory(process.working_directory.clone()));
    steps.push(SetupStep::LimitCapabilities(process.capabilities));
    steps.push(SetupStep::BecomeUser(user.clone()));
    let filter = process.seccomp.clone().map(SetupStep::Filter);
    // Without no_new_privs only a privileged process may load a filter, so it comes before the last of the fall;
    // with it, as late as possible, so that the filter need not allow what the fall takes.
    let (early, late) = if process.no_new_privileges { (None, filter) } else { (filter, None) };
    let (capabilities, user) = (process.capabilities, user.uid);
    steps.push(match early {
        Some(_) => SetupStep::KeepRightToFilter { capabilities, user },
        None => SetupStep::SetCapabilities { capabilities, user },
    });
    steps.push(SetupStep::ResetSignals);
    if company == Company::Joined {
        steps.push(SetupStep::GoAmongOthers);
        // One's own label is set by oneself; the process that was before is another one.
        steps.extend(process.label.clone().map(SetupStep::OpenLabel));
    }
    steps.push(SetupStep::NewSession);
    if process.terminal {
        steps.push(SetupStep::TakeTerminal);
    }
    if let Some(filter) = early {
        steps.extend([filter, SetupStep::SetCapabilities { capabilities, user }]);
    }
    steps.extend(process.label.clone().map(SetupStep::ApplyLabel));
    steps.push(SetupStep::CloseDescriptors);
    if process.no_new_privileges {
        steps.push(SetupStep::NoNewPrivileges);
    }
    steps.extend(late);
    steps.push(SetupStep::Execute { args: process.args.clone(), env: process.env.clone() });
    steps
}

/// Whether a mount there could show the container a procfs that is none.
pub fn is_in_proc(path: &Path) -> bool {
    let clean: PathBuf =
        path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect();
    clean.starts_with("/proc") && !VIEWS_OF_THE_MACHINE.iter().any(|allowed| clean == Path::new(allowed))
}

/// What lxcfs and the like replace by what is true for one container.
const VIEWS_OF_THE_MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ids::IdRange;
    use crate::container::spec::{Stdin, Volume};

    fn spec(process: Process) -> Spec {
        Spec {
            process,
            root: Root {
                layers: vec!["/l/1".into()],
                snapshot: "/s".into(),
                readonly: true,
                label: None,
                is_kept: false,
            },
            volumes: vec![Volume {
                source: Source::Path("/v".into()),
                target: "/data".into(),
                access: Access::Read,
                propagation: Propagation::Private,
                map_ids: false,
            }],
            devices: Vec::new(),
            masked_paths: vec!["/proc/keys".into()],
            readonly_paths: vec!["/proc/sys".into()],
            pid: PidNamespace::Own,
            host_ipc: false,
            ids: None,
            privileged: false,
            cgroup: Membership::default(),
            stdin: Stdin::Null,
            log: None,
            log_limit: None,
            trace: false,
        }
    }

    fn position(steps: &[SetupStep], wanted: impl Fn(&SetupStep) -> bool) -> usize {
        steps.iter().position(wanted).expect("the step is there")
    }

    #[test]
    fn the_nodes_files_are_opened_before_and_attached_after_the_mounts_are_isolated() {
        let steps = container_setup(&spec(Process::default()));
        let isolated = position(&steps, |step| *step == SetupStep::IsolateMounts);
        assert!(position(&steps, |step| matches!(step, SetupStep::OpenVolume { .. })) < isolated);
        let attached = position(&steps, |step| matches!(step, SetupStep::AttachVolume { .. }));
        assert!(isolated < attached);
        // A volume cannot bring back what is masked, and is attached before the root turns read-only.
        assert!(attached < position(&steps, |step| matches!(step, SetupStep::Mask(_))));
        assert!(attached < position(&steps, |step| *step == SetupStep::ProtectRoot));
    }

    #[test]
    fn rights_are_given_up_in_the_root_and_the_program_comes_last() {
        for no_new_privileges in [false, true] {
            let process = Process { no_new_privileges, seccomp: Some("/f".into()), ..Process::default() };
            let steps = container_setup(&spec(process));
            let entered = position(&steps, |step| *step == SetupStep::EnterRoot);
            let fallen = position(&steps, |step| matches!(step, SetupStep::SetCapabilities { .. }));
            let filtered = position(&steps, |step| matches!(step, SetupStep::Filter(_)));
            assert!(entered < fallen);
            assert_eq!(no_new_privileges, fallen < filtered);
            assert!(matches!(steps.last(), Some(SetupStep::Execute { .. })));
        }
    }

    #[test]
    fn whoever_joins_others_has_given_up_everything_before() {
        let process = Process { terminal: true, no_new_privileges: true, ..Process::default() };
        let joining = Spec { pid: PidNamespace::Pod, ..spec(process.clone()) };
        for steps in [container_setup(&joining), process_setup(&process)] {
            let joined = position(&steps, |step| *step == SetupStep::GoAmongOthers);
            let before: Vec<String> = steps[..joined].iter().map(SetupStep::name).collect();
            let after: Vec<String> = steps[joined + 1..].iter().map(SetupStep::name).collect();
            assert!(before.contains(&"SetCapabilities".to_owned()), "{before:?}");
            let expected = ["NewSession", "TakeTerminal", "CloseDescriptors", "NoNewPrivileges", "Execute"];
            assert_eq!(after, expected);
        }
        let alone = container_setup(&spec(process));
        assert!(
            !alone.contains(&SetupStep::GoAmongOthers),
            "the first of a namespace of its own meets nobody"
        );
        // A right that is needed for the filter alone goes with the filter.
        let process = Process { seccomp: Some("/f".into()), ..Process::default() };
        let names: Vec<String> = process_setup(&process).iter().map(SetupStep::name).collect();
        let end = ["GoAmongOthers", "NewSession", "Filter", "SetCapabilities", "CloseDescriptors", "Execute"];
        assert!(names.ends_with(&end.map(str::to_owned)), "{names:?}");
    }

    #[test]
    fn a_procfs_of_others_is_made_in_the_containers_own_tree() {
        for (pid, enters_first) in [(PidNamespace::Own, false), (PidNamespace::Pod, true)] {
            let steps = container_setup(&Spec { pid, ..spec(Process::default()) });
            let entered = position(&steps, |step| *step == SetupStep::EnterRoot);
            let mounted = position(&steps, |step| *step == SetupStep::MountProc);
            assert_eq!(entered < mounted, enters_first);
            assert!(mounted < position(&steps, |step| matches!(step, SetupStep::Mask(_))));
        }
    }

    #[test]
    fn the_nodes_root_opens_and_the_pods_root_builds() {
        let range = || vec![IdRange { inside: 0, outside: 65_536, length: 65_536 }];
        let mut spec = spec(Process::default());
        spec.ids = Some(IdMap { uids: range(), gids: range() });
        let steps = container_setup(&spec);
        let entered = position(&steps, |step| *step == SetupStep::EnterUserNamespace { own_pids: true });
        for opened in ["OwnStreams", "OpenVolume", "MapLayers", "MountRoot", "MakeDev", "OpenSharedMemory"] {
            assert!(position(&steps, |step| step.name() == opened) < entered, "{opened}");
        }
        for built in ["MountProc", "MountCgroups", "AttachVolume", "EnterRoot", "BecomeUser"] {
            assert!(position(&steps, |step| step.name() == built) > entered, "{built}");
        }
        assert!(!steps.contains(&SetupStep::NewCgroupNamespace), "it comes with the others");
        let owned = steps.iter().find(|step| step.name() == "OwnStreams");
        assert_eq!(owned, Some(&SetupStep::OwnStreams(Owner { uid: 65_536, gid: 65_536 })));
    }

    #[test]
    fn nothing_may_be_mounted_over_proc() {
        assert!(is_in_proc(Path::new("/proc")) && is_in_proc(Path::new("/./proc/sys")));
        assert!(!is_in_proc(Path::new("/host/proc")) && !is_in_proc(Path::new("/process")));
        assert!(!is_in_proc(Path::new("/proc/meminfo")), "but what tells of the machine");
    }
}
