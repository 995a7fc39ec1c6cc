//! Micro-batches: documents, one after another in one stream of tokens.
//!
//! Which keys a token sees is data, not code: `lo..hi` per query and its inverse `qlo..qhi` per key hold causality,
//! the borders between documents and the sliding window at once.

pub use crate::op::IGNORED;

/// One tokenized text. Its tokens see each other and no other document.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Document {
    /// Token ids.
    pub ids: Vec<u32>,
    /// As many: the id, or [`IGNORED`]. Not shifted, as in HF: `labels[t]` is about `ids[t]`.
    pub labels: Vec<i32>,
}

impl Document {
    /// Appends `ids`. Their labels are the ids themselves, or [`IGNORED`] if they are not `trained`.
    pub fn push(&mut self, ids: &[u32], trained: bool) {
        self.ids.extend(ids);
        self.labels.extend(ids.iter().map(|&id| if trained { id as i32 } else { IGNORED }));
    }

    /// Labels that are not [`IGNORED`].
    pub fn labeled(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }

    /// Labels that the loss sees: the first token has none before it that could predict it.
    pub fn predicted(&self) -> usize {
        self.labels.iter().skip(1).filter(|&&label| label != IGNORED).count()
    }
}

/// `num_items_in_batch`, by which the summed loss of an optimizer step is divided: the labels of all its documents
/// that are not [`IGNORED`], counted before the shift as HF does (so the first label counts, though nothing predicts
/// it, unless packing has masked it).
pub fn num_items<'a>(documents: impl IntoIterator<Item = &'a Document>) -> usize {
    documents.into_iter().map(Document::labeled).sum()
}

/// The documents of one micro-batch in one stream, without padding. All arrays have one entry per token; the ranges
/// are half-open and in tokens of the stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MicroBatch {
    /// Token ids.
    pub ids: Vec<i32>,
    /// The label of the next token of the same document, or [`IGNORED`] (always at a document's end).
    pub targets: Vec<i32>,
    /// Position in the document.
    pub pos: Vec<i32>,
    /// First key that the token sees.
    pub lo: Vec<i32>,
    /// One past the last key that the token sees: itself.
    pub hi: Vec<i32>,
    /// First query that sees the token as a key: itself.
    pub qlo: Vec<i32>,
    /// One past the last query that sees the token.
    pub qhi: Vec<i32>,
    /// First key that the token sees in layers without a window.
    pub full_lo: Vec<i32>,
    /// One past the last query that sees the token in layers without a window.
    pub full_qhi: Vec<i32>,
    /// How many documents there are.
    pub documents: usize,
    /// Tokens of the longest row: what HF would pad all rows to. A row is a document, unless rows are packed. All tokens of
    /// the micro-batch if TRL would flatten its rows into one.
    pub longest_row: usize,
}

impl MicroBatch {
    /// Joins `documents`. With a `sliding_window` W a token sees W keys, itself included.
    pub fn new(documents: &[&Document], sliding_window: Option<usize>) -> Self {
        let tokens = documents.iter().map(|d| d.ids.len()).sum();
        let window = sliding_window.unwrap_or(usize::MAX);
        let empty = || Vec::with_capacity(tokens);
        let mut batch = MicroBatch {
            ids: empty(),
            targets: empty(),
            pos: empty(),
            lo: empty(),
            hi: empty(),
            qlo: empty(),
            qhi: empty(),
            full_lo: empty(),
            full_qhi: empty(),
            documents: documents.len(),
            longest_row: documents.iter().map(|d| d.ids.len()).max().unwrap_or(0),
        };
        for document in documents {
            let start = batch.ids.len();
            let end = start + document.ids.len();
            batch.ids.extend(document.ids.iter().map(|&id| id as i32));
            // An empty document has no first label to leave out.
            batch.targets.extend(document.labels.iter().skip(1).chain((start < end).then_some(&IGNORED)));
            for t in start..end {
                batch.pos.push((t - start) as i32);
                batch.lo.push(start.max((t + 1).saturating_sub(window)) as i32);
                batch.hi.push(t as i32 + 1);
                batch.qlo.push(t as i32);
                batch.qhi.push(end.min(t.saturating_add(window)) as i32);
                batch.full_lo.push(start as i32);
                batch.full_qhi.push(end as i32);
            }
        }
        batch
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Tokens as a collator pads them that gives each document a row: as long as the longest.
    pub fn padded_tokens(&self) -> usize {
        self.documents * self.pos.iter().max().map_or(0, |last| *last as usize + 1)
    }

    /// Tokens with a target: the terms of the loss.
    pub fn predicted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORED).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(ids: &[u32], ignored: usize) -> Document {
        let labels = ids.iter().enumerate().map(|(t, &id)| if t < ignored { IGNORED } else { id as i32 });
        Document { ids: ids.to_vec(), labels: labels.collect() }
    }

    #[test]
    fn targets_are_the_next_labels_of_the_same_document() {
        let (a, b, c) = (document(&[1, 5, 6, 2], 2), document(&[7], 0), document(&[1, 9], 0));
        let batch = MicroBatch::new(&[&a, &b, &c], None);
        assert_eq!(batch.ids, [1, 5, 6, 2, 7, 1, 9]);
        assert_eq!(batch.targets, [-100, 6, 2, -100, -100, 9, -100]);
        assert_eq!(batch.pos, [0, 1, 2, 3, 0, 0, 1]);
        assert_eq!((batch.documents, batch.tokens(), batch.predicted()), (3, 7, 3));
        assert_eq!((batch.padded_tokens(), MicroBatch::default().padded_tokens()), (12, 0));
        assert_eq!(num_items([&a, &b, &c]), 5, "the never-predicted first labels count");
        assert_eq!([&a, &b, &c].map(Document::predicted), [2, 0, 1]);
    }

    #[test]
    fn ranges_say_exactly_who_sees_whom() {
        let lengths = [5_usize, 1, 0, 3, 8];
        let documents: Vec<Document> = lengths.iter().map(|&n| document(&vec![3; n], 0)).collect();
        let owner: Vec<usize> = lengths.iter().enumerate().flat_map(|(d, &n)| vec![d; n]).collect();
        for window in [None, Some(1), Some(3), Some(8), Some(usize::MAX)] {
            let batch = MicroBatch::new(&documents.iter().collect::<Vec<_>>(), window);
            assert_eq!((batch.targets.len(), batch.tokens()), (17, 17));
            let unlimited = MicroBatch::new(&documents.iter().collect::<Vec<_>>(), None);
            assert_eq!((&batch.full_lo, &batch.full_qhi), (&unlimited.lo, &unlimited.qhi));
            for query in 0..17 {
                for key in 0..17 {
                    let sees = key <= query && owner[key] == owner[query] && window.is_none_or(|w| query - key < w);
                    let within = |x: usize, lo: i32, hi: i32| (lo..hi).contains(&(x as i32));
                    assert_eq!(within(key, batch.lo[query], batch.hi[query]), sees, "{query} sees {key}, {window:?}");
                    assert_eq!(
                        within(query, batch.qlo[key], batch.qhi[key]),
                        sees,
                        "{key} seen by {query}, {window:?}"
                    );
                }
            }
        }
    }
}
