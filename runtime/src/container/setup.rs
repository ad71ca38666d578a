//! The steps from a bare process to a container: a plain list, in the order they are taken.
//!
//! The order is what keeps a container in: what belongs to the node is opened while the node's tree is
//! still there (volumes, the writable layer); then the mounts are cut off and the container's tree is built
//! and entered; then rights are given up, one after the other, until only the user's program is left.

use std::path::{Path, PathBuf};

use super::spec::{Access, Capabilities, DeviceNode, Membership, Process, Root, Spec, User, Volume};
use crate::sys::mount::Propagation;

/// One step; [`super::carry_out`] takes it.
#[derive(Clone, Debug, PartialEq)]
pub enum SetupStep {
    /// Moves into the version 1 control groups. (Into the version 2 one a process is born.)
    JoinCgroups(Vec<PathBuf>),
    /// Sets how likely the process is chosen when memory runs out.
    SetOomScore(i32),
    /// Opens a volume of the node, detached.
    OpenVolume {
        /// On the node.
        source: PathBuf,
        /// Whether it can be written.
        access: Access,
        /// How later mounts spread.
        propagation: Propagation,
    },
    /// Cuts all mounts off from the node's.
    IsolateMounts,
    /// Sees its own control group as the root of all.
    NewCgroupNamespace,
    /// Puts image layers and writable layer together.
    MountRoot(Root),
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
    /// A new `/dev` with the devices that every container has, and these.
    MountDev(Vec<DeviceNode>),
    /// The pod's shared memory, or the node's, at `/dev/shm`.
    MountSharedMemory {
        /// The node's.
        of_host: bool,
    },
    /// POSIX message queues of the IPC namespace, at `/dev/mqueue`.
    MountMessageQueues,
    /// Makes the volume opened as number `index` visible at its place.
    AttachVolume {
        /// In the order of opening.
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
    /// Makes the container's tree the only one.
    EnterRoot,
    /// Becomes the leader of a session of its own.
    NewSession,
    /// Opens a terminal of the container, and hands the other side to the shim.
    OpenTerminal {
        /// Whether it is the console of the container too.
        console: bool,
        /// Whose it is.
        owner: User,
        /// Its first size, if that is known: columns and rows.
        size: Option<(u16, u16)>,
    },
    /// Connects the standard streams to what the shim has prepared.
    ConnectStreams {
        /// Whose they are.
        owner: User,
    },
    /// Limits the number of open files.
    LimitFiles(u64),
    /// Goes to the directory, making it when it is missing.
    EnterDirectory(PathBuf),
    /// Gives up capabilities that neither the process nor its descendants may ever have.
    LimitCapabilities(Capabilities),
    /// Loads a filter of system calls while still having the right to.
    Filter(PathBuf),
    /// Becomes the user.
    BecomeUser(User),
    /// Keeps the capabilities meant for it and no other.
    SetCapabilities {
        /// What is meant for it.
        capabilities: Capabilities,
        /// For whom: root holds them by itself, others by inheritance.
        user: u32,
    },
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

/// The steps that make a container and start its first process.
pub fn container_setup(spec: &Spec) -> Vec<SetupStep> {
    let mut steps = join(&spec.cgroup, &spec.process);
    let open = |volume: &Volume| SetupStep::OpenVolume {
        source: volume.source.clone(),
        access: volume.access,
        propagation: volume.propagation,
    };
    steps.extend(spec.volumes.iter().map(open));
    steps.push(SetupStep::IsolateMounts);
    steps.push(SetupStep::NewCgroupNamespace);
    steps.push(SetupStep::MountRoot(spec.root.clone()));
    steps.push(SetupStep::MountProc);
    steps.push(SetupStep::MountSys { writable: spec.privileged });
    steps.push(SetupStep::MountCgroups { groups: spec.cgroup.clone(), writable: spec.privileged });
    steps.push(SetupStep::MountDev(spec.devices.clone()));
    steps.push(SetupStep::MountSharedMemory { of_host: spec.host_ipc });
    steps.push(SetupStep::MountMessageQueues);
    let attach =
        |(index, volume): (usize, &Volume)| SetupStep::AttachVolume { index, target: volume.target.clone() };
    steps.extend(spec.volumes.iter().enumerate().map(attach));
    steps.extend(spec.readonly_paths.iter().cloned().map(SetupStep::Protect));
    steps.extend(spec.masked_paths.iter().cloned().map(SetupStep::Mask));
    if spec.root.readonly {
        steps.push(SetupStep::ProtectRoot);
    }
    steps.push(SetupStep::EnterRoot);
    steps.extend(become_program(&spec.process, true));
    steps
}

/// The steps that start one more process in a container whose namespaces have been joined.
pub fn process_setup(process: &Process) -> Vec<SetupStep> {
    become_program(process, false)
}

/// The steps of a process before it joins the namespaces of a running container: the node's own
/// files, such as control groups, are out of sight afterwards.
pub fn join(groups: &Membership, process: &Process) -> Vec<SetupStep> {
    let directories = groups.split.iter().map(|(_, directory)| directory.clone()).collect();
    let mut steps = vec![SetupStep::JoinCgroups(directories)];
    steps.extend(process.oom_score_adj.map(SetupStep::SetOomScore));
    steps
}

fn become_program(process: &Process, is_first: bool) -> Vec<SetupStep> {
    let user = &process.user;
    let mut steps = vec![SetupStep::NewSession];
    steps.push(if process.terminal {
        SetupStep::OpenTerminal { console: is_first, owner: user.clone(), size: process.terminal_size }
    } else {
        SetupStep::ConnectStreams { owner: user.clone() }
    });
    steps.extend(process.open_files.map(SetupStep::LimitFiles));
    steps.push(SetupStep::EnterDirectory(process.working_directory.clone()));
    let filter = process.seccomp.clone().map(SetupStep::Filter);
    // Without no_new_privs only a privileged process may load a filter, so it comes before the fall;
    // with it, as late as possible, so that the filter need not allow what the fall takes.
    let (early, late) = if process.no_new_privileges { (None, filter) } else { (filter, None) };
    steps.extend(early);
    steps.push(SetupStep::LimitCapabilities(process.capabilities));
    steps.push(SetupStep::BecomeUser(user.clone()));
    steps.push(SetupStep::SetCapabilities { capabilities: process.capabilities, user: user.uid });
    steps.push(SetupStep::ResetSignals);
    steps.push(SetupStep::CloseDescriptors);
    if process.no_new_privileges {
        steps.push(SetupStep::NoNewPrivileges);
    }
    steps.extend(late);
    steps.push(SetupStep::Execute { args: process.args.clone(), env: process.env.clone() });
    steps
}

/// Whether a path is `/proc` or below: mounts there could show the container a procfs that is none.
pub fn is_in_proc(path: &Path) -> bool {
    let clean: PathBuf =
        path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect();
    clean.starts_with("/proc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::spec::{PidNamespace, Stdin};

    fn spec(process: Process) -> Spec {
        Spec {
            process,
            root: Root { layers: vec!["/l".into()], snapshot: "/s".into(), readonly: true },
            volumes: vec![Volume {
                source: "/v".into(),
                target: "/data".into(),
                access: Access::Read,
                propagation: Propagation::Private,
            }],
            devices: Vec::new(),
            masked_paths: vec!["/proc/keys".into()],
            readonly_paths: vec!["/proc/sys".into()],
            pid: PidNamespace::Own,
            host_ipc: false,
            privileged: false,
            cgroup: Membership::default(),
            stdin: Stdin::Null,
            log: None,
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
            let fallen = position(&steps, |step| matches!(step, SetupStep::BecomeUser(_)));
            let filtered = position(&steps, |step| matches!(step, SetupStep::Filter(_)));
            assert!(entered < fallen);
            assert_eq!(no_new_privileges, fallen < filtered);
            assert!(matches!(steps.last(), Some(SetupStep::Execute { .. })));
        }
    }

    #[test]
    fn nothing_may_be_mounted_over_proc() {
        assert!(is_in_proc(Path::new("/proc")) && is_in_proc(Path::new("/./proc/sys")));
        assert!(!is_in_proc(Path::new("/host/proc")) && !is_in_proc(Path::new("/process")));
    }
}
