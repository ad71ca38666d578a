//! From the bytes of a question to the bytes of a reply.

use std::net::Ipv4Addr;

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV, TXT},
    },
};

use crate::{
    name,
    zone::{self, Answer, Records, Wanted},
};

/// How long clients may keep an answer, in seconds; CoreDNS' default, short because pods come and go.
const TTL: u32 = 5;
/// What fits into a UDP reply unless the client says that it can take more.
const PLAIN_UDP_SIZE: u16 = 512;
/// The most that a UDP reply is ever made of: what passes the usual links unbroken.
const LARGEST_UDP_SIZE: u16 = 1232;

/// What to do with a question.
pub enum Step {
    /// Send this back.
    Reply(Message),
    /// The name is not ours: ask a name server outside.
    Forward,
    /// Ours, but it leads to an outside name: ask for that, put its records behind those here.
    Follow {
        /// The reply so far, with the CNAME.
        reply: Message,
        /// What to ask outside.
        query: Query,
    },
}

/// Decides about a question. `domain` is the cluster's, for example `cluster.local`.
pub fn step(request: &Message, records: &impl Records, domain: &Name) -> Step {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP_SIZE);
        reply.set_edns(edns);
    }
    let refuse = |mut reply: Message, code| {
        reply.metadata.response_code = code;
        Step::Reply(reply)
    };
    if request.metadata.op_code != OpCode::Query {
        return refuse(reply, ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return refuse(reply, ResponseCode::FormErr) };
    reply.add_query(query.clone());
    if query.query_class != DNSClass::IN {
        return refuse(reply, ResponseCode::NotImp);
    }
    let asked = query.name.to_lowercase();
    let text = asked.to_ascii();
    let labels: Vec<&str> = text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).collect();
    if let Some(ip) = name::reverse(&labels) {
        let names = zone::names_of(records, ip);
        if names.is_empty() {
            return Step::Forward;
        }
        return Step::Reply(pointers(reply, query, &names, domain));
    }
    if !domain.zone_of(&asked) {
        return Step::Forward;
    }
    let below = &labels[..labels.len() - usize::from(domain.num_labels())];
    reply.metadata.authoritative = true;
    match zone::answer(records, &name::parse(below), wanted(query.query_type)) {
        Answer::NoSuchName => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(authority(domain));
            Step::Reply(reply)
        }
        Answer::Found(found) => fill(reply, query, found, domain),
    }
}

/// The bytes of a reply. Over UDP (`request` tells how much the client takes) a long one is cut off and marked,
/// so that the client asks again over TCP.
pub fn encode(reply: &Message, request: &Message, is_udp: bool) -> Result<Vec<u8>, ProtoError> {
    let bytes = reply.to_vec()?;
    let wanted = request.edns.as_ref().map_or(PLAIN_UDP_SIZE, Edns::max_payload);
    let limit = usize::from(wanted.clamp(PLAIN_UDP_SIZE, LARGEST_UDP_SIZE));
    if is_udp && bytes.len() > limit { reply.truncate().to_vec() } else { Ok(bytes) }
}

/// A reply that says that something failed on our side.
pub fn failure(request: &Message) -> Message {
    let mut reply = Message::error_msg(request.metadata.id, request.metadata.op_code, ResponseCode::ServFail);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    reply
}

fn wanted(kind: RecordType) -> Wanted {
    match kind {
        RecordType::A => Wanted::A,
        RecordType::SRV => Wanted::Srv,
        RecordType::TXT => Wanted::Txt,
        RecordType::ANY => Wanted::Any,
        _ => Wanted::Other,
    }
}

fn fill(mut reply: Message, query: &Query, found: Vec<zone::Record>, domain: &Name) -> Step {
    let owner = || query.name.clone();
    let mut outside = None;
    for record in found {
        match record {
            zone::Record::A(ip) => _ = reply.add_answer(address(owner(), ip)),
            zone::Record::Txt(text) => {
                let text = RData::TXT(TXT::new(vec![text.to_string()]));
                reply.add_answer(Record::from_rdata(owner(), TTL, text));
            }
            zone::Record::Srv { port, target, address: ip } => {
                let Some(target) = absolute(&target, domain) else { continue };
                if let Some(ip) = ip {
                    reply.add_additional(address(target.clone(), ip));
                }
                let location = RData::SRV(SRV::new(0, 100, port, target));
                reply.add_answer(Record::from_rdata(owner(), TTL, location));
            }
            zone::Record::Cname(target) => {
                let Ok(mut target) = Name::from_ascii(&target) else { continue };
                target.set_fqdn(true);
                reply.add_answer(Record::from_rdata(owner(), TTL, RData::CNAME(CNAME(target.clone()))));
                outside = Some(Query::query(target, query.query_type));
            }
        }
    }
    match outside {
        Some(query) => Step::Follow { reply, query },
        None => {
            if reply.answers.is_empty() {
                reply.add_authority(authority(domain));
            }
            Step::Reply(reply)
        }
    }
}

fn pointers(mut reply: Message, query: &Query, names: &[String], domain: &Name) -> Message {
    reply.metadata.authoritative = true;
    if matches!(query.query_type, RecordType::PTR | RecordType::ANY) {
        for name in names.iter().filter_map(|name| absolute(name, domain)) {
            reply.add_answer(Record::from_rdata(query.name.clone(), TTL, RData::PTR(PTR(name))));
        }
    }
    reply
}

fn address(name: Name, ip: Ipv4Addr) -> Record {
    Record::from_rdata(name, TTL, RData::A(A(ip)))
}

/// The record that tells clients how long to remember that there is nothing.
fn authority(domain: &Name) -> Record {
    let below = |label: &str| absolute(label, domain).unwrap_or_else(|| domain.clone());
    let soa = SOA::new(below("ns.dns"), below("hostmaster"), 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(domain.clone(), TTL, RData::SOA(soa))
}

fn absolute(relative: &str, domain: &Name) -> Option<Name> {
    Name::from_ascii(relative).ok()?.append_domain(domain).ok()
}
