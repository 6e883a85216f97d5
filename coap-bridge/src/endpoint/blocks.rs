//! Block-wise transfer (RFC 7959): one body in one direction, piece by piece.

use bytes::{Bytes, BytesMut};

use super::code::Code;
use super::message::{Request, Response};
use super::options::{Block, MAX_SZX, Options, block_size, number};

/// A request body that goes out with Block1.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    offset: usize,
    szx: u8,
    /// The peer had lost its part of the body, and was sent it again.
    again: bool,
}

/// Whether the peer is done with a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Send the next message.
    Continue,
    /// This is the response to the whole.
    Done,
    /// The peer broke the rules.
    Broken,
}

impl Upload {
    pub(super) fn new(szx: u8) -> Self {
        Self {
            offset: 0,
            szx,
            again: false,
        }
    }

    /// Puts the current block into a message: the option, and the part of the body.
    pub(super) fn write(&self, body: &Bytes, options: &mut Options) -> Bytes {
        let end = (self.offset + block_size(self.szx)).min(body.len());
        let block = Block {
            num: u32::try_from(self.offset >> (4 + self.szx)).unwrap_or(Block::MAX_NUM),
            more: end < body.len(),
            szx: self.szx,
        };
        block.write(options, number::BLOCK1);
        if self.offset == 0 {
            let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
            options.set_uint(number::SIZE1, size);
        }
        body.slice(self.offset.min(end)..end)
    }

    /// Takes the response to the current block.
    pub(super) fn handle(&mut self, response: &Response, body_len: usize) -> Progress {
        let Ok(block) = Block::read(&response.options, number::BLOCK1) else {
            return Progress::Broken;
        };
        match response.code {
            Code::CONTINUE => {
                let sent = Block {
                    num: block.map_or(0, |block| block.num),
                    more: true,
                    szx: self.szx,
                };
                let next = self.offset + block_size(self.szx);
                if block.is_none() || sent.offset() != self.offset || next >= body_len {
                    return Progress::Broken;
                }
                self.offset = next;
                // A smaller block than ours is what the peer wants from here on (section 2.3).
                self.szx = block.map_or(self.szx, |block| block.szx.min(self.szx));
                Progress::Continue
            }
            // The peer has forgotten what it had: once more from the start (section 2.9.2).
            Code::REQUEST_ENTITY_INCOMPLETE if self.offset > 0 && !self.again => {
                self.offset = 0;
                self.again = true;
                Progress::Continue
            }
            // Smaller blocks would do (section 2.9.3).
            Code::REQUEST_ENTITY_TOO_LARGE if self.offset == 0 => match block {
                Some(block) if block.szx < self.szx => {
                    self.szx = block.szx;
                    Progress::Continue
                }
                _ => Progress::Done,
            },
            _ => Progress::Done,
        }
    }

    /// A whole body was too large, and the response names blocks that would do.
    pub(super) fn after_refusal(response: &Response, body_len: usize) -> Option<Self> {
        if response.code != Code::REQUEST_ENTITY_TOO_LARGE {
            return None;
        }
        let block = Block::read(&response.options, number::BLOCK1).ok()??;
        (block.size() < body_len).then(|| Self::new(block.szx))
    }
}

/// A response body that comes in with Block2.
#[derive(Debug)]
pub(super) struct Download {
    body: BytesMut,
    first: Response,
    szx: u8,
    restarts: u8,
}

/// Why a response body can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DownloadError {
    Broken,
    TooLarge,
}

/// A representation that changes faster than it can be read is given up after so many restarts.
const MAX_RESTARTS: u8 = 2;

impl Download {
    /// Begins with a response that more blocks follow; none when it is whole.
    pub(super) fn begin(response: &Response, max: usize) -> Result<Option<Self>, DownloadError> {
        let block = Block::read(&response.options, number::BLOCK2);
        let Some(block) = block.map_err(|_| DownloadError::Broken)? else {
            return Ok(None);
        };
        if block.num != 0 {
            return Err(DownloadError::Broken);
        }
        if !block.more {
            return Ok(None);
        }
        let mut download = Self {
            body: BytesMut::new(),
            first: response.clone(),
            szx: block.szx,
            restarts: 0,
        };
        download.append(block, &response.payload, max)?;
        Ok(Some(download))
    }

    /// Asks for the next block.
    pub(super) fn write(&self, options: &mut Options) {
        let num = self.body.len() >> (4 + self.szx);
        let block = Block {
            num: u32::try_from(num).unwrap_or(Block::MAX_NUM),
            more: false,
            szx: self.szx,
        };
        options.remove(number::OBSERVE);
        options.remove(number::BLOCK1);
        options.remove(number::SIZE1);
        block.write(options, number::BLOCK2);
    }

    /// Takes the next block; gives the whole response when it was the last.
    pub(super) fn handle(
        &mut self,
        response: &Response,
        max: usize,
    ) -> Result<Option<Response>, DownloadError> {
        let block = Block::read(&response.options, number::BLOCK2);
        let Some(block) = block.map_err(|_| DownloadError::Broken)? else {
            // The peer answers with something whole: an error, or a body that has become short.
            return Ok(Some(response.clone()));
        };
        if !response.code.is_success() {
            return Ok(Some(response.clone()));
        }
        let etag = |response: &Response| response.options.first(number::ETAG).map(<[u8]>::to_vec);
        if etag(response) != etag(&self.first) {
            return self.restart(response, block, max);
        }
        self.append(block, &response.payload, max)?;
        if block.more {
            return Ok(None);
        }
        let mut whole = self.first.clone();
        whole.options.remove(number::BLOCK2);
        whole.payload = std::mem::take(&mut self.body).freeze();
        Ok(Some(whole))
    }

    /// The representation has changed: what we have is worth nothing (section 2.4).
    fn restart(
        &mut self,
        response: &Response,
        block: Block,
        max: usize,
    ) -> Result<Option<Response>, DownloadError> {
        if self.restarts >= MAX_RESTARTS {
            return Err(DownloadError::Broken);
        }
        self.restarts += 1;
        self.body.clear();
        self.first = response.clone();
        self.szx = block.szx.min(self.szx);
        if block.num == 0 {
            self.append(block, &response.payload, max)?;
            if !block.more {
                return Ok(Some(response.clone()));
            }
        }
        Ok(None)
    }

    fn append(&mut self, block: Block, payload: &Bytes, max: usize) -> Result<(), DownloadError> {
        let fits = block.offset() == self.body.len()
            && payload.len() <= block.size()
            && (!block.more || payload.len() == block.size());
        if !fits || block.num == Block::MAX_NUM {
            return Err(DownloadError::Broken);
        }
        if self.body.len() + payload.len() > max {
            return Err(DownloadError::TooLarge);
        }
        self.szx = self.szx.min(block.szx);
        self.body.extend_from_slice(payload);
        Ok(())
    }
}

/// The part of a response that a request asks for, or the first part when it is too long for one
/// message (RFC 7959 section 2.4). Each block is cut from the whole anew; the ETag tells the peer
/// whether it was the same whole.
pub(super) fn cut(mut response: Response, wanted: Option<Block>, szx: u8) -> Response {
    let wanted = wanted.unwrap_or(Block {
        num: 0,
        more: false,
        szx: MAX_SZX,
    });
    // A block of ours may be smaller than wanted, but only from the start.
    let szx = if wanted.num == 0 {
        wanted.szx.min(szx)
    } else {
        wanted.szx
    };
    let (size, len) = (block_size(szx), response.payload.len());
    if len <= size && wanted.num == 0 || !response.code.is_success() {
        return response;
    }
    let block = Block { szx, ..wanted };
    let start = block.offset();
    if start >= len {
        return Response::new(Code::BAD_REQUEST).with_payload("no such block");
    }
    let end = (start + size).min(len);
    let more = end < len;
    Block { more, ..block }.write(&mut response.options, number::BLOCK2);
    if response.options.first(number::ETAG).is_none() {
        let etag = digest(&response.payload).to_be_bytes();
        response.options.add(number::ETAG, etag);
    }
    if block.num == 0 {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        response.options.set_uint(number::SIZE2, len);
    }
    response.payload = response.payload.slice(start..end);
    response
}

/// FNV-1a: enough to tell that a representation has changed.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a body has to go out in blocks.
pub(super) fn needs_upload(request: &Request, szx: u8) -> bool {
    request.payload.len() > block_size(szx)
}
