//! What a node is told about its images and about running short: flags that several commands share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use kubelet::eviction::threshold::{self, GracePeriod, Threshold};
use runtime::image::registry;

use crate::settings::{Place, registries};

/// Where images come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct ImageArgs {
    /// A folder with a directory for each registry host, with a hosts.toml in containerd's format or docker's
    /// certificates; may be given several times. HTTPS_PROXY, HTTP_PROXY and NO_PROXY count as well.
    #[arg(long, value_name = "DIR", default_values = registry::HOSTS_FOLDERS)]
    registry_config: Vec<PathBuf>,
    /// A folder of image archives that are imported at the start, for nodes that reach no registry [default:
    /// DATA_DIR/images].
    #[arg(long, value_name = "DIR")]
    image_archives: Option<PathBuf>,
}

impl ImageArgs {
    /// The same for a server whose working directory is another.
    pub(crate) fn absolute(&self) -> Result<ImageArgs> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).with_context(|| format!("cannot use the directory {}", path.display()))
        };
        Ok(ImageArgs {
            registry_config: self.registry_config.iter().map(absolute).collect::<Result<_>>()?,
            image_archives: self.image_archives.as_ref().map(absolute).transpose()?,
        })
    }

    /// The flags that say the same again.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let folders = self.registry_config.iter().map(|folder| flag("registry-config", folder));
        folders.chain(self.image_archives.iter().map(|folder| flag("image-archives", folder))).collect()
    }

    /// How registries are met.
    pub(crate) fn registries(&self) -> registry::Settings {
        registry::Settings { hosts_directories: self.registry_config.clone(), ..registries() }
    }

    /// The folder of archives.
    pub(crate) fn archives(&self, place: &Place) -> PathBuf {
        self.image_archives.clone().unwrap_or_else(|| place.archives())
    }
}

/// When pods are evicted, in upstream's flags.
#[derive(Clone, Debug, Args)]
pub(crate) struct EvictionArgs {
    /// What the node may not run short of, such as memory.available<100Mi,nodefs.available<5% [default: these two,
    /// and 5 % of nodefs.inodesFree, imagefs.available and imagefs.inodesFree]. Below that pods are evicted.
    #[arg(long, value_name = "THRESHOLDS", value_delimiter = ',', value_parser = Threshold::hard)]
    eviction_hard: Vec<Threshold>,
    /// What the node may run short of for a while, such as memory.available<300Mi; then pods are evicted with time
    /// to end.
    #[arg(long, value_name = "THRESHOLDS", value_delimiter = ',', value_parser = Threshold::hard)]
    eviction_soft: Vec<Threshold>,
    /// For how long, for each soft threshold, such as memory.available=1m30s.
    #[arg(long, value_name = "PERIODS", value_delimiter = ',', value_parser = GracePeriod::parse)]
    eviction_soft_grace_period: Vec<GracePeriod>,
    /// How many seconds pods have at most to end for a soft threshold; less than none for as many as they ask for.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    eviction_max_pod_grace_period: i32,
}

impl EvictionArgs {
    /// The same, if it makes sense.
    pub(crate) fn checked(&self) -> Result<EvictionArgs> {
        self.thresholds()?;
        Ok(self.clone())
    }

    /// The flags that say the same again.
    pub(crate) fn flags(&self) -> Vec<String> {
        let hard = self.eviction_hard.iter().map(|threshold| format!("--eviction-hard={threshold}"));
        let soft = self.eviction_soft.iter().map(|threshold| format!("--eviction-soft={threshold}"));
        let periods = self.eviction_soft_grace_period.iter();
        let periods = periods.map(|period| format!("--eviction-soft-grace-period={period}"));
        let longest = format!("--eviction-max-pod-grace-period={}", self.eviction_max_pod_grace_period);
        hard.chain(soft).chain(periods).chain([longest]).collect()
    }

    /// What the kubelet watches.
    pub(crate) fn thresholds(&self) -> Result<Vec<Threshold>> {
        let hard = self.eviction_hard.clone();
        let mut thresholds = if hard.is_empty() { threshold::defaults() } else { hard };
        let periods = &self.eviction_soft_grace_period;
        let soft = threshold::soft(&self.eviction_soft, periods, self.eviction_max_pod_grace_period);
        thresholds.extend(soft.context("--eviction-soft")?);
        Ok(thresholds)
    }
}
