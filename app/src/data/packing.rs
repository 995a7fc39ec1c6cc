//! Turns documents into rows: truncates or splits long documents, and packs rows.
//!
//! A row is the unit of a micro-batch: one document, or with packing several. Attention never crosses documents of a
//! row.

use std::collections::{BTreeMap, VecDeque};

use crate::config::data::OverLength;
use halfbyte_core::error::{Error, Result};

/// The tokens `start..end` of document `document`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DocumentSlice {
    /// Index of the document.
    pub document: usize,
    /// Index of the first token.
    pub start: usize,
    /// One past the last token.
    pub end: usize,
}

impl DocumentSlice {
    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.end - self.start
    }
}

/// Counts of the documents that [`fit`] truncated, split or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fitted {
    /// Documents that were too long.
    pub too_long: usize,
    /// Tokens that are in no piece.
    pub tokens_lost: usize,
}

/// Cuts documents into pieces of at most `max` tokens. Empty documents have no piece. `place` names the source of a
/// document in an error.
pub fn fit(
    lengths: &[usize],
    max: usize,
    rule: OverLength,
    place: impl Fn(usize) -> String,
) -> Result<(Vec<DocumentSlice>, Fitted)> {
    let (mut pieces, mut fitted) = (Vec::with_capacity(lengths.len()), Fitted::default());
    for (document, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        if length <= max {
            pieces.push(DocumentSlice { document, start: 0, end: length });
            continue;
        }
        fitted.too_long += 1;
        match rule {
            OverLength::Truncate => {
                pieces.push(DocumentSlice { document, start: 0, end: max });
                fitted.tokens_lost += length - max;
            }
            OverLength::Split => pieces.extend((0..length).step_by(max).map(|start| DocumentSlice {
                document,
                start,
                end: length.min(start + max),
            })),
            OverLength::Drop => fitted.tokens_lost += length,
            OverLength::Error => {
                return Err(Error::input(format!("{}: {length} tokens, but max_seq_length is {max}", place(document)))
                    .hint("raise max_seq_length, or set over_length to truncate, split or drop"));
            }
        }
    }
    Ok((pieces, fitted))
}

/// Rows of pieces, stored in one flat list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PackedRows {
    pieces: Vec<DocumentSlice>,
    ends: Vec<usize>,
}

impl PackedRows {
    /// One row per piece: no packing.
    pub fn unpacked(pieces: Vec<DocumentSlice>) -> PackedRows {
        PackedRows { ends: (1..=pieces.len()).collect(), pieces }
    }

    /// Best-fit decreasing: takes pieces from longest to shortest and puts each into the fullest row with room for it.
    /// Ties go to the earlier piece and the older row, so the rows depend only on the lengths.
    pub fn best_fit_decreasing(mut pieces: Vec<DocumentSlice>, capacity: usize) -> PackedRows {
        pieces.sort_by_key(|p| std::cmp::Reverse(p.tokens()));
        let mut rows: Vec<Vec<DocumentSlice>> = Vec::new();
        // Rows that are not full, by free tokens.
        let mut with_room: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
        for piece in pieces {
            let fullest = with_room.range_mut(piece.tokens()..).next();
            let (row, room) = match fullest.and_then(|(&room, rows)| rows.pop_front().map(|row| (row, room))) {
                Some((row, room)) => {
                    if with_room[&room].is_empty() {
                        with_room.remove(&room);
                    }
                    (row, room)
                }
                None => {
                    rows.push(Vec::new());
                    (rows.len() - 1, capacity)
                }
            };
            rows[row].push(piece);
            let left = room - piece.tokens();
            if left > 0 {
                with_room.entry(left).or_default().push_back(row);
            }
        }
        rows.into_iter().collect()
    }

    /// Concatenates the pieces and cuts them wherever a row is full, like `ConstantLengthDataset` of TRL 0.7. It works
    /// on one buffer at a time: a buffer is full after 1024 × 3.6 × `capacity` characters, and its last row is dropped
    /// if it is not full. `characters` has the number of characters of each document.
    ///
    /// Unlike in TRL, a piece that begins after a cut is a separate document for attention.
    pub fn wrapped(pieces: &[DocumentSlice], characters: &[usize], capacity: usize) -> PackedRows {
        let full = 3.6 * capacity as f64 * 1024.0;
        let mut rows = PackedRows::default();
        let mut row: Vec<DocumentSlice> = Vec::new();
        let (mut room, mut buffered) = (capacity, 0);
        for piece in pieces {
            if buffered as f64 >= full {
                row.clear();
                (room, buffered) = (capacity, 0);
            }
            buffered += characters[piece.document];
            let mut rest = *piece;
            while rest.tokens() > 0 {
                let taken = rest.tokens().min(room);
                row.push(DocumentSlice { end: rest.start + taken, ..rest });
                rest.start += taken;
                room -= taken;
                if room == 0 {
                    rows.push(row.drain(..));
                    room = capacity;
                }
            }
        }
        rows
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The pieces of a row.
    pub fn row(&self, row: usize) -> &[DocumentSlice] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.pieces[start..self.ends[row]]
    }

    /// The number of tokens of each row.
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|r| self.row(r).iter().map(DocumentSlice::tokens).sum()).collect()
    }

    fn push(&mut self, row: impl IntoIterator<Item = DocumentSlice>) {
        self.pieces.extend(row);
        self.ends.push(self.pieces.len());
    }
}

impl FromIterator<Vec<DocumentSlice>> for PackedRows {
    fn from_iter<I: IntoIterator<Item = Vec<DocumentSlice>>>(rows: I) -> PackedRows {
        let mut all = PackedRows::default();
        rows.into_iter().for_each(|row| all.push(row));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lengths: &[usize]) -> Vec<DocumentSlice> {
        fit(lengths, usize::MAX, OverLength::Error, |_| String::new()).unwrap().0
    }

    fn documents(rows: &PackedRows) -> Vec<Vec<(usize, usize)>> {
        (0..rows.len()).map(|r| rows.row(r).iter().map(|p| (p.document, p.tokens())).collect()).collect()
    }

    #[test]
    fn too_long_documents_follow_the_rule() {
        let lengths = [4, 0, 11, 5];
        let spans = |rule| {
            let (pieces, fitted) = fit(&lengths, 5, rule, |_| String::new()).unwrap();
            (pieces.iter().map(|p| (p.document, p.start, p.end)).collect::<Vec<_>>(), fitted)
        };
        let lost = |tokens_lost| Fitted { too_long: 1, tokens_lost };
        assert_eq!(spans(OverLength::Truncate), (vec![(0, 0, 4), (2, 0, 5), (3, 0, 5)], lost(6)));
        assert_eq!(spans(OverLength::Split), (vec![(0, 0, 4), (2, 0, 5), (2, 5, 10), (2, 10, 11), (3, 0, 5)], lost(0)));
        assert_eq!(spans(OverLength::Drop), (vec![(0, 0, 4), (3, 0, 5)], lost(11)));
        let error = fit(&lengths, 5, OverLength::Error, |d| format!("a.jsonl line {}", d + 1)).unwrap_err().to_string();
        assert!(error.starts_with("a.jsonl line 3: 11 tokens, but max_seq_length is 5\n  hint: raise"), "{error}");
    }

    #[test]
    fn best_fit_takes_the_fullest_row_with_room() {
        // 6 | 5 | 4 joins 6 (room 4, not 5) | 3 joins 5 | 2 joins 5+3 | 1 opens a row.
        let rows = PackedRows::best_fit_decreasing(pieces(&[1, 6, 3, 5, 2, 4]), 10);
        assert_eq!(documents(&rows), [vec![(1, 6), (5, 4)], vec![(3, 5), (2, 3), (4, 2)], vec![(0, 1)]]);
        assert_eq!(rows.lengths(), [10, 10, 1]);
        // Equal lengths keep their order and fill the older row first.
        let rows = PackedRows::best_fit_decreasing(pieces(&[4, 4, 4, 2, 2]), 6);
        assert_eq!(documents(&rows), [vec![(0, 4), (3, 2)], vec![(1, 4), (4, 2)], vec![(2, 4)]]);
    }

    #[test]
    fn best_fit_keeps_every_piece_once_and_no_row_overflows() {
        let lengths: Vec<usize> = (0..2000).map(|i| 1 + i * 7919 % 97).collect();
        let rows = PackedRows::best_fit_decreasing(pieces(&lengths), 100);
        assert!(rows.lengths().iter().all(|&n| n <= 100));
        let mut seen: Vec<usize> = documents(&rows).concat().iter().map(|(d, _)| *d).collect();
        seen.sort();
        assert!(seen.into_iter().eq(0..2000));
        let tokens: usize = lengths.iter().sum();
        assert!(rows.len() <= tokens.div_ceil(100) + 2, "{} rows for {tokens} tokens", rows.len());
    }

    #[test]
    fn wrapping_cuts_at_the_capacity_and_drops_each_buffers_rest() {
        let rows = PackedRows::wrapped(&pieces(&[3, 6, 4]), &[1, 1, 1], 5);
        assert_eq!(documents(&rows), [vec![(0, 3), (1, 2)], vec![(1, 4), (2, 1)]]);
        // 3.6 × 1024 × 5 characters fill a buffer: the first two documents are one, and a token of theirs is lost.
        let rows = PackedRows::wrapped(&pieces(&[3, 3, 4, 1]), &[18431, 1, 9, 9], 5);
        assert_eq!(documents(&rows), [vec![(0, 3), (1, 2)], vec![(2, 4), (3, 1)]]);
    }
}
