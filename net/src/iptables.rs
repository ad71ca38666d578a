//! Packet filter rules, loaded as transactions.
//!
//! Rules are written as `iptables-restore --noflush` input: chains that the text declares are emptied and
//! filled in one step, all others are left alone. Single-rule questions go through the `iptables` crate.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

/// Why rules could not be read or loaded.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The program is missing or cannot be started.
    #[error("cannot run {program}: install the iptables package")]
    Start {
        /// What was to be run.
        program: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The kernel or the program refused.
    #[error("{program} failed: {message}")]
    Refused {
        /// What was run.
        program: &'static str,
        /// Its own words, with the line of the input where it names one.
        message: String,
    },
    /// A single rule could not be asked for or changed.
    #[error("cannot {what}: {message}")]
    Rule {
        /// What was tried.
        what: String,
        /// The program's words.
        message: String,
    },
}

/// Loads `input` (one or more `*table ... COMMIT` parts) in one transaction per table.
pub async fn restore(input: &str) -> Result<(), IptablesError> {
    run("iptables-restore", &["--noflush", "-w", "10"], Some(input)).await.map(drop)
}

/// The rules of one table in `iptables-save` form.
pub async fn save(table: &str) -> Result<String, IptablesError> {
    run("iptables-save", &["-t", table], None).await
}

/// Makes sure that `rule` stands in a chain, first in it where it has to be added.
pub fn ensure_first(table: &str, chain: &str, rule: &str) -> Result<(), IptablesError> {
    let fault = |error: Box<dyn std::error::Error>| IptablesError::Rule {
        what: format!("add `{rule}` to chain {chain} of table {table}"),
        message: error.to_string(),
    };
    let tables = iptables::new(false).map_err(fault)?;
    if !tables.exists(table, chain, rule).map_err(fault)? {
        tables.insert(table, chain, rule, 1).map_err(fault)?;
    }
    Ok(())
}

/// The names of the chains that a saved table declares.
pub fn chains(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next())
}

/// The text that takes away every rule that jumps to one of the chains picked by `is_ours`, then the chains
/// themselves; `None` when there are none. `saved` is the table as `iptables-save` prints it.
pub fn removal(table: &str, saved: &str, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    let ours: Vec<&str> = chains(saved).filter(|chain| is_ours(chain)).collect();
    if ours.is_empty() {
        return None;
    }
    let mut text = format!("*{table}\n");
    for chain in &ours {
        text.push_str(&format!(":{chain} - [0:0]\n"));
    }
    for line in saved.lines() {
        let Some(rule) = line.strip_prefix("-A ") else { continue };
        let from_ours = rule.split_whitespace().next().is_some_and(&is_ours);
        let jumps_to_ours = ours.iter().any(|chain| rule.split_whitespace().any(|word| word == *chain));
        if !from_ours && jumps_to_ours {
            text.push_str(&format!("-D {rule}\n"));
        }
    }
    for chain in &ours {
        text.push_str(&format!("-X {chain}\n"));
    }
    text.push_str("COMMIT\n");
    Some(text)
}

async fn run(program: &'static str, args: &[&str], input: Option<&str>) -> Result<String, IptablesError> {
    let start = |source| IptablesError::Start { program, source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that refuses early closes its end; its own message says more than a broken pipe.
        if let Err(error) = stdin.write_all(input.as_bytes()).await {
            tracing::debug!(program, %error, "input was not read to its end");
        }
    }
    let output = child.wait_with_output().await.map_err(start)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(IptablesError::Refused { program, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A KUBE-SERVICES -j RETURN
COMMIT
";

    #[test]
    fn removal_takes_our_chains_and_the_jumps_to_them_and_nothing_else() {
        let text = removal("nat", SAVED, |chain| chain.starts_with("KUBE-")).unwrap();
        assert_eq!(
            text,
            "*nat\n:KUBE-SERVICES - [0:0]\n\
             -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -X KUBE-SERVICES\nCOMMIT\n"
        );
    }

    #[test]
    fn nothing_of_ours_needs_no_removal() {
        assert_eq!(removal("nat", SAVED, |chain| chain.starts_with("CNI-")), None);
    }
}
