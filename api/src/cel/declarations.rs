//! What functions there are: for each overload what it takes and what it gives. `A` and `B` stand for any type.

use std::{collections::HashMap, sync::LazyLock};

use super::Type;

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub(super) is_method: bool,
    pub(super) takes: Vec<Type>,
    pub(super) gives: Type,
}

/// The overloads of a function; `None` when there is no such function.
pub(super) fn overloads(function: &str) -> Option<&'static [Overload]> {
    TABLE.get(function).map(Vec::as_slice)
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in DECLARATIONS.lines().filter(|line| !line.trim().is_empty()) {
        let (head, gives) = line.rsplit_once(" -> ").unwrap_or((line, "dyn"));
        let (name, takes) = head.trim().split_once(' ').unwrap_or((head.trim(), ""));
        let (is_method, name) = match name.strip_prefix('.') {
            Some(method) => (true, method),
            None => (false, name),
        };
        let takes = takes.split(' ').filter(|word| !word.is_empty()).map(read).collect();
        table.entry(name).or_default().push(Overload { is_method, takes, gives: read(gives.trim()) });
    }
    table
});

fn read(word: &str) -> Type {
    let inner = |prefix: &str| word.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(item) = inner("list<") {
        return Type::list(read(item));
    }
    if let Some(item) = inner("optional<") {
        return Type::Optional(read(item).into());
    }
    if let Some((key, value)) = inner("map<").and_then(|both| both.split_once(',')) {
        return Type::Map(read(key).into(), read(value).into(), super::types::UNBOUNDED);
    }
    match word {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::TEXT,
        "bytes" => Type::Bytes(super::types::UNBOUNDED),
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "null" => Type::Null,
        "A" => Type::Parameter('A'),
        "B" => Type::Parameter('B'),
        "quantity" => Type::Named("kubernetes.Quantity"),
        "ip" => Type::Named("net.IP"),
        "cidr" => Type::Named("net.CIDR"),
        "url" => Type::Named("kubernetes.URL"),
        "semver" => Type::Named("kubernetes.Semver"),
        "format" => Type::Named("kubernetes.NamedFormat"),
        "type" => Type::Named("type"),
        "authorizer" => Type::Named("kubernetes.authorization.Authorizer"),
        "pathCheck" => Type::Named("kubernetes.authorization.PathCheck"),
        "groupCheck" => Type::Named("kubernetes.authorization.GroupCheck"),
        "resourceCheck" => Type::Named("kubernetes.authorization.ResourceCheck"),
        "decision" => Type::Named("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}

/// A name with a dot in front is called on its first argument.
const DECLARATIONS: &str = "
_==_ A A -> bool
_!=_ A A -> bool
_<_ int int -> bool
_<_ uint uint -> bool
_<_ double double -> bool
_<_ int double -> bool
_<_ double int -> bool
_<_ int uint -> bool
_<_ uint int -> bool
_<_ string string -> bool
_<_ bytes bytes -> bool
_<_ bool bool -> bool
_<_ timestamp timestamp -> bool
_<_ duration duration -> bool
!_ bool -> bool
-_ int -> int
-_ double -> double
_+_ int int -> int
_+_ uint uint -> uint
_+_ double double -> double
_+_ string string -> string
_+_ bytes bytes -> bytes
_+_ list<A> list<A> -> list<A>
_+_ timestamp duration -> timestamp
_+_ duration timestamp -> timestamp
_+_ duration duration -> duration
_-_ int int -> int
_-_ uint uint -> uint
_-_ double double -> double
_-_ timestamp timestamp -> duration
_-_ timestamp duration -> timestamp
_-_ duration duration -> duration
_*_ int int -> int
_*_ uint uint -> uint
_*_ double double -> double
_/_ int int -> int
_/_ uint uint -> uint
_/_ double double -> double
_%_ int int -> int
_%_ uint uint -> uint
@in A list<A> -> bool
@in A map<A,B> -> bool
size string -> int
size bytes -> int
size list<A> -> int
size map<A,B> -> int
.size string -> int
.size bytes -> int
.size list<A> -> int
.size map<A,B> -> int
dyn A -> dyn
type A -> type
int int -> int
int uint -> int
int double -> int
int string -> int
int timestamp -> int
uint uint -> uint
uint int -> uint
uint double -> uint
uint string -> uint
double double -> double
double int -> double
double uint -> double
double string -> double
bool bool -> bool
bool string -> bool
string string -> string
string bool -> string
string int -> string
string uint -> string
string double -> string
string bytes -> string
string timestamp -> string
string duration -> string
string ip -> string
string cidr -> string
bytes bytes -> bytes
bytes string -> bytes
timestamp timestamp -> timestamp
timestamp string -> timestamp
timestamp int -> timestamp
duration duration -> duration
duration string -> duration
.contains string string -> bool
.startsWith string string -> bool
.endsWith string string -> bool
.matches string string -> bool
matches string string -> bool
.find string string -> string
.findAll string string -> list<string>
.findAll string string int -> list<string>
.charAt string int -> string
.indexOf string string -> int
.indexOf string string int -> int
.lastIndexOf string string -> int
.lastIndexOf string string int -> int
.lowerAscii string -> string
.upperAscii string -> string
.trim string -> string
.reverse string -> string
.replace string string string -> string
.replace string string string int -> string
.split string string -> list<string>
.split string string int -> list<string>
.substring string int -> string
.substring string int int -> string
.format string list<A> -> string
.join list<string> -> string
.join list<string> string -> string
.isSorted list<A> -> bool
.sum list<A> -> A
.min list<A> -> A
.max list<A> -> A
.indexOf list<A> A -> int
.lastIndexOf list<A> A -> int
.reverse list<A> -> list<A>
.first list<A> -> optional<A>
.last list<A> -> optional<A>
.distinct list<A> -> list<A>
.sort list<A> -> list<A>
.flatten list<A> -> list<dyn>
.slice list<A> int int -> list<A>
sets.contains list<A> list<A> -> bool
sets.intersects list<A> list<A> -> bool
sets.equivalent list<A> list<A> -> bool
optional.none -> optional<dyn>
optional.of A -> optional<A>
optional.ofNonZeroValue A -> optional<A>
.hasValue optional<A> -> bool
.value optional<A> -> A
.orValue optional<A> A -> A
.or optional<A> optional<A> -> optional<A>
.getFullYear timestamp -> int
.getFullYear timestamp string -> int
.getMonth timestamp -> int
.getMonth timestamp string -> int
.getDate timestamp -> int
.getDate timestamp string -> int
.getDayOfMonth timestamp -> int
.getDayOfMonth timestamp string -> int
.getDayOfWeek timestamp -> int
.getDayOfWeek timestamp string -> int
.getDayOfYear timestamp -> int
.getDayOfYear timestamp string -> int
.getHours timestamp -> int
.getHours timestamp string -> int
.getHours duration -> int
.getMinutes timestamp -> int
.getMinutes timestamp string -> int
.getMinutes duration -> int
.getSeconds timestamp -> int
.getSeconds timestamp string -> int
.getSeconds duration -> int
.getMilliseconds timestamp -> int
.getMilliseconds timestamp string -> int
.getMilliseconds duration -> int
quantity string -> quantity
isQuantity string -> bool
.isGreaterThan quantity quantity -> bool
.isLessThan quantity quantity -> bool
.compareTo quantity quantity -> int
.add quantity quantity -> quantity
.add quantity int -> quantity
.sub quantity quantity -> quantity
.sub quantity int -> quantity
.sign quantity -> int
.isInteger quantity -> bool
.asInteger quantity -> int
.asApproximateFloat quantity -> double
ip string -> ip
isIP string -> bool
.ip cidr -> ip
.family ip -> int
.isUnspecified ip -> bool
.isLoopback ip -> bool
.isLinkLocalMulticast ip -> bool
.isLinkLocalUnicast ip -> bool
.isGlobalUnicast ip -> bool
ip.isCanonical string -> bool
cidr string -> cidr
isCIDR string -> bool
.containsIP cidr ip -> bool
.containsIP cidr string -> bool
.containsCIDR cidr cidr -> bool
.containsCIDR cidr string -> bool
.masked cidr -> cidr
.prefixLength cidr -> int
url string -> url
isURL string -> bool
.getScheme url -> string
.getHost url -> string
.getHostname url -> string
.getPort url -> string
.getEscapedPath url -> string
.getQuery url -> map<string,list<string>>
semver string -> semver
semver string bool -> semver
isSemver string -> bool
isSemver string bool -> bool
.major semver -> int
.minor semver -> int
.patch semver -> int
.isGreaterThan semver semver -> bool
.isLessThan semver semver -> bool
.compareTo semver semver -> int
format.named string -> optional<format>
format.dns1123Label -> format
format.dns1123Subdomain -> format
format.dns1035Label -> format
format.qualifiedName -> format
format.dns1123LabelPrefix -> format
format.dns1123SubdomainPrefix -> format
format.dns1035LabelPrefix -> format
format.labelValue -> format
format.uri -> format
format.uuid -> format
format.byte -> format
format.datetime -> format
.validate format string -> optional<list<string>>
jsonpatch.escapeKey string -> string
.path authorizer string -> pathCheck
.group authorizer string -> groupCheck
.serviceAccount authorizer string string -> authorizer
.resource groupCheck string -> resourceCheck
.subresource resourceCheck string -> resourceCheck
.namespace resourceCheck string -> resourceCheck
.name resourceCheck string -> resourceCheck
.fieldSelector resourceCheck string -> resourceCheck
.labelSelector resourceCheck string -> resourceCheck
.check pathCheck string -> decision
.check resourceCheck string -> decision
.allowed decision -> bool
.reason decision -> string
.errored decision -> bool
.error decision -> string
";
