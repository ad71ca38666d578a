//! The wire format: keys, varints and lengths.

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
        let number = u32::try_from(key >> 3).map_err(|_| "field number out of range")?;
        let value = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ENDED)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(u32::from_le_bytes(self.array()?).into()),
            other => return Err(format!("wire type {other} is not supported")),
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
        Err("integer overflow".into())
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], String> {
        self.take(LENGTH)?.try_into().map_err(|_| ENDED.into())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDED)?;
        self.rest = rest;
        Ok(taken)
    }
}

const ENDED: &str = "unexpected EOF";

/// Numbers one after the other.
pub(super) fn packed(bytes: &[u8]) -> Result<impl Iterator<Item = i64>, String> {
    let mut reader = Reader::new(bytes);
    let mut numbers = Vec::new();
    while !reader.rest.is_empty() {
        numbers.push(reader.varint()?.cast_signed());
    }
    Ok(numbers.into_iter())
}
