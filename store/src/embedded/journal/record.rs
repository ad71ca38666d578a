//! What is written in the journal: changes, as bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Revision,
    embedded::state::{Change, Deadline, Version},
};

/// One entry of the journal.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A new version of a key.
    Change(Change),
    /// History was forgotten up to here.
    Compacted(Revision),
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACTED: u8 = 3;

impl Record {
    /// At least the length of the encoded record.
    pub fn size_hint(&self) -> usize {
        match self {
            Record::Change(Change { key, version }) => {
                64 + key.len() + version.value.as_ref().map_or(0, Bytes::len)
            }
            Record::Compacted(_) => 16,
        }
    }

    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Change(Change { key, version }) => {
                out.push(if version.value.is_some() { PUT } else { DELETE });
                out.extend(version.created.0.to_le_bytes());
                out.extend(version.modified.0.to_le_bytes());
                out.extend(version.deadline.map_or(0, |deadline| deadline.0).to_le_bytes());
                encode_bytes(key.as_bytes(), out);
                if let Some(value) = &version.value {
                    encode_bytes(value, out);
                }
            }
            Record::Compacted(revision) => {
                out.push(COMPACTED);
                out.extend(revision.0.to_le_bytes());
            }
        }
    }

    /// Takes one record off the front of `bytes`; nothing if that is not one.
    pub fn decode(bytes: &mut &[u8]) -> Option<Record> {
        let kind = *bytes.split_off_first()?;
        match kind {
            PUT | DELETE => {
                let created = Revision(decode_number(bytes)?);
                let modified = Revision(decode_number(bytes)?);
                let deadline = Some(decode_number(bytes)?).filter(|&number| number != 0).map(Deadline);
                let key: Arc<str> = std::str::from_utf8(decode_bytes(bytes)?).ok()?.into();
                let value = match kind {
                    PUT => Some(Bytes::copy_from_slice(decode_bytes(bytes)?)),
                    _ => None,
                };
                Some(Record::Change(Change { key, version: Version { created, modified, deadline, value } }))
            }
            COMPACTED => Some(Record::Compacted(Revision(decode_number(bytes)?))),
            _ => None,
        }
    }
}

/// All the records in `bytes`; nothing if something else is among them.
pub(super) fn decode_all(mut bytes: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(Record::decode(&mut bytes)?);
    }
    Some(records)
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("keys and values are far shorter than 4 GiB");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

fn decode_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn decode_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (taken, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let change = (any::<String>(), any::<Option<Vec<u8>>>(), any::<(u64, u64)>(), any::<u64>());
        let change = change.prop_map(|(key, value, (created, modified), deadline)| {
            let deadline = (deadline != 0).then_some(Deadline(deadline));
            let (created, modified) = (Revision(created), Revision(modified));
            let version = Version { created, modified, deadline, value: value.map(Bytes::from) };
            Record::Change(Change { key: key.into(), version })
        });
        prop_oneof![change, any::<u64>().prop_map(|revision| Record::Compacted(Revision(revision)))]
    }

    proptest! {
        #[test]
        fn records_read_back_as_written(records in prop::collection::vec(any_record(), 0..8)) {
            let mut bytes = Vec::new();
            for record in &records {
                let before = bytes.len();
                record.encode(&mut bytes);
                prop_assert!(bytes.len() - before <= record.size_hint());
            }
            let read = decode_all(&bytes).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{records:?}"));
        }

        #[test]
        fn arbitrary_bytes_are_no_trouble(bytes: Vec<u8>) {
            decode_all(&bytes);
        }
    }
}
