//! WebSocket frames on the wire.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::streaming) struct Frame {
    /// Whether the message ends with this frame.
    pub last: bool,
    pub opcode: Opcode,
    pub payload: Bytes,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        use Opcode::*;
        [Continuation, Text, Binary, Close, Ping, Pong].into_iter().find(|opcode| *opcode as u8 == bits)
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// No Kubernetes client sends more in one frame.
const LARGEST: u64 = 4 << 20;

/// The peer does not speak the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::streaming) enum FrameError {
    #[error("a frame of {0} bytes is too large")]
    TooLarge(u64),
    #[error("a frame uses reserved bits or an unknown opcode")]
    Reserved,
    #[error("a control frame is too long or fragmented")]
    Control,
    #[error("a frame of a client is not masked")]
    NotMasked,
}

/// Takes the next whole frame of a client off `buffer`; none if it is not all there yet.
pub(in crate::streaming) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.get(1).is_some_and(|second| second & 0x80 == 0) {
        return Err(FrameError::NotMasked);
    }
    decode_any(buffer)
}

/// As [`decode`], but masked or not.
pub(in crate::streaming) fn decode_any(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some([first, second]) = buffer.first_chunk().copied() else { return Ok(None) };
    let opcode = Opcode::from_bits(first & 0x0f).filter(|_| first & 0x70 == 0).ok_or(FrameError::Reserved)?;
    let (last, masked) = (first & 0x80 != 0, second & 0x80 != 0);
    let mut rest = &buffer[2..];
    let length = match second & 0x7f {
        126 => rest.try_get_u16().map(u64::from),
        127 => rest.try_get_u64(),
        length => Ok(u64::from(length)),
    };
    let Ok(length) = length else { return Ok(None) };
    if opcode.is_control() && (length > 125 || !last) {
        return Err(FrameError::Control);
    }
    if length > LARGEST {
        return Err(FrameError::TooLarge(length));
    }
    let mask = if masked { rest.try_get_u32().map(u32::to_be_bytes) } else { Ok([0; 4]) };
    let Ok(mask) = mask else { return Ok(None) };
    let (header, length) = (buffer.len() - rest.len(), length as usize);
    if rest.len() < length {
        buffer.reserve(header + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(header);
    let mut payload = buffer.split_to(length);
    apply_mask(&mut payload, mask);
    Ok(Some(Frame { last, opcode, payload: payload.freeze() }))
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    if mask != [0; 4] {
        payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// A whole message of the server in one frame, its payload in two parts.
pub(in crate::streaming) fn encode(opcode: Opcode, prefix: &[u8], payload: &[u8]) -> Bytes {
    let length = prefix.len() + payload.len();
    let mut frame = BytesMut::with_capacity(10 + length);
    put_header(&mut frame, true, opcode, length, 0);
    frame.put_slice(prefix);
    frame.put_slice(payload);
    frame.freeze()
}

fn put_header(frame: &mut BytesMut, last: bool, opcode: Opcode, length: usize, masked: u8) {
    frame.put_u8(if last { 0x80 } else { 0 } | opcode as u8);
    match length {
        0..=125 => frame.put_u8(masked | length as u8),
        126..=0xffff => {
            frame.put_u8(masked | 126);
            frame.put_u16(length as u16);
        }
        _ => {
            frame.put_u8(masked | 127);
            frame.put_u64(length as u64);
        }
    }
}

/// A frame as a client sends it.
#[cfg(test)]
pub(in crate::streaming) fn encode_masked(frame: &Frame, mask: [u8; 4]) -> Bytes {
    let mut bytes = BytesMut::new();
    put_header(&mut bytes, frame.last, frame.opcode, frame.payload.len(), 0x80);
    bytes.put_slice(&mask);
    let mut payload = frame.payload.to_vec();
    apply_mask(&mut payload, mask);
    bytes.put_slice(&payload);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let control = (
            prop::sample::select(vec![Opcode::Close, Opcode::Ping, Opcode::Pong]),
            prop::collection::vec(any::<u8>(), 0..126),
        )
            .prop_map(|(opcode, payload)| Frame { last: true, opcode, payload: payload.into() });
        let data = (
            any::<bool>(),
            prop::sample::select(vec![Opcode::Continuation, Opcode::Text, Opcode::Binary]),
            prop_oneof![0..200usize, 65_000..66_000usize],
            any::<u8>(),
        )
            .prop_map(|(last, opcode, length, fill)| Frame {
                last,
                opcode,
                payload: vec![fill; length].into(),
            });
        prop_oneof![control, data]
    }

    proptest! {
        /// However the bytes arrive.
        #[test]
        fn frames_read_back_as_written(
            frames in prop::collection::vec((any_frame(), any::<[u8; 4]>()), 0..4),
            step in 1..9000usize
        ) {
            let written: Vec<u8> = frames.iter().flat_map(|(frame, mask)| encode_masked(frame, *mask)).collect();
            let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
            for chunk in written.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames.into_iter().map(|(frame, _)| frame).collect::<Vec<_>>());
        }

        #[test]
        fn servers_frames_read_back_as_written(prefix: Vec<u8>, payload: Vec<u8>) {
            let mut buffer = BytesMut::from(&encode(Opcode::Binary, &prefix, &payload)[..]);
            let frame = decode_any(&mut buffer).unwrap().unwrap();
            prop_assert_eq!(frame.payload, [prefix, payload].concat());
        }

        #[test]
        fn arbitrary_bytes_are_no_trouble(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let refused = |bytes: &[u8]| decode(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(refused(&[0x82, 0x01, 0]), FrameError::NotMasked);
        assert_eq!(refused(&[0xc2, 0x81, 0, 0, 0, 0, 0]), FrameError::Reserved);
        assert_eq!(refused(&[0x83, 0x81, 0, 0, 0, 0, 0]), FrameError::Reserved);
        assert_eq!(refused(&[0x09, 0x80]), FrameError::Control);
        assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]), FrameError::TooLarge(1 << 32));
    }
}
