//! `coracle ctr`: containers by hand, at the place that the flags name.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{cli::CtrArgs, settings::Place};

/// Carries out one of ctr's commands; it tells its failures itself.
pub(crate) fn run(args: &CtrArgs) -> Result<ExitCode> {
    Ok(ctr::run(&place(&Place::new(&args.place)?, args.bridge_cidr)?, &args.command))
}

/// Where the containers of a place are.
pub(crate) fn place(place: &Place, cidr: net::Cidr) -> Result<ctr::Place> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut words = vec![program.display().to_string(), "ctr".to_owned()];
    words.extend(place.flags());
    words.push(format!("--bridge-cidr={cidr}"));
    Ok(ctr::Place {
        data: place.data_dir.join("ctr"),
        run: place.run_dir.join("ctr"),
        images: place.runtime_root(),
        cgroup_parent: format!("{}-ctr", place.cgroup_parent),
        cidr,
        program: words,
    })
}
