//! What containers can make of their logs, as a target for a fuzzer.

#[cfg(test)]
#[path = "../../../fuzz/driver.rs"]
mod driver;

use super::read::read_now;

/// Reads a log whole and its last lines: those are the end of the whole.
pub fn read(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("0.log");
    std::fs::write(&path, data).expect("a file can be written");
    let whole = read_now(&path, None).expect("a log can be read");
    let lines = data.first().map_or(0, |byte| usize::from(*byte % 8));
    let end = read_now(&path, Some(lines)).expect("a log can be read");
    assert!(whole.ends_with(&end), "the last {lines} lines are not the end");
}

#[cfg(test)]
mod tests {
    use super::driver;

    #[test]
    fn every_log_is_read() {
        driver::run("log", super::read);
    }
}
