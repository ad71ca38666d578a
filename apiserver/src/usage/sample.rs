//! One look at a node: what its kubelet's `/metrics/resource` says. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

/// What a node and its containers had used up when somebody looked.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) taken: Timestamp,
    pub(super) node: Point,
    /// By namespace, pod and container.
    pub(super) containers: BTreeMap<[String; 3], Point>,
}

/// What one of them had used up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// When it was counted, in seconds since 1970; 0 when nobody counted.
    pub(super) time: f64,
    /// Since its start.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    /// When it started, in seconds since 1970; 0 when that is not known.
    pub(super) start: f64,
}

impl Sample {
    /// What a page says that came in at `taken`. Lines that are not understood are about something else.
    pub(super) fn parse(page: &str, taken: Timestamp) -> Sample {
        let mut sample = Sample { taken, node: Point::default(), containers: BTreeMap::new() };
        let otherwise = taken.as_millisecond() as f64 / 1000.0;
        for series in page.lines().filter_map(Series::parse) {
            let (metric, point) = match series.name.split_once('_') {
                Some(("node", metric)) => (metric, &mut sample.node),
                Some(("container", metric)) => {
                    (metric, sample.containers.entry(series.container()).or_default())
                }
                _ => continue,
            };
            match metric {
                "cpu_usage_seconds_total" => {
                    point.cpu_seconds = Some(series.value);
                    point.time = series.time.unwrap_or(otherwise);
                }
                "memory_working_set_bytes" => point.memory_bytes = Some(series.value),
                "start_time_seconds" => point.start = series.value,
                _ => {}
            }
        }
        sample
    }
}

/// A line of the text format: `name{label="value",...} number [milliseconds]`.
struct Series<'a> {
    name: &'a str,
    labels: HashMap<&'a str, String>,
    value: f64,
    time: Option<f64>,
}

impl Series<'_> {
    fn parse(line: &str) -> Option<Series<'_>> {
        let end = line.find(['{', ' ']).filter(|_| !line.starts_with('#'))?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(labels) => labels_of(labels)?,
            None => (HashMap::new(), rest),
        };
        let mut numbers = rest.split_whitespace();
        let value = numbers.next()?.parse().ok()?;
        let time = numbers.next().and_then(|text| text.parse::<f64>().ok()).map(|time| time / 1000.0);
        Some(Series { name, labels, value, time })
    }

    fn container(&self) -> [String; 3] {
        ["namespace", "pod", "container"].map(|label| self.labels.get(label).cloned().unwrap_or_default())
    }
}

/// Labels up to the closing brace, and what stands behind it.
fn labels_of(mut text: &str) -> Option<(HashMap<&str, String>, &str)> {
    let mut labels = HashMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (index, '"') => break index,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, character) => value.push(character),
            }
        };
        labels.insert(name, value);
        text = &rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="c",namespace="shop",pod="web"} 1.5 1700000001500
container_memory_working_set_bytes{container="c",namespace="shop",pod="web"} 4096 1700000001500
container_start_time_seconds{container="c",namespace="shop",pod="web"} 1.7e+09
node_cpu_usage_seconds_total 12.25
node_memory_working_set_bytes 1048576
pod_memory_working_set_bytes{namespace="shop",pod="web"} 8192
odd{quote="a\"},b\\",other="x"} 1
resource_scrape_error 0
"#;

    #[test]
    fn a_page_is_read_line_by_line() {
        let taken = "2026-01-01T00:00:00Z".parse().unwrap();
        let sample = Sample::parse(PAGE, taken);
        assert_eq!((sample.node.cpu_seconds, sample.node.memory_bytes), (Some(12.25), Some(1_048_576.0)));
        assert_eq!(sample.node.time, taken.as_second() as f64);
        let container = sample.containers[&["shop", "web", "c"].map(String::from)];
        let expected =
            Point { time: 1_700_000_001.5, cpu_seconds: Some(1.5), memory_bytes: Some(4096.0), start: 1.7e9 };
        assert_eq!(container, expected);
        assert_eq!(sample.containers.len(), 1);
    }

    #[test]
    fn escaped_quotes_do_not_end_a_label() {
        let series = Series::parse(r#"odd{quote="a\"},b\\",other="x"} 1 2000"#).unwrap();
        assert_eq!((series.labels["quote"].as_str(), series.labels["other"].as_str()), ("a\"},b\\", "x"));
        assert_eq!((series.value, series.time), (1.0, Some(2.0)));
        assert!(Series::parse("broken{a=\"b").is_none());
    }
}
