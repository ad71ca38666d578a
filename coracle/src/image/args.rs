//! What can be said after `coracle image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use runtime::image::Platform;

use crate::cli::PlaceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch images from registries.
    ///
    /// What is here is not fetched again, and what an earlier attempt has left is continued.
    Pull {
        /// Their names, such as `busybox:1.36` or `registry.local:5000/team/web@sha256:...`.
        #[arg(required = true)]
        names: Vec<String>,
        /// Take the image for another machine, such as `linux/arm64`.
        #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = platform)]
        platform: Option<Platform>,
        /// Print nothing but the names.
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        registry: RegistryArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Bring an image to a registry, as far as the registry lacks it.
    Push {
        /// The image.
        name: String,
        /// Where it goes [default: where its name says].
        to: Option<String>,
        #[command(flatten)]
        registry: RegistryArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the images.
    Ls {
        /// Only those of this repository, or this one.
        name: Option<String>,
        /// Show digests.
        #[arg(long)]
        digests: bool,
        /// Show ids in full length.
        #[arg(long)]
        no_trunc: bool,
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print all that is known of images, as JSON.
    Inspect {
        /// Names or ids.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show how an image was made.
    History {
        /// A name or an id.
        name: String,
        /// Show commands in full length.
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Give an image one more name.
    Tag {
        /// A name or an id.
        name: String,
        /// The new name.
        new_name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Take away names; an image without a name goes. Containers that run on it go on.
    Rm {
        /// Names, or ids for all names of an image.
        #[arg(required = true)]
        names: Vec<String>,
        /// Also when a container was made of it.
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Import the images in archives: what `docker save` writes, or an OCI layout as tar; plain, gzip or zstd.
    Import {
        /// The archives; `-` is the standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Call the image this, whatever the archive calls it.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Import the images in an archive, as `docker load` does.
    Load {
        /// The archive [default: the standard input].
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write images into an archive that docker, podman, skopeo and containerd can read. A name that ends in .gz or
    /// .zst packs it.
    Export {
        /// The archive; `-` is the standard output.
        file: PathBuf,
        /// The images.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write images into an archive, as `docker save` does.
    Save {
        /// The images.
        #[arg(required = true)]
        names: Vec<String>,
        /// The archive [default: the standard output].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove images that have no tag and that no container uses, and unfinished downloads.
    Prune {
        /// All images that no container uses.
        #[arg(short, long)]
        all: bool,
        /// Do not ask.
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show how much disk images and containers use.
    Df {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// How registries are met.
#[derive(Clone, Debug, Args)]
pub(crate) struct RegistryArgs {
    /// A folder with a directory for each registry host, with a hosts.toml in containerd's format or docker's
    /// certificates; may be given several times.
    #[arg(long, value_name = "DIR", default_values = runtime::image::registry::HOSTS_FOLDERS)]
    registry_config: Vec<PathBuf>,
    /// Docker's config.json, for credentials [default: $DOCKER_CONFIG/config.json or ~/.docker/config.json].
    #[arg(long, value_name = "FILE")]
    docker_config: Option<PathBuf>,
    /// A name and a password for the registry.
    #[arg(long, value_name = "USER:PASSWORD", env = "CORACLE_REGISTRY_CREDS", hide_env_values = true)]
    creds: Option<String>,
    /// Use HTTP without TLS.
    #[arg(long)]
    plain_http: bool,
    /// Do not verify the registry's certificate.
    #[arg(long)]
    insecure: bool,
    /// Trust this CA too (PEM file).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// What all registries have in common.
    pub(super) fn settings(&self) -> runtime::image::registry::Settings {
        let usual = crate::settings::registries();
        runtime::image::registry::Settings {
            hosts_directories: self.registry_config.clone(),
            docker_config: self.docker_config.clone().or(usual.docker_config),
            proxies: usual.proxies,
        }
    }

    /// What is wanted otherwise for this registry.
    pub(super) fn options(&self) -> anyhow::Result<runtime::image::registry::Options> {
        let credentials = match &self.creds {
            None => None,
            Some(text) => Some(
                runtime::image::registry::Credentials::parse(text)
                    .ok_or_else(|| anyhow::anyhow!("give --creds as USER:PASSWORD"))?,
            ),
        };
        Ok(runtime::image::registry::Options {
            credentials,
            plain_http: self.plain_http,
            skip_verify: self.insecure,
            ca: self.ca_file.clone(),
        })
    }
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "give a platform such as linux/amd64".to_owned())
}
