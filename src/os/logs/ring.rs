//! The last lines of one program, in memory.

use std::collections::VecDeque;

use super::Stream;
use crate::supervision::Run;

/// Bytes of text; with the entries at most 16 KiB a program, and nothing before its first line.
pub(super) const RING_TEXT: usize = 12 * 1024;
const RING_LINES: usize = 120;
/// A longer line is remembered by its beginning.
pub(super) const TEXT_MAX: usize = 4 * 1024;

/// One remembered line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Orders lines over all programs.
    pub sequence: u64,
    /// Which life wrote it.
    pub run: Run,
    /// Where.
    pub stream: Stream,
    length: u16,
    /// A line before it was forgotten.
    after_gap: bool,
}

/// The last lines of one program.
#[derive(Debug, Default)]
pub(super) struct Ring {
    text: VecDeque<u8>,
    entries: VecDeque<Entry>,
}

impl Ring {
    /// Tells whether lines before the oldest were forgotten.
    pub fn is_forgetful(&self) -> bool {
        self.entries.front().is_some_and(|oldest| oldest.after_gap)
    }

    /// Forgets all but the newest line: between it and the one before there were others.
    pub fn keep_newest(&mut self) {
        while self.entries.len() > 1 {
            self.forget_oldest();
        }
        if let Some(newest) = self.entries.front_mut() {
            newest.after_gap = true;
        }
    }

    /// Tells whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else {
            return false;
        };
        self.text.drain(..usize::from(oldest.length));
        if let Some(next) = self.entries.front_mut() {
            next.after_gap = true;
        }
        true
    }

    /// Remembers a line and forgets as many old ones as it takes.
    pub fn push(&mut self, at: u64, sequence: u64, (run, stream): (Run, Stream), line: &[u8]) {
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(RING_LINES);
        }
        let line = &line[..line.len().min(TEXT_MAX)];
        let mut after_gap = false;
        while self.entries.len() >= RING_LINES || self.text.len() + line.len() > RING_TEXT {
            after_gap = self.forget_oldest();
            if !after_gap {
                break;
            }
        }
        after_gap &= self.entries.is_empty();
        // Doubling from a small start would end above the bound.
        if self.text.capacity() < self.text.len() + line.len() {
            let wanted = (2 * (self.text.len() + line.len())).clamp(512, RING_TEXT);
            self.text.reserve_exact(wanted - self.text.len());
        }
        self.text.extend(line);
        let length = u16::try_from(line.len()).unwrap_or(u16::MAX);
        self.entries.push_back(Entry {
            at,
            sequence,
            run,
            stream,
            length,
            after_gap,
        });
    }

    /// Returns every line, newest first.
    pub fn newest(&self) -> impl Iterator<Item = (Entry, String)> {
        let mut end = self.text.len();
        self.entries.iter().rev().map(move |entry| {
            let start = end - usize::from(entry.length);
            let bytes: Vec<u8> = self.text.range(start..end).copied().collect();
            end = start;
            (*entry, String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    /// Returns the last lines of one run, oldest first: at most 20 and 4 KiB.
    pub fn last_lines(&self, run: Run) -> Vec<String> {
        let mut room = 4 * 1024;
        let mut lines: Vec<String> = self
            .newest()
            .filter(|(entry, _)| entry.run == run)
            .take(20)
            .map_while(|(_, line)| {
                room = usize::checked_sub(room, line.len())?;
                Some(line)
            })
            .collect();
        lines.reverse();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_lines_within_its_bound() {
        let mut ring = Ring::default();
        for number in 0..10_000_u64 {
            let line = format!("line {number} {}", "x".repeat((number % 300) as usize));
            ring.push(
                number,
                number,
                (Run(number / 5000), Stream::Stdout),
                line.as_bytes(),
            );
        }
        let bytes = ring.text.capacity() + ring.entries.capacity() * size_of::<Entry>();
        assert!(bytes <= 16 * 1024, "{bytes}");
        let lines: Vec<u64> = ring.newest().map(|(entry, _)| entry.at).collect();
        assert!(lines.len() > 20);
        assert!(
            lines
                .iter()
                .rev()
                .copied()
                .eq(10_000 - lines.len() as u64..10_000)
        );
        assert!(ring.last_lines(Run(0)).is_empty());
        assert!(ring.last_lines(Run(1)).len() <= 20);
    }
}
