//! What a container is for the security module of the kernel: AppArmor or SELinux, where the kernel has one.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use cri::v1;
use cri::v1::security_profile::ProfileType;

use super::spec::Label;

/// The profile of containers that ask for the runtime's own.
pub const DEFAULT_PROFILE: &str = "coracle-default";

const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
const PARSERS: [&str; 2] = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// What the kernel of this node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
}

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes.
    pub process: Option<Label>,
    /// Of its files.
    pub files: Option<String>,
}

impl Modules {
    /// Asks the kernel. AppArmor without the program that loads profiles is as good as none.
    pub fn detect() -> Modules {
        let apparmor = fs::read_to_string(APPARMOR).is_ok_and(|enabled| enabled.starts_with('Y'));
        let apparmor = apparmor && PARSERS.iter().any(|path| Path::new(path).exists());
        Modules { apparmor, selinux: Path::new(SELINUX).exists() }
    }
}

/// Decides what a container is labelled. A profile that nobody can enforce is an error rather than a wish;
/// SELinux options are as everywhere without meaning where there is no SELinux.
pub fn labels(security: &v1::LinuxContainerSecurityContext, modules: Modules) -> Result<Labels, String> {
    if let Some(profile) = apparmor_profile(security, modules)? {
        return Ok(Labels { process: Some(Label::AppArmor(profile)), files: None });
    }
    match security.selinux_options.as_ref().filter(|_| modules.selinux && !security.privileged) {
        Some(options) => Ok(selinux_labels(options)),
        None => Ok(Labels::default()),
    }
}

fn apparmor_profile(
    security: &v1::LinuxContainerSecurityContext,
    modules: Modules,
) -> Result<Option<String>, String> {
    let kind = security.apparmor.as_ref().map(v1::SecurityProfile::profile_type);
    match (modules.apparmor, kind) {
        (_, Some(ProfileType::Unconfined)) | (false, None) => Ok(None),
        (false, Some(_)) => Err("apparmor is not supported".to_owned()),
        // One that was named holds for the privileged too.
        (true, Some(ProfileType::Localhost)) => {
            let name = security.apparmor.as_ref().map(|profile| profile.localhost_ref.clone());
            let name = name.unwrap_or_default();
            let name = name.strip_prefix("localhost/").unwrap_or(&name).to_owned();
            if name.is_empty() {
                Err("apparmor profile Localhost needs a name".to_owned())
            } else {
                Ok(Some(name))
            }
        }
        (true, None | Some(ProfileType::RuntimeDefault)) if security.privileged => Ok(None),
        (true, None | Some(ProfileType::RuntimeDefault)) => Ok(Some(DEFAULT_PROFILE.to_owned())),
    }
}

fn selinux_labels(options: &v1::SeLinuxOption) -> Labels {
    let or =
        |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
    let (user, level) = (or(&options.user, "system_u"), or(&options.level, "s0"));
    let (role, kind) = (or(&options.role, "system_r"), or(&options.r#type, "container_t"));
    Labels {
        process: Some(Label::SeLinux(format!("{user}:{role}:{kind}:{level}"))),
        files: Some(format!("{user}:object_r:container_file_t:{level}")),
    }
}

/// Makes sure that the kernel knows a profile; ours is loaded when it is missed first.
pub fn ensure_loaded(profile: &str) -> io::Result<()> {
    if is_loaded(profile)? {
        return Ok(());
    }
    if profile != DEFAULT_PROFILE {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("apparmor profile not found {profile}")));
    }
    let program = PARSERS.into_iter().find(|path| Path::new(path).exists()).unwrap_or(PARSERS[0]);
    let mut parser = Command::new(program)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("apparmor_parser: {error}")))?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(default_profile().as_bytes())?;
    }
    let output = parser.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("apparmor_parser: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn is_loaded(profile: &str) -> io::Result<bool> {
    let known = fs::read_to_string(PROFILES)?;
    Ok(known.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile)))
}

/// What masks and read-only mounts forbid, forbidden once more for those who can change mounts.
fn default_profile() -> String {
    format!(
        "profile {DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {{\n  \
           file,\n  network,\n  capability,\n  umount,\n  deny mount,\n  \
           signal (receive) peer=unconfined,\n  signal (send,receive) peer={DEFAULT_PROFILE},\n  \
           ptrace (trace,read,tracedby,readby) peer={DEFAULT_PROFILE},\n  \
           unix,\n  dbus,\n  \
           deny /proc/{{kcore,kmem,mem,sysrq-trigger}} rwklx,\n  \
           deny /proc/{{acpi,asound,bus,irq,scsi}}/** w,\n  \
           deny /proc/sys/{{abi,debug,dev,fs,user,vm}}/** w,\n  \
           deny /proc/sys/kernel/{{[^sm]*,s[^he]*,m[^s]*}} w,\n  \
           deny /proc/sys/kernel/*/** w,\n  \
           deny /sys/{{block,bus,class,dev,devices,firmware,hypervisor,module,power}}/** w,\n  \
           deny /sys/firmware/** rwklx,\n  deny /sys/kernel/** wklx,\n  deny /sys/kernel/security/** rwklx,\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: ProfileType, name: &str) -> v1::LinuxContainerSecurityContext {
        let profile = v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() };
        v1::LinuxContainerSecurityContext { apparmor: Some(profile), ..Default::default() }
    }

    #[test]
    fn a_profile_needs_a_kernel_that_enforces_it() {
        let none = Modules::default();
        let refused = Err("apparmor is not supported".to_owned());
        assert_eq!(labels(&asked(ProfileType::Localhost, "web"), none), refused);
        assert_eq!(labels(&asked(ProfileType::RuntimeDefault, ""), none), refused);
        assert_eq!(labels(&asked(ProfileType::Unconfined, ""), none), Ok(Labels::default()));
        assert_eq!(labels(&Default::default(), none), Ok(Labels::default()));
    }

    #[test]
    fn everybody_has_our_profile_but_for_those_who_ask_otherwise() {
        let apparmor = Modules { apparmor: true, selinux: false };
        let profile =
            |security: &v1::LinuxContainerSecurityContext| labels(security, apparmor).unwrap().process;
        let named = |name: &str| Some(Label::AppArmor(name.to_owned()));
        assert_eq!(profile(&Default::default()), named(DEFAULT_PROFILE));
        assert_eq!(profile(&asked(ProfileType::Localhost, "localhost/web")), named("web"));
        assert_eq!(profile(&asked(ProfileType::Unconfined, "")), None);
        let privileged = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        assert_eq!(profile(&privileged), None);
    }

    #[test]
    fn selinux_options_fill_in_what_containers_usually_are() {
        let options = v1::SeLinuxOption { level: "s0:c1,c2".into(), ..Default::default() };
        let security =
            v1::LinuxContainerSecurityContext { selinux_options: Some(options), ..Default::default() };
        let found = labels(&security, Modules { apparmor: false, selinux: true }).unwrap();
        let process = Label::SeLinux("system_u:system_r:container_t:s0:c1,c2".to_owned());
        assert_eq!(found.process, Some(process));
        assert_eq!(found.files.as_deref(), Some("system_u:object_r:container_file_t:s0:c1,c2"));
        assert_eq!(labels(&security, Modules::default()), Ok(Labels::default()));
    }
}
