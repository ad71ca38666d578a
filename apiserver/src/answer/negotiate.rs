//! Which form of an answer a client accepts: the `Accept` header, `pretty`, compression.

use api::Status;
use http::{HeaderMap, header};

use crate::request::Query;

/// How the answer is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
}

/// What of an object the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object.
    #[default]
    Whole,
    /// Cells to print.
    Table,
    /// Its metadata.
    Metadata,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// With line breaks, for people.
    pub(crate) pretty: bool,
    /// Whether the client can unpack.
    pub(crate) gzip: bool,
}

/// One alternative in an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MediaRange {
    /// Such as `application/json`.
    pub(crate) name: String,
    parameters: Vec<(String, String)>,
}

impl Wanted {
    /// The best form that client and server know; 406 when there is none.
    pub(crate) fn read(headers: &HeaderMap, query: &Query) -> Result<Wanted, Status> {
        let ranges = accepted(headers);
        let wanted = if ranges.is_empty() { Some(Wanted::default()) } else { ranges.iter().find_map(known) };
        let wanted = wanted.ok_or_else(not_acceptable)?;
        Ok(Wanted { pretty: wants_pretty(headers, query), gzip: accepts_gzip(headers), ..wanted })
    }
}

impl Wanted {
    /// The same for documents that come as JSON whatever the client hopes for, as upstream's discovery.
    pub(crate) fn lenient(headers: &HeaderMap, query: &Query) -> Result<Wanted, Status> {
        let ranges = accepted(headers);
        let is_yaml = ranges.first().is_some_and(|range| range.name == "application/yaml");
        let encoding = if is_yaml { Encoding::Yaml } else { Encoding::Json };
        if !ranges.is_empty() && !ranges.iter().any(|range| is_yaml || range.includes("application/json")) {
            return Err(not_acceptable());
        }
        Ok(Wanted { encoding, pretty: wants_pretty(headers, query), ..Wanted::default() })
    }
}

impl MediaRange {
    /// One of its parameters.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it means `name`, by itself or by a wildcard.
    pub(crate) fn includes(&self, name: &str) -> bool {
        self.name == name
            || self.name == "*/*"
            || (self.name == "application/*" && name.starts_with("application/"))
    }

    fn parse(text: &str) -> Option<(MediaRange, f32)> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
        let parameters: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_string()))
            .collect();
        let range = MediaRange { name, parameters };
        let quality = range.parameter("q").and_then(|quality| quality.parse().ok()).unwrap_or(1.0);
        Some((range, quality))
    }
}

/// What a client accepts, best first.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<MediaRange> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges: Vec<(MediaRange, f32)> =
        values.flat_map(|value| value.split(',')).filter_map(MediaRange::parse).collect();
    ranges.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranges.into_iter().filter(|(_, quality)| *quality > 0.0).map(|(range, _)| range).collect()
}

/// The form that a range asks for, if this server has it.
fn known(range: &MediaRange) -> Option<Wanted> {
    let encoding = match range.name.as_str() {
        "application/yaml" => Encoding::Yaml,
        _ if range.includes("application/json") => Encoding::Json,
        _ => return None,
    };
    let is_meta = range.parameter("g") == Some("meta.k8s.io") && range.parameter("v") == Some("v1");
    let form = match range.parameter("as") {
        None | Some("") => Form::Whole,
        Some("Table") if is_meta => Form::Table,
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_meta => Form::Metadata,
        Some(_) => return None,
    };
    Some(Wanted { encoding, form, ..Wanted::default() })
}

fn not_acceptable() -> Status {
    let known = "application/json, application/yaml";
    Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {known}"))
}

/// Asked for, or a browser or curl shows the answer to a person.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.get("pretty").is_some() {
        return query.is_true("pretty");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|encoding| encoding.trim().starts_with("gzip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Result<Wanted, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Wanted::read(&headers, &Query::default())
    }

    #[test]
    fn the_first_known_alternative_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(wanted(kubectl).unwrap().form, Form::Table);
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(wanted(client_go).unwrap(), Wanted::default());
        assert_eq!(wanted("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(wanted("*/*").unwrap(), Wanted::default());
        assert_eq!(wanted("application/yaml;q=0.1, application/json").unwrap().encoding, Encoding::Json);
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(wanted(metadata).unwrap().form, Form::Metadata);
    }

    #[test]
    fn what_the_server_does_not_have_is_not_acceptable() {
        for accept in
            ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=Picture;v=v1;g=x"]
        {
            assert_eq!(wanted(accept).unwrap_err().code, 406, "{accept}");
        }
    }
}
