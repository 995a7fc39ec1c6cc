//! Stores the tokenized documents of a run in four bytes per token.

use std::ops::Range;

use twox_hash::XxHash3_128;

use crate::data::packing::DocumentSlice;
use crate::data::spill::{Spill, SpillWriter};
use halfbyte_core::error::Result;
use halfbyte_core::session::batch::{Document, IGNORED};

/// This bit is set in tokens that are not trained. Vocabularies are far smaller than 2³¹.
const MASKED: u32 = 1 << 31;

/// Collects documents; [`TokensWriter::finish`] makes them readable.
#[derive(Default)]
pub struct TokensWriter {
    ends: Vec<u64>,
    store: SpillWriter,
    hasher: XxHash3_128,
}

impl TokensWriter {
    /// Adds a document.
    pub fn push(&mut self, document: &Document) -> Result<()> {
        let word = |(id, &label): (&u32, &i32)| if label == IGNORED { id | MASKED } else { *id };
        let words = document.ids.iter().zip(&document.labels).map(word);
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        self.store.write(&bytes)?;
        self.hasher.write(&bytes);
        self.ends.push(self.store.written() / 4);
        Ok(())
    }

    /// Finishes writing and makes the documents readable.
    pub fn finish(self) -> Result<Tokens> {
        Ok(Tokens { ends: self.ends, store: self.store.finish()?, hash: self.hasher.finish_128() })
    }
}

/// Tokenized documents, indexed by number.
pub struct Tokens {
    ends: Vec<u64>,
    store: Spill,
    hash: u128,
}

impl Tokens {
    /// XXH3 of all tokens and of the choice which ones are trained, without the borders of documents.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// Releases the tokens' pages in memory, see [`MappedFile::forget`](crate::disk::mapped::MappedFile::forget).
    pub fn forget(&self) {
        self.store.forget();
    }

    /// Tokens of a document.
    pub fn length(&self, document: usize) -> usize {
        let (start, end) = self.bounds(document);
        end - start
    }

    /// Tokens of each document.
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.documents()).map(|d| self.length(d)).collect()
    }

    /// The slice `range` of a document as a document of its own.
    pub fn piece(&self, document: usize, range: Range<usize>) -> Document {
        let start = self.bounds(document).0;
        let bytes = &self.store[4 * (start + range.start)..4 * (start + range.end)];
        let words = bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let label = |word: u32| if word & MASKED == 0 { word as i32 } else { IGNORED };
        Document { ids: words.clone().map(|w| w & !MASKED).collect(), labels: words.map(label).collect() }
    }

    /// Whether any token of a piece is trained.
    pub fn trains(&self, piece: &DocumentSlice) -> bool {
        self.seen(piece).any(|seen| seen)
    }

    /// The number of trained tokens of a piece.
    pub fn trained(&self, piece: &DocumentSlice) -> usize {
        self.seen(piece).filter(|seen| *seen).count()
    }

    /// For each token of a piece except the first, which has no prediction: whether it is trained.
    fn seen(&self, piece: &DocumentSlice) -> impl Iterator<Item = bool> {
        let start = self.bounds(piece.document).0;
        let bytes = &self.store[4 * (start + piece.start)..4 * (start + piece.end)];
        bytes.chunks_exact(4).skip(1).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) & MASKED == 0)
    }

    /// A whole document.
    pub fn document(&self, document: usize) -> Document {
        self.piece(document, 0..self.length(document))
    }

    fn bounds(&self, document: usize) -> (usize, usize) {
        let start = if document == 0 { 0 } else { self.ends[document - 1] };
        (start as usize, self.ends[document] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_with_their_labels() {
        let documents = [
            Document { ids: vec![1, 7, 9], labels: vec![IGNORED, 7, IGNORED] },
            Document::default(),
            Document { ids: vec![0, 31_999], labels: vec![0, 31_999] },
        ];
        let mut writer = TokensWriter::default();
        documents.iter().for_each(|d| writer.push(d).unwrap());
        let tokens = writer.finish().unwrap();
        assert_eq!(tokens.lengths(), [3, 0, 2]);
        for (i, document) in documents.iter().enumerate() {
            assert_eq!(tokens.document(i), *document);
        }
        assert_eq!(tokens.piece(0, 1..3), Document { ids: vec![7, 9], labels: vec![7, IGNORED] });
        let trains = |document, start, end| tokens.trains(&DocumentSlice { document, start, end });
        assert!(trains(0, 0, 2) && !trains(0, 1, 3) && !trains(0, 2, 3) && trains(2, 0, 2) && !trains(1, 0, 0));
        assert_eq!(tokens.trained(&DocumentSlice { document: 0, start: 0, end: 3 }), 1);
    }
}
