//! What fairness looks like from inside, as upstream's debug pages show it.

use std::{fmt::Write as _, sync::atomic::Ordering};

use super::{config::Config, level::Level};

/// The page behind `/debug/api_priority_and_fairness/NAME`.
pub(super) fn page(config: &Config, name: &str) -> Option<String> {
    let rows = match name {
        "dump_priority_levels" => levels(config),
        "dump_queues" => queues(config),
        "dump_requests" => requests(config),
        _ => return None,
    };
    Some(aligned(&rows))
}

fn all(config: &Config) -> impl Iterator<Item = &Level> {
    config.levels.values().map(|known| &*known.level)
}

fn words(header: &str) -> Vec<String> {
    header.split(", ").map(str::to_string).collect()
}

fn levels(config: &Config) -> Vec<Vec<String>> {
    let header = "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests";
    let row = |level: &Level| {
        let executing = level.totals.executing.load(Ordering::Relaxed);
        let active = level.look(|queues| {
            queues.glances().filter(|glance| glance.executing > 0 || glance.waiting > 0).count()
        });
        let waiting = level.look(|queues| queues.counts().1).unwrap_or_default();
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed).to_string();
        vec![
            level.name.clone(),
            active.unwrap_or_default().to_string(),
            (executing == 0 && waiting == 0).to_string(),
            false.to_string(),
            waiting.to_string(),
            executing.to_string(),
            count(&level.totals.dispatched),
            count(&level.totals.rejected),
            count(&level.totals.timed_out),
            count(&level.totals.cancelled),
        ]
    };
    std::iter::once(words(header)).chain(all(config).map(row)).collect()
}

fn queues(config: &Config) -> Vec<Vec<String>> {
    let header = "PriorityLevelName, Index, PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR, InitialSeatsSum";
    let mut rows = vec![words(header)];
    for level in all(config) {
        let glances = level.look(|queues| queues.glances().collect::<Vec<_>>()).unwrap_or_default();
        rows.extend(glances.iter().enumerate().map(|(index, glance)| {
            vec![
                level.name.clone(),
                index.to_string(),
                glance.waiting.to_string(),
                glance.executing.to_string(),
                glance.seats_in_use.to_string(),
                format!("{:.8}ss", glance.virtual_start),
                glance.waiting_seats.to_string(),
            ]
        }));
    }
    rows
}

fn requests(config: &Config) -> Vec<Vec<String>> {
    let header = "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, Waited, InitialSeats";
    let mut rows = vec![words(header)];
    for level in all(config) {
        let waiting = level.look(|queues| {
            let mut rows = Vec::new();
            for index in 0..queues.glances().count() {
                rows.extend(queues.waiting_in(index).enumerate().map(|(place, waiting)| {
                    vec![
                        level.name.clone(),
                        waiting.ticket.schema.to_string(),
                        index.to_string(),
                        place.to_string(),
                        waiting.ticket.flow.to_string(),
                        format!("{:?}", waiting.ticket.since.elapsed()),
                        waiting.seats.to_string(),
                    ]
                }));
            }
            rows
        });
        rows.extend(waiting.unwrap_or_default());
    }
    rows
}

/// Columns below each other, each word but the last with a comma.
fn aligned(rows: &[Vec<String>]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_last = index + 1 == row.len();
            let cell = if is_last { cell.clone() } else { format!("{cell},") };
            let padding = if is_last { 0 } else { width + 2 };
            // Writing to a String cannot fail.
            write!(text, "{cell:<padding$}").unwrap_or_default();
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_header_and_a_row_for_each_level() {
        let config = Config::of(&[], &[], 600, None);
        let page = |name: &str| page(&config, name).unwrap();
        let levels = page("dump_priority_levels");
        assert!(levels.starts_with("PriorityLevelName, ActiveQueues, "), "{levels}");
        assert_eq!(levels.lines().count(), 3);
        assert_eq!(page("dump_queues").lines().count(), 2);
        assert_eq!(page("dump_requests").lines().count(), 1);
        assert_eq!(super::page(&config, "dump_everything"), None);
    }
}
