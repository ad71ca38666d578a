//! The wire format: keys, varints and lengths.

use super::EncodeError;

/// One value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    /// A varint.
    Number(u64),
    /// Eight or four bytes.
    Fixed(u64),
    /// What has a length: text, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl Wire<'_> {
    pub(super) fn type_number(self) -> u64 {
        match self {
            Wire::Number(_) => VARINT,
            Wire::Fixed(_) => FIXED_64,
            Wire::Bytes(_) => LENGTH,
        }
    }
}

/// Reads the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (number, kind) = (key >> 3, key & 7);
        let illegal = || format!("proto: illegal tag {number} (wire type {kind})");
        let number = u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(illegal)?;
        let value = match kind {
            VARINT => Wire::Number(self.varint()?),
            FIXED_64 => Wire::Fixed(u64::from_le_bytes(self.array()?)),
            LENGTH => {
                let length = usize::try_from(self.varint()?).map_err(|_| ENDED)?;
                Wire::Bytes(self.take(length)?)
            }
            FIXED_32 => Wire::Fixed(u32::from_le_bytes(self.array()?).into()),
            _ => return Err(illegal()),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], String> {
        self.take(SIZE)?.try_into().map_err(|_| ENDED.into())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDED)?;
        self.rest = rest;
        Ok(taken)
    }
}

const ENDED: &str = "unexpected EOF";

/// Numbers one after the other.
pub(super) fn packed(bytes: &[u8]) -> impl Iterator<Item = Result<i64, String>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        if reader.rest.is_empty() {
            return None;
        }
        let number = reader.varint();
        if number.is_err() {
            reader.rest = &[];
        }
        Some(number.map(u64::cast_signed))
    })
}

/// Appends the fields of one message.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    pub(super) fn number(&mut self, field: u32, number: u64) {
        self.key(field, VARINT);
        varint(self.out, number);
    }

    pub(super) fn double(&mut self, field: u32, number: f64) {
        self.key(field, FIXED_64);
        self.out.extend_from_slice(&number.to_bits().to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.length(field, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Key and length of a field whose `length` bytes the caller appends.
    pub(super) fn length(&mut self, field: u32, length: usize) {
        self.key(field, LENGTH);
        varint(self.out, length as u64);
    }

    /// A message. Its length is known only behind it: mostly it fits the one byte that is left free for it, and
    /// otherwise the message moves.
    pub(super) fn nested(
        &mut self,
        field: u32,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.key(field, LENGTH);
        self.out.push(0);
        let start = self.out.len();
        write(&mut Writer { out: self.out })?;
        let length = self.out.len() - start;
        let more = varint_length(length as u64) - 1;
        if more > 0 {
            self.out.resize(start + length + more, 0);
            self.out.copy_within(start..start + length, start + more);
        }
        let mut rest = length;
        for byte in &mut self.out[start - 1..start + more] {
            *byte = (rest & 0x7f) as u8 | 0x80;
            rest >>= 7;
        }
        self.out[start + more - 1] &= 0x7f;
        Ok(())
    }

    /// The same, but nothing for a message without fields.
    pub(super) fn nested_unless_empty(
        &mut self,
        field: u32,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let start = self.out.len();
        self.nested(field, write)?;
        if self.out.len() == start + varint_length(u64::from(field) << 3) + 1 {
            self.out.truncate(start);
        }
        Ok(())
    }

    fn key(&mut self, field: u32, kind: u64) {
        varint(self.out, u64::from(field) << 3 | kind);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a number takes.
pub(super) fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
