//! Which form of an answer a client accepts: the `Accept` header, `pretty`, compression.

use api::{Status, protobuf};
use http::{HeaderMap, header};

use crate::request::Query;

/// How the answer is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// In the order in which upstream prefers them.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

impl Encoding {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => protobuf::CONTENT_TYPE,
        }
    }

    /// Whether events can follow one another in it.
    fn has_stream(self) -> bool {
        self != Encoding::Yaml
    }
}

/// What a route has to offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Whether its objects have messages; their metadata always has.
    pub(crate) objects_in_protobuf: bool,
    /// Whether it has their metadata alone.
    pub(crate) metadata: bool,
    /// Whether it has tables of them.
    pub(crate) tables: bool,
    /// Whether it is a watch.
    pub(crate) is_stream: bool,
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

/// How many objects a client that wants metadata expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    One,
    List,
}

/// The version of a Table, or of an object's metadata alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MetaVersion {
    #[default]
    V1,
    /// What clients from before 1.15 ask for; nothing else about it is different.
    V1Beta1,
}

impl MetaVersion {
    fn named(text: &str) -> Option<MetaVersion> {
        match text {
            "v1" => Some(MetaVersion::V1),
            "v1beta1" => Some(MetaVersion::V1Beta1),
            _ => None,
        }
    }

    /// As objects have it.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// Whether that is of one object or of a list, where the client says so.
    pub(crate) count: Option<Count>,
    /// Of a form that is not the object itself.
    pub(crate) meta: MetaVersion,
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
    pub(crate) fn read(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Wanted, Status> {
        let ranges = accepted(headers);
        let best = ranges.iter().find_map(|range| offer.best(range));
        let wanted = if ranges.is_empty() { Some(Wanted::default()) } else { best };
        let wanted = wanted.ok_or_else(|| offer.not_acceptable(&ranges))?;
        Ok(Wanted { pretty: wants_pretty(headers, query), gzip: accepts_gzip(headers), ..wanted })
    }

    /// The form of a failure, which is told to those as well who accept nothing that we know.
    pub(crate) fn of_failures(headers: &HeaderMap, query: &Query) -> Wanted {
        Wanted::read(headers, query, Offer::WHOLE).unwrap_or_default()
    }

    /// The form of what discovery tells, which is there in every encoding, and only as it is.
    pub(crate) fn of_discovery(headers: &HeaderMap, query: &Query) -> Result<Wanted, Status> {
        Wanted::read(headers, query, Offer::WHOLE)
    }

    /// The form of a document that there is in JSON alone; 406 for those who do not take it.
    pub(crate) fn of_json(headers: &HeaderMap, query: &Query) -> Result<Wanted, Status> {
        let json = Encoding::Json.media_type();
        chosen(headers, &[json]).map(|_| Wanted::json(headers, query)).ok_or_else(|| not_acceptable(json))
    }

    /// The form of a document that everybody gets in JSON.
    pub(crate) fn json(headers: &HeaderMap, query: &Query) -> Wanted {
        Wanted { pretty: wants_pretty(headers, query), gzip: accepts_gzip(headers), ..Wanted::default() }
    }
}

impl Offer {
    /// Objects as they are.
    const WHOLE: Offer =
        Offer { objects_in_protobuf: true, metadata: false, tables: false, is_stream: false };

    /// What a range asks for, if the route has it.
    fn best(self, range: &MediaRange) -> Option<Wanted> {
        let stream = range.parameter("stream").unwrap_or_default();
        let meta = range.parameter("v").and_then(MetaVersion::named);
        let meta = meta.filter(|_| range.parameter("g") == Some("meta.k8s.io"));
        let is_meta = meta.is_some();
        let is_plain = ["as", "g", "v"].iter().all(|name| range.parameter(name).is_none());
        let (form, count) = match range.parameter("as") {
            None if is_plain => (Form::Whole, None),
            Some("Table") if is_meta && self.tables => (Form::Table, None),
            Some("PartialObjectMetadata") if is_meta && self.metadata => (Form::Metadata, Some(Count::One)),
            Some("PartialObjectMetadataList") if is_meta && self.metadata => {
                (Form::Metadata, Some(Count::List))
            }
            _ => return None,
        };
        match range.parameter("sv") {
            None | Some("") => {}
            Some("v1") if self.metadata => {}
            Some(_) => return None,
        }
        let fits = |encoding: &Encoding| {
            let has_form = match (encoding, form) {
                (Encoding::Protobuf, Form::Table) => false,
                (Encoding::Protobuf, Form::Whole) => self.objects_in_protobuf,
                _ => true,
            };
            let wants_stream = self.is_stream || !stream.is_empty();
            range.includes(encoding.media_type())
                && has_form
                && (!wants_stream || encoding.has_stream())
                && matches!(stream, "" | "watch")
        };
        let encoding = ENCODINGS.into_iter().find(fits)?;
        Some(Wanted { encoding, form, count, meta: meta.unwrap_or_default(), ..Wanted::default() })
    }

    /// What there is. Of a watch's own encodings only those hear who could have the objects otherwise.
    fn not_acceptable(self, ranges: &[MediaRange]) -> Status {
        let at_rest = Offer { is_stream: false, ..self };
        let is_stream = self.is_stream && ranges.iter().any(|range| at_rest.best(range).is_some());
        let known = ENCODINGS.iter().filter(|encoding| !is_stream || encoding.has_stream());
        let suffix = if is_stream { ";stream=watch" } else { "" };
        let known: Vec<String> = known.map(|encoding| format!("{}{suffix}", encoding.media_type())).collect();
        not_acceptable(&known.join(", "))
    }
}

fn not_acceptable(known: &str) -> Status {
    Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {known}"))
}

/// The one of these media types that a client likes best, whatever parameters it gives.
pub(crate) fn chosen(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let ranges = accepted(headers);
    let best = ranges.iter().find_map(|range| known.iter().find(|name| range.includes(name)));
    if ranges.is_empty() { known.first().copied() } else { best.copied() }
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

    /// Of two that are worth the same, the one that says more goes first.
    fn vagueness(&self) -> usize {
        self.name.matches('*').count()
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
    ranges.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.vagueness().cmp(&b.0.vagueness())));
    ranges.into_iter().filter(|(_, quality)| *quality > 0.0).map(|(range, _)| range).collect()
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

    const OBJECTS: Offer = Offer { metadata: true, tables: true, ..Offer::WHOLE };

    fn offered(offer: Offer, accept: &str) -> Result<Wanted, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Wanted::read(&headers, &Query::default(), offer)
    }

    fn wanted(accept: &str) -> Result<Wanted, Status> {
        offered(OBJECTS, accept)
    }

    #[test]
    fn the_first_known_alternative_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let table = wanted(kubectl).unwrap();
        assert_eq!((table.form, table.meta), (Form::Table, MetaVersion::V1));
        let older = wanted("application/json;as=Table;v=v1beta1;g=meta.k8s.io").unwrap();
        assert_eq!((older.form, older.meta), (Form::Table, MetaVersion::V1Beta1));
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(wanted(client_go).unwrap().encoding, Encoding::Protobuf);
        assert_eq!(wanted("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(wanted("*/*").unwrap(), Wanted::default());
        assert_eq!(wanted("application/yaml;q=0.1, application/json").unwrap().encoding, Encoding::Json);
        assert_eq!(wanted("*/*, application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(wanted("application/*").unwrap().encoding, Encoding::Json);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let wanted = wanted(metadata).unwrap();
        assert_eq!((wanted.form, wanted.encoding), (Form::Metadata, Encoding::Protobuf));
    }

    #[test]
    fn what_the_server_does_not_have_is_not_acceptable() {
        for accept in [
            "text/html",
            "application/cbor",
            "application/json;as=Picture;v=v1;g=x",
            "application/json;as=Table;v=v2;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
            "application/json;stream=shouts",
            "application/json;as=Table",
            "application/json;as=",
            "application/json;g=meta.k8s.io;v=v1",
            "application/json;sv=v2",
        ] {
            let status = wanted(accept).unwrap_err();
            assert_eq!(status.code, 406, "{accept}");
            assert_eq!(
                status.message,
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
            );
        }
        let watch = Offer { is_stream: true, ..OBJECTS };
        let status = offered(watch, "application/yaml").unwrap_err();
        assert_eq!(
            status.message,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        let status = offered(watch, "text/html").unwrap_err();
        assert!(
            status.message.ends_with("application/yaml, application/vnd.kubernetes.protobuf"),
            "{status:?}"
        );
        assert!(offered(watch, "application/vnd.kubernetes.protobuf;stream=watch").is_ok());
    }

    #[test]
    fn of_what_has_no_message_only_the_metadata_comes_in_protobuf() {
        let custom = Offer { objects_in_protobuf: false, ..OBJECTS };
        assert_eq!(offered(custom, "application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        let either = offered(custom, "application/vnd.kubernetes.protobuf,application/json").unwrap();
        assert_eq!(either.encoding, Encoding::Json);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(offered(custom, metadata).unwrap().encoding, Encoding::Protobuf);
    }

    #[test]
    fn failures_have_no_other_form() {
        let mut headers = HeaderMap::new();
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
        headers.insert(header::ACCEPT, metadata.parse().unwrap());
        assert_eq!(Wanted::of_failures(&headers, &Query::default()), Wanted::default());
        headers.insert(header::ACCEPT, "text/html".parse().unwrap());
        assert_eq!(Wanted::of_failures(&headers, &Query::default()), Wanted::default());
    }
}
