//! The frames on the two pipes between the host and the child: a kind, a length and so many bytes. Neither side trusts the other's lengths.

use std::io::{self, Read, Write};

/// To the child: orders for the first stage, then the task for the second, each as JSON.
pub const ORDERS: u8 = b'1';
/// See [`ORDERS`].
pub const TASK: u8 = b'2';
/// To the child: a piece of the source as a tar.
pub const SOURCE: u8 = b'S';
/// To the host: a line of the build's output.
pub const LINE: u8 = b'L';
/// To the host: a piece of what was built, as a tar.
pub const OUTPUT: u8 = b'O';
/// Either way: the tar is complete.
pub const END: u8 = b'Z';
/// To the host: it is done, as JSON.
pub const DONE: u8 = b'D';
/// To the host: it has failed, as JSON.
pub const FAILED: u8 = b'E';

/// Largest frame. A project file, and so a task, is far smaller.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// What a tar is cut into.
const PIECE_BYTES: usize = 64 << 10;

/// Writes one frame.
pub fn write(to: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length =
        u32::try_from(payload.len()).ok().filter(|_| payload.len() <= FRAME_BYTES_MAX).ok_or_else(|| io::Error::other("too large for a frame"))?;
    let mut head = [kind, 0, 0, 0, 0];
    for (byte, value) in head.iter_mut().skip(1).zip(length.to_le_bytes()) {
        *byte = value;
    }
    to.write_all(&head)?;
    to.write_all(payload)?;
    to.flush()
}

/// Reads one frame; nothing at the end of the stream.
pub fn read(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame is too large"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    let [kind] = kind;
    Ok(Some((kind, payload)))
}

/// The frame of that kind, as JSON.
pub fn read_json<T: serde::de::DeserializeOwned>(from: &mut impl Read, kind: u8) -> io::Result<T> {
    match read(from)? {
        Some((found, payload)) if found == kind => Ok(serde_json::from_slice(&payload)?),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A value as JSON, in one frame.
pub fn write_json(to: &mut impl Write, kind: u8, value: &impl serde::Serialize) -> io::Result<()> {
    write(to, kind, &serde_json::to_vec(value)?)
}

/// A tar that is written in frames.
pub struct PiecesOut<W> {
    pub to: W,
    pub kind: u8,
}

impl<W: Write> Write for PiecesOut<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        write(&mut self.to, self.kind, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A tar that is read from frames, up to [`END`].
pub struct PiecesIn<'a, R> {
    from: &'a mut R,
    kind: u8,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl<'a, R: Read> PiecesIn<'a, R> {
    /// Frames of that kind. `first` is one that was read already.
    pub fn new(from: &'a mut R, kind: u8, first: Vec<u8>) -> Self {
        Self { from, kind, piece: io::Cursor::new(first), ended: false }
    }
}

impl<R: Read> Read for PiecesIn<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || self.ended || buffer.is_empty() {
                return Ok(read);
            }
            match read_frame(self.from)? {
                (END, _) => self.ended = true,
                (kind, piece) if kind == self.kind => self.piece = io::Cursor::new(piece),
                _ => return Err(io::Error::other("a frame that does not belong here")),
            }
        }
    }
}

fn read_frame(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    read(from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
