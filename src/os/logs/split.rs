//! Bytes into lines, whatever the reads cut them into.

use memchr::memchr;

/// A longer line is told in pieces of this many bytes, so that no line can grow memory.
pub(super) const LINE_MAX: usize = 64 * 1024;

/// A line without its end, or a piece of a very long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What was written.
    pub bytes: &'a [u8],
    /// The line goes on in the next piece.
    pub partial: bool,
}

/// Holds the line that is not finished yet; an idle stream holds no memory.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    carry: Vec<u8>,
}

impl Splitter {
    /// Tells every line that `chunk` completes.
    pub fn feed(&mut self, mut chunk: &[u8], tell: &mut impl FnMut(Piece<'_>)) {
        while let Some(end) = memchr(b'\n', chunk) {
            self.push(&chunk[..end], true, tell);
            chunk = &chunk[end + 1..];
        }
        if !chunk.is_empty() {
            self.push(chunk, false, tell);
        }
    }

    /// Tells the line that never got its end, if there is one.
    pub fn finish(&mut self, tell: &mut impl FnMut(Piece<'_>)) {
        if !self.carry.is_empty() {
            let bytes = std::mem::take(&mut self.carry);
            tell(Piece {
                bytes: &bytes,
                partial: false,
            });
        }
    }

    /// Forgets the unfinished line.
    pub fn reset(&mut self) {
        self.carry = Vec::new();
    }

    fn push(&mut self, mut bytes: &[u8], ends: bool, tell: &mut impl FnMut(Piece<'_>)) {
        if !self.carry.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(LINE_MAX - self.carry.len()));
            self.carry.extend_from_slice(head);
            bytes = rest;
            if bytes.is_empty() && !ends {
                return;
            }
            let whole = std::mem::take(&mut self.carry);
            let partial = !bytes.is_empty();
            tell(Piece {
                bytes: &whole,
                partial,
            });
            if !partial {
                return;
            }
        }
        while bytes.len() > LINE_MAX {
            let (head, rest) = bytes.split_at(LINE_MAX);
            tell(Piece {
                bytes: head,
                partial: true,
            });
            bytes = rest;
        }
        if ends {
            tell(Piece {
                bytes,
                partial: false,
            });
        } else {
            self.carry.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(usize, bool)> {
        let mut splitter = Splitter::default();
        let mut told = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, &mut |piece| {
                told.push((piece.bytes.len(), piece.partial))
            });
        }
        splitter.finish(&mut |piece| told.push((piece.bytes.len(), piece.partial)));
        told
    }

    #[test]
    fn lines_are_the_same_however_the_reads_cut_them() {
        let text = b"one\n\nthree\nrest";
        let whole = lines(&[text]);
        assert_eq!(whole, [(3, false), (0, false), (5, false), (4, false)]);
        for cut in 0..=text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_longer_than_the_limit_comes_in_pieces_that_say_so() {
        let long = vec![b'x'; 2 * LINE_MAX + 10];
        let expected = [(LINE_MAX, true), (LINE_MAX, true), (10, false)];
        assert_eq!(lines(&[&long, b"\n"]), expected);
        let reads: Vec<&[u8]> = long.chunks(1000).collect();
        assert_eq!(lines(&reads), expected);
    }
}
