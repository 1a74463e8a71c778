//! Frames: each message behind its length (protocol section 5).
//!
//! ```text
//! +-------------------------------+----------------------+
//! | length, 4 bytes, big-endian   | message, length bytes|
//! +-------------------------------+----------------------+
//! ```
//!
//! The length is 1 to 1 MiB. A peer that promises a long message gets memory only as its bytes come, and the whole frame must come
//! within [`FRAME_TIME`] of its first byte; how long to wait for that byte is the caller's business. Buffers are zeroed, for messages hold
//! secrets.

#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::message::{DecodeError, Message};

/// The longest message, in bytes.
pub const MAX_LENGTH: usize = 1 << 20;
/// How long a frame may take from its first byte to its last, either way.
pub const FRAME_TIME: Duration = Duration::from_secs(10);

/// Room for the first bytes of a message; most need no more.
const FIRST_ROOM: usize = 4096;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed the connection within a message.
    #[error("the peer closed the connection within a message")]
    Truncated,
    /// No message is that long.
    #[error("expected a message of 1 to {MAX_LENGTH} bytes, found one of {found}")]
    Length {
        /// The length announced, or that of a message to be sent.
        found: usize,
    },
    /// A frame took too long.
    #[error("expected the whole message within {} s", limit.as_secs_f32())]
    Late {
        /// The limit.
        limit: Duration,
    },
    /// What the frame holds is no message.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// An earlier message was not sent to its end.
    #[error("an earlier message was sent in part only")]
    Broken,
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A process that died has no time for TLS' good manners.
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl FrameError {
    /// One word for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Truncated => "truncated",
            Self::Length { .. } => "length",
            Self::Late { .. } => "late",
            Self::Decode(_) => "malformed",
            Self::Io(_) => "io",
            Self::Broken => "broken",
        }
    }
}

/// A message, and the bytes that it came as: HPKE's `info` is made over those.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Its encoding, as the peer chose it.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Takes messages from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    limit: Duration,
    header: [u8; 4],
    /// How much of the header is there.
    header_filled: usize,
    /// The message as far as there is room for it.
    body: Zeroizing<Vec<u8>>,
    /// How much of the message is there.
    body_filled: usize,
    /// When the frame must be there; from its first byte on.
    deadline: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from `from`, which nobody else may read from.
    pub fn new(from: R) -> Self {
        Self::with_limit(from, FRAME_TIME)
    }

    /// Like [`new`](Self::new), with a time of its own for a frame.
    pub fn with_limit(from: R, limit: Duration) -> Self {
        Self {
            from,
            limit,
            header: [0; 4],
            header_filled: 0,
            body: Zeroizing::default(),
            body_filled: 0,
            deadline: None,
        }
    }

    /// Whether a frame has begun and is not there yet.
    pub fn is_within_frame(&self) -> bool {
        self.deadline.is_some()
    }

    /// The next message. Waits for its first byte without end. May be dropped and called again at any time, as in `select!`: it goes on
    /// where it was. After an error the connection is to be closed.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next(&mut self) -> Result<Received, FrameError> {
        while self.header_filled < self.header.len() {
            let rest = self
                .header
                .get_mut(self.header_filled..)
                .unwrap_or_default();
            let read = within(self.deadline, self.limit, self.from.read(rest)).await?;
            match (read, self.header_filled) {
                (0, 0) => return Err(FrameError::Closed),
                (0, _) => return Err(FrameError::Truncated),
                _ => self.header_filled += read,
            }
            self.deadline
                .get_or_insert_with(|| Instant::now() + self.limit);
        }
        let length = usize::try_from(u32::from_be_bytes(self.header)).unwrap_or(usize::MAX);
        if !(1..=MAX_LENGTH).contains(&length) {
            return Err(FrameError::Length { found: length });
        }
        while self.body_filled < length {
            if self.body_filled == self.body.len() {
                self.grow(length);
            }
            let rest = self.body.get_mut(self.body_filled..).unwrap_or_default();
            match within(self.deadline, self.limit, self.from.read(rest)).await? {
                0 => return Err(FrameError::Truncated),
                read => self.body_filled += read,
            }
        }
        let bytes = std::mem::take(&mut self.body);
        self.body_filled = 0;
        self.header_filled = 0;
        self.deadline = None;
        let message = Message::decode(&bytes)?;
        Ok(Received { message, bytes })
    }

    /// Makes room for as many bytes again as there are, up to `length`.
    fn grow(&mut self, length: usize) {
        let room = (2 * self.body.len())
            .clamp(FIRST_ROOM, MAX_LENGTH)
            .min(length);
        // Not by `resize`, which leaves the old bytes behind unzeroed.
        let mut larger = Zeroizing::new(vec![0; room]);
        for (to, from) in larger.iter_mut().zip(self.body.iter()) {
            *to = *from;
        }
        self.body = larger;
    }
}

/// A read that ends at `deadline`, if there is one yet.
async fn within(
    deadline: Option<Instant>,
    limit: Duration,
    read: impl Future<Output = io::Result<usize>>,
) -> Result<usize, FrameError> {
    let Some(deadline) = deadline else {
        return Ok(read.await?);
    };
    match timeout_at(deadline, read).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(FrameError::Late { limit }),
    }
}

/// Puts messages into a stream.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    limit: Duration,
    /// A message is under way, or was left there.
    busy: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes to `to`, which nobody else may write to.
    pub fn new(to: W) -> Self {
        Self::with_limit(to, FRAME_TIME)
    }

    /// Like [`new`](Self::new), with a time of its own for a frame.
    pub fn with_limit(to: W, limit: Duration) -> Self {
        Self {
            to,
            limit,
            busy: false,
        }
    }

    /// Sends a message and returns its encoding. If it is dropped before it ends, or fails, the connection is to be closed.
    ///
    /// # Errors
    /// [`FrameError::Length`], before anything is sent, if the message is too long; [`FrameError::Late`], [`FrameError::Io`] and
    /// [`FrameError::Broken`].
    pub async fn send(&mut self, message: &Message) -> Result<Zeroizing<Vec<u8>>, FrameError> {
        let bytes = message.encode();
        let found = bytes.len();
        if found > MAX_LENGTH {
            return Err(FrameError::Length { found });
        }
        let length = u32::try_from(found).map_err(|_| FrameError::Length { found })?;
        if self.busy {
            return Err(FrameError::Broken);
        }
        // In one piece, so that the length does not travel alone.
        let mut frame = Zeroizing::new(Vec::with_capacity(4 + found));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&bytes);
        self.busy = true;
        let write = async {
            self.to.write_all(&frame).await?;
            self.to.flush().await
        };
        match timeout(self.limit, write).await {
            Ok(written) => written?,
            Err(_) => return Err(FrameError::Late { limit: self.limit }),
        }
        self.busy = false;
        Ok(bytes)
    }

    /// Says that nothing more comes, and closes this direction. Takes no longer than a frame may.
    ///
    /// # Errors
    /// [`FrameError::Late`] and [`FrameError::Io`].
    pub async fn close(&mut self) -> Result<(), FrameError> {
        match timeout(self.limit, self.to.shutdown()).await {
            Ok(closed) => Ok(closed?),
            Err(_) => Err(FrameError::Late { limit: self.limit }),
        }
    }
}
