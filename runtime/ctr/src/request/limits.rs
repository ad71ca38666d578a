//! How much a container may use.

use anyhow::{Context, Result, bail};
use cri::v1;

use crate::definition::Definition;

/// Below this nothing starts; docker's words and number.
const LEAST_MEMORY: i64 = 6 << 20;

/// Bytes, with a unit or without: `64m`.
pub fn memory(given: &str) -> Result<i64> {
    let invalid =
        || format!("invalid argument \"{given}\" for \"-m, --memory\" flag: invalid size: '{given}'");
    let text = given.trim().to_ascii_lowercase();
    let text = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k')) => (&text[..at], 1 << 10),
        Some((at, 'm')) => (&text[..at], 1 << 20),
        Some((at, 'g')) => (&text[..at], 1 << 30),
        Some((at, 't')) => (&text[..at], 1_i64 << 40),
        _ => (text, 1),
    };
    let number: f64 = number.trim().parse().ok().with_context(invalid)?;
    let bytes = number * unit as f64;
    if !(0.0..1e18).contains(&bytes) {
        bail!(invalid());
    }
    if (bytes as i64) < LEAST_MEMORY {
        bail!("Minimum memory limit allowed is 6MB");
    }
    Ok(bytes as i64)
}

/// Thousandths of a processor.
pub fn milli_cpus(given: &str) -> Result<i64> {
    let invalid = || format!("invalid argument \"{given}\" for \"--cpus\" flag: not a number of processors");
    let number: f64 = given.parse().ok().with_context(invalid)?;
    if !(0.01..=10_000.0).contains(&number) {
        bail!("Range of CPUs is from 0.01 to the machine's number, {given} is not");
    }
    Ok((number * 1000.0).round() as i64)
}

/// The limits in CRI's words.
pub fn resources(definition: &Definition) -> v1::LinuxContainerResources {
    const PERIOD: i64 = 100_000;
    let mut resources = v1::LinuxContainerResources {
        memory_limit_in_bytes: definition.memory.unwrap_or_default(),
        ..Default::default()
    };
    if let Some(milli_cpus) = definition.milli_cpus {
        (resources.cpu_period, resources.cpu_quota) = (PERIOD, milli_cpus * PERIOD / 1000);
    }
    if let Some(limit) = definition.pids_limit {
        resources.unified.insert("pids.max".to_owned(), limit.to_string());
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let bytes =
            ["64m", "64MB", "67108864", "1.5g", "65536k", "64MiB"].map(|given| memory(given).unwrap());
        assert_eq!(bytes, [64 << 20, 64 << 20, 64 << 20, 3 << 29, 64 << 20, 64 << 20]);
        for given in ["", "m", "12x", "-5m", "nan", "1e30g"] {
            assert!(memory(given).is_err(), "{given}");
        }
    }

    #[test]
    fn processors_have_fractions() {
        assert_eq!(milli_cpus("0.5").unwrap(), 500);
        assert_eq!(milli_cpus("2").unwrap(), 2000);
        for given in ["0", "-1", "x", "nan"] {
            assert!(milli_cpus(given).is_err(), "{given}");
        }
    }
}
