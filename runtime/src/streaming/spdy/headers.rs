//! SPDY/3 header blocks: name-value pairs, compressed with one zlib stream for each direction.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::FrameError;

/// Header names in lower case, with their values.
pub(in crate::streaming) type Headers = HashMap<String, String>;

/// No Kubernetes client sends so much.
const LARGEST: usize = 64 << 10;

/// Compresses the header blocks of one direction of a connection, in order.
pub(in crate::streaming) struct Compressor(Compress);

impl Compressor {
    pub fn new() -> Compressor {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).expect("a fresh stream takes a dictionary");
        Compressor(compress)
    }

    pub fn compress(&mut self, headers: &Headers) -> Bytes {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 128);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&plain[consumed..], &mut out, FlushCompress::Sync)
                .expect("compressing memory does not fail");
            if (self.0.total_in() - start) as usize == plain.len() && out.len() < out.capacity() {
                return out.into();
            }
            out.reserve(out.capacity());
        }
    }
}

/// Decompresses the header blocks of one direction of a connection, in order.
pub(in crate::streaming) struct Decompressor(Decompress);

impl Decompressor {
    pub fn new() -> Decompressor {
        Decompressor(Decompress::new(true))
    }

    pub fn decompress(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let mut plain = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let rest = &block[(self.0.total_in() - start) as usize..];
            let (consumed, produced) = (self.0.total_in(), plain.len());
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Headers),
            }
            if plain.len() > LARGEST {
                return Err(FrameError::Headers);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(plain.capacity());
            } else if self.0.total_in() == consumed && plain.len() == produced {
                return parse(plain.into());
            }
        }
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, FrameError> {
    let count = plain.try_get_u32().map_err(|_| FrameError::Headers)?;
    let mut text = || {
        let length = plain.try_get_u32().map_err(|_| FrameError::Headers)? as usize;
        if plain.len() < length {
            return Err(FrameError::Headers);
        }
        String::from_utf8(plain.split_to(length).into()).map_err(|_| FrameError::Headers)
    };
    (0..count).map(|_| Ok((text()?.to_lowercase(), text()?))).collect()
}

/// What both ends know before the first block, in the order of the specification.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|\
        accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|\
        content-language|content-length|content-location|content-md5|content-range|content-type|date|etag|expect|\
        expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|\
        location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|\
        trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|\
        version|HTTP/1.1|url|public|set-cookie|keep-alive|origin";
    const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut dictionary = Vec::new();
    for word in WORDS.split('|') {
        dictionary.put_u32(word.len() as u32);
        dictionary.put_slice(word.as_bytes());
    }
    dictionary.put_slice(REST.as_bytes());
    dictionary
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_specification() {
        let (mut low, mut high) = (1u32, 0u32);
        for byte in dictionary() {
            low = (low + u32::from(byte)) % 65521;
            high = (high + low) % 65521;
        }
        assert_eq!((dictionary().len(), high << 16 | low), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        /// Block after block, the compression depends on those before.
        #[test]
        fn headers_read_back_as_written(
            blocks in prop::collection::vec(prop::collection::hash_map("[a-z0-9-]{0,20}", ".{0,300}", 0..9), 1..6)
        ) {
            let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
            for headers in blocks {
                let block = compressor.compress(&headers);
                prop_assert_eq!(decompressor.decompress(&block).unwrap(), headers);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_trouble(bytes: Vec<u8>) {
            Decompressor::new().decompress(&bytes).ok();
            parse(bytes.clone().into()).ok();
            let mut block = Compressor::new().compress(&Headers::new()).to_vec();
            block.extend(bytes);
            Decompressor::new().decompress(&block).ok();
        }
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let headers = HashMap::from([("name".to_owned(), "x".repeat(10 << 20))]);
        let block = Compressor::new().compress(&headers);
        assert_eq!(Decompressor::new().decompress(&block), Err(FrameError::Headers));
    }
}
