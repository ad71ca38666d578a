//! SPDY frames on the wire.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One frame. Header blocks are still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Frame {
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    SynStream {
        stream: u32,
        associated: u32,
        priority: u8,
        fin: bool,
        headers: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Bytes,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    /// Pairs of an identifier (with its flags) and a value.
    Settings {
        entries: Vec<(u32, u32)>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_stream: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Bytes,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
}

/// The status of a [`Frame::RstStream`].
pub(in crate::streaming) const PROTOCOL_ERROR: u32 = 1;
/// The status of a [`Frame::RstStream`].
pub(in crate::streaming) const REFUSED_STREAM: u32 = 3;

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FIN: u8 = 1;
const STREAM_ID: u32 = 0x7fff_ffff;
const HEADER: usize = 8;

/// No Kubernetes client sends more at once; the format allows 16 MiB.
const LARGEST: usize = 4 << 20;

/// The peer does not speak SPDY/3.1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::streaming) enum FrameError {
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a control frame of version {0} is not of SPDY/3")]
    Version(u16),
    #[error("a control frame of type {0} is malformed")]
    Malformed(u16),
    #[error("a header block is malformed")]
    Headers,
}

/// Takes the next whole frame off `buffer`; none if it is not all there yet.
/// Control frames of unknown types are passed over.
pub(in crate::streaming) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    loop {
        let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let flags = header[4];
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        if length > LARGEST {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let body = buffer.split_to(length).freeze();
        if first & !STREAM_ID == 0 {
            return Ok(Some(Frame::Data { stream: first, fin: flags & FIN != 0, data: body }));
        }
        let (version, kind) = ((first >> 16) as u16 & !CONTROL, first as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if let Some(frame) = decode_control(kind, flags, body)? {
            return Ok(Some(frame));
        }
    }
}

fn decode_control(kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
    let malformed = |_| FrameError::Malformed(kind);
    let fin = flags & FIN != 0;
    let mut number = || body.try_get_u32();
    let frame = match kind {
        1 => {
            let stream = number().map_err(malformed)? & STREAM_ID;
            let associated = number().map_err(malformed)? & STREAM_ID;
            let priority = body.try_get_u16().map_err(malformed)? >> 13;
            Frame::SynStream { stream, associated, priority: priority as u8, fin, headers: body }
        }
        2 => Frame::SynReply { stream: number().map_err(malformed)? & STREAM_ID, fin, headers: body },
        3 => {
            let stream = number().map_err(malformed)? & STREAM_ID;
            Frame::RstStream { stream, status: number().map_err(malformed)? }
        }
        4 => {
            let count = number().map_err(malformed)? as usize;
            if body.len() != count.saturating_mul(8) {
                return Err(FrameError::Malformed(kind));
            }
            Frame::Settings { entries: (0..count).map(|_| (body.get_u32(), body.get_u32())).collect() }
        }
        6 => Frame::Ping { id: number().map_err(malformed)? },
        7 => {
            let last_stream = number().map_err(malformed)? & STREAM_ID;
            Frame::GoAway { last_stream, status: number().map_err(malformed)? }
        }
        8 => Frame::Headers { stream: number().map_err(malformed)? & STREAM_ID, fin, headers: body },
        9 => {
            let stream = number().map_err(malformed)? & STREAM_ID;
            Frame::WindowUpdate { stream, delta: number().map_err(malformed)? & STREAM_ID }
        }
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let (kind, fin) = match self {
            Frame::Data { stream, fin, data } => return encode_data(*stream, *fin, data),
            Frame::SynStream { stream, associated, priority, fin, headers } => {
                body.put_u32(*stream);
                body.put_u32(*associated);
                body.put_u16(u16::from(*priority) << 13);
                body.put_slice(headers);
                (1, *fin)
            }
            Frame::SynReply { stream, fin, headers } => {
                body.put_u32(*stream);
                body.put_slice(headers);
                (2, *fin)
            }
            Frame::RstStream { stream, status } => {
                body.put_u32(*stream);
                body.put_u32(*status);
                (3, false)
            }
            Frame::Settings { entries } => {
                body.put_u32(entries.len() as u32);
                for (id, value) in entries {
                    body.put_u32(*id);
                    body.put_u32(*value);
                }
                (4, false)
            }
            Frame::Ping { id } => {
                body.put_u32(*id);
                (6, false)
            }
            Frame::GoAway { last_stream, status } => {
                body.put_u32(*last_stream);
                body.put_u32(*status);
                (7, false)
            }
            Frame::Headers { stream, fin, headers } => {
                body.put_u32(*stream);
                body.put_slice(headers);
                (8, *fin)
            }
            Frame::WindowUpdate { stream, delta } => {
                body.put_u32(*stream);
                body.put_u32(*delta);
                (9, false)
            }
        };
        let first = u32::from(CONTROL | VERSION) << 16 | kind;
        with_header(first, fin, &body)
    }
}

/// A data frame's bytes.
pub(super) fn encode_data(stream: u32, fin: bool, data: &[u8]) -> Bytes {
    with_header(stream, fin, data)
}

fn with_header(first: u32, fin: bool, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + body.len());
    frame.put_u32(first);
    frame.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let stream = || 0..=STREAM_ID;
        let bytes = || prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        prop_oneof![
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, data)| Frame::Data {
                stream,
                fin,
                data
            }),
            (stream(), stream(), 0..8u8, any::<bool>(), bytes()).prop_map(
                |(stream, associated, priority, fin, headers)| Frame::SynStream {
                    stream,
                    associated,
                    priority,
                    fin,
                    headers
                }
            ),
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            any::<Vec<(u32, u32)>>().prop_map(|entries| Frame::Settings { entries }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (stream(), any::<u32>()).prop_map(|(last_stream, status)| Frame::GoAway { last_stream, status }),
            (stream(), any::<bool>(), bytes()).prop_map(|(stream, fin, headers)| Frame::Headers {
                stream,
                fin,
                headers
            }),
            (stream(), stream()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        ]
    }

    proptest! {
        /// However the bytes arrive.
        #[test]
        fn frames_read_back_as_written(frames in prop::collection::vec(any_frame(), 0..6), step in 1..50usize) {
            let written: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for chunk in written.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_no_trouble(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }

        /// As above, but with the beginning of a real frame.
        #[test]
        fn damaged_frames_are_no_trouble(frame in any_frame(), at: prop::sample::Index, byte: u8) {
            let mut bytes = frame.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn unknown_control_frames_are_passed_over() {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&[0x80, 3, 0, 42, 0, 0, 0, 2, 1, 2]);
        buffer.extend_from_slice(&Frame::Ping { id: 7 }.encode());
        assert_eq!(decode(&mut buffer), Ok(Some(Frame::Ping { id: 7 })));
    }
}
