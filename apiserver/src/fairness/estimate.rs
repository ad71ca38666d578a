//! How many seats a request takes. Pure.

use crate::request::{Query, RequestInfo};

/// Upstream's most.
const MOST: usize = 10;
/// So many objects of a list are worth a seat.
const OBJECTS: usize = 100;
/// So many watchers that a write has to be told to are worth a seat. More than upstream's: they share its bytes.
const WATCHERS: usize = 100;

/// What is known of the resource that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// How many objects there are.
    pub(crate) objects: usize,
    /// How many watch them.
    pub(crate) watchers: usize,
}

/// Whether it takes to know the crowd.
pub(super) fn depends_on_crowd(info: &RequestInfo, query: &Query) -> bool {
    match info.verb {
        "list" => true,
        "watch" => query.is_true("sendInitialEvents"),
        "create" | "update" | "patch" | "delete" => true,
        _ => false,
    }
}

/// The seats of a request.
pub(super) fn seats(info: &RequestInfo, query: &Query, crowd: Crowd) -> u32 {
    let seats = match info.verb {
        // One object, found by its name.
        "list" | "watch" if !info.name.is_empty() => 1,
        "list" => listed(query, crowd.objects).div_ceil(OBJECTS),
        "watch" if query.is_true("sendInitialEvents") => crowd.objects.div_ceil(OBJECTS),
        "create" | "update" | "patch" | "delete" => crowd.watchers.div_ceil(WATCHERS),
        _ => 1,
    };
    u32::try_from(seats.clamp(1, MOST)).unwrap_or(1)
}

/// How many objects are looked at for a list.
fn listed(query: &Query, objects: usize) -> usize {
    let limit = query.get("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
    match limit {
        None => objects,
        Some(limit) if query.get("labelSelector").is_none() && query.get("fieldSelector").is_none() => {
            limit.min(objects)
        }
        // Some of them will not be meant.
        Some(limit) => (limit.saturating_mul(2)).min(objects),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn seats_grow_with_what_there_is_to_do() {
        let list = "/api/v1/pods";
        for (method, uri, objects, watchers, expected) in [
            (Method::GET, "/api/v1/namespaces/a/pods/x", 5000, 5000, 1),
            (Method::GET, list, 0, 0, 1),
            (Method::GET, list, 250, 0, 3),
            (Method::GET, list, 100_000, 0, 10),
            (Method::GET, "/api/v1/pods?limit=100", 5000, 0, 1),
            (Method::GET, "/api/v1/pods?limit=100&labelSelector=a", 5000, 0, 2),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", 5000, 0, 1),
            (Method::GET, "/api/v1/pods?watch=1", 5000, 0, 1),
            (
                Method::GET,
                "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                500,
                0,
                5,
            ),
            (Method::POST, "/api/v1/namespaces/a/pods", 5000, 50, 1),
            (Method::POST, "/api/v1/namespaces/a/pods", 0, 500, 5),
        ] {
            let uri: http::Uri = uri.parse().unwrap();
            let query = Query::of(&uri).unwrap();
            let info = RequestInfo::read(&method, &uri, &query);
            assert_eq!(seats(&info, &query, Crowd { objects, watchers }), expected, "{method} {uri}");
        }
    }
}
