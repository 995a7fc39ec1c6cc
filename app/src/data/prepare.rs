//! Turns records into rows on all cores: formats, encodes, truncates and packs them, and counts anomalies.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;
use serde::Serialize;

use crate::config::data::{OverLength, PackingStrategy};
use crate::data::document::Encoder;
use crate::data::format::RecordFormatter;
use crate::data::loader::Dataset;
use crate::data::packing::{DocumentSlice, PackedRows, fit};
use crate::data::table::Table;
use crate::data::tokens::{Tokens, TokensWriter};
use halfbyte_core::error::{Error, Result};
use halfbyte_core::session::batch::Document;

/// The rules for the length and packing of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowRules {
    /// `max_seq_length`.
    pub longest: usize,
    /// The rule for longer documents.
    pub over_length: OverLength,
    /// How several documents share a row; None: one document per row.
    pub packing: Option<PackingStrategy>,
}

/// Counts of records, documents, tokens and anomalies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DataCounts {
    /// Records read.
    pub records: usize,
    /// Records without any token.
    pub empty: usize,
    /// Documents that repeat an earlier one, with the same tokens and mask.
    pub duplicates: usize,
    /// Documents that begin with more than one begin token.
    pub double_bos: usize,
    /// Documents with trained tokens that do not end with a trained end token.
    pub missing_eos: usize,
    /// Documents in which `<s>` or `</s>` is text, not a token.
    pub literal_special: usize,
    /// Documents longer than a row.
    pub too_long: usize,
    /// Documents, or pieces of them, without a trained token. They are dropped.
    pub untrained: usize,
    /// Tokens that are in no row: truncated, in dropped documents, or in the remainder that wrapping drops.
    pub tokens_lost: usize,
    /// The part of `tokens_lost` that comes from documents that were too long.
    pub tokens_cut: usize,
    /// Tokens of all rows.
    pub tokens: usize,
    /// Trained tokens of all rows.
    pub trained: usize,
    /// The number of rows.
    pub rows: usize,
}

/// The special tokens that end documents, each with the number of documents.
pub type EndTokens = Vec<(u32, usize)>;

/// The rows for a [`Loader`](crate::data::loader::Loader), with their counts.
pub struct PreparedRows {
    /// Documents and rows.
    pub dataset: Dataset,
    /// The counts of records, documents and tokens.
    pub counts: DataCounts,
    /// Tokens of every document before truncation.
    pub lengths: Vec<usize>,
    /// How often each special token ends a document.
    pub ends: EndTokens,
}

/// The document of one record, with its statistics.
struct Encoded {
    document: Document,
    /// Hash of its tokens and labels.
    hash: u64,
    /// Characters of its text; 0 unless the packing strategy needs them.
    characters: usize,
    literal_special: bool,
}

/// Records formatted and encoded at once: enough to occupy all cores, few enough to bound memory.
const AT_ONCE: usize = 2048;

/// Prepares all records of `table`. `progress` is called with the number of records done.
pub fn prepare(
    table: &Table,
    format: &RecordFormatter,
    encoder: &Encoder,
    rules: RowRules,
    progress: &dyn Fn(usize),
) -> Result<PreparedRows> {
    let mut counts = DataCounts { records: table.len(), ..DataCounts::default() };
    let wrapped = rules.packing == Some(PackingStrategy::Wrapped);
    let (tokens, characters, ends) = encode(table, format, encoder, wrapped, &mut counts, progress)?;
    let lengths = tokens.lengths();
    let all_tokens: usize = lengths.iter().sum();
    let (longest, over_length) = match rules.packing {
        // Wrapping cuts documents at row ends, so the length limit does not apply.
        Some(PackingStrategy::Wrapped) => (usize::MAX, OverLength::Truncate),
        _ => (rules.longest, rules.over_length),
    };
    let (mut pieces, fitted) = fit(&lengths, longest, over_length, |document| table.place(document))?;
    let pieces_before = pieces.len();
    retain_trained(&mut pieces, &tokens);
    counts.too_long = fitted.too_long;
    counts.tokens_cut = fitted.tokens_lost;
    counts.untrained = pieces_before - pieces.len();
    if pieces.is_empty() {
        return Err(nothing_to_train_on(&counts));
    }
    let rows = match rules.packing {
        None => PackedRows::unpacked(pieces),
        Some(PackingStrategy::Bfd) => PackedRows::best_fit_decreasing(pieces, rules.longest),
        Some(PackingStrategy::Wrapped) => PackedRows::wrapped(&pieces, &characters, rules.longest),
    };
    if rows.is_empty() {
        return Err(Error::input(format!("{all_tokens} tokens do not fill one row of {}", rules.longest))
            .hint("lower max_seq_length, or set packing_strategy = \"bfd\""));
    }
    counts.rows = rows.len();
    counts.tokens = rows.lengths().iter().sum();
    counts.tokens_lost = all_tokens - counts.tokens;
    counts.trained = trained(&rows, &tokens);
    Ok(PreparedRows { dataset: Dataset { tokens, rows }, counts, lengths, ends })
}

/// Drops the pieces without a trained token.
fn retain_trained(pieces: &mut Vec<DocumentSlice>, tokens: &Tokens) {
    let mut looked_at = 0;
    pieces.retain(|piece| {
        looked_at += 1;
        if looked_at % AT_ONCE == 0 {
            tokens.forget();
        }
        tokens.trains(piece)
    });
}

/// Trained tokens of all rows.
fn trained(rows: &PackedRows, tokens: &Tokens) -> usize {
    let mut pieces: Vec<DocumentSlice> = (0..rows.len()).flat_map(|row| rows.row(row)).copied().collect();
    // In the order of the store, because packing has shuffled them.
    pieces.sort_unstable_by_key(|piece| (piece.document, piece.start));
    let parts = pieces.chunks(AT_ONCE).map(|part| {
        tokens.forget();
        part.iter().map(|piece| tokens.trained(piece)).sum::<usize>()
    });
    parts.sum()
}

fn nothing_to_train_on(counts: &DataCounts) -> Error {
    if counts.empty == counts.records {
        return Error::input(format!("none of the {} records has any text", counts.records))
            .hint("look at the formatted records: halfbyte inspect-data RECIPE");
    }
    Error::input(format!("no token of any of the {} records is trained on: all labels are masked", counts.records))
        .hint("check train_on and role_markers (is the answer there, and within max_seq_length?)")
}

/// The tokens of every document, with `count_characters` its number of characters, and how often each special token
/// ends a document.
fn encode(
    table: &Table,
    format: &RecordFormatter,
    encoder: &Encoder,
    count_characters: bool,
    counts: &mut DataCounts,
    progress: &dyn Fn(usize),
) -> Result<(Tokens, Vec<usize>, EndTokens)> {
    let mut writer = TokensWriter::default();
    let mut characters = Vec::with_capacity(table.len());
    let mut seen = HashSet::new();
    let mut ends = BTreeMap::new();
    for start in (0..table.len()).step_by(AT_ONCE) {
        let rows = start..table.len().min(start + AT_ONCE);
        let done = rows.end;
        // Not collected into one `Result`, which would return any error: the first one must be returned, however the
        // threads ran.
        let encoded: Vec<Result<Encoded>> =
            rows.into_par_iter().map(|row| one(table, format, encoder, count_characters, row)).collect();
        for encoded in encoded {
            let Encoded { document, hash, characters: length, literal_special } = encoded?;
            let (ids, bos) = (&document.ids, encoder.bos());
            counts.duplicates += usize::from(!seen.insert(hash) && !ids.is_empty());
            counts.empty += usize::from(ids.is_empty());
            counts.double_bos +=
                usize::from(bos.is_some() && ids.first() == bos.as_ref() && ids.get(1) == bos.as_ref());
            match encoder.answer_end(&document) {
                Some(id) => *ends.entry(id).or_insert(0) += 1,
                None => counts.missing_eos += usize::from(document.labeled() > 0),
            }
            counts.literal_special += usize::from(literal_special);
            characters.push(length);
            writer.push(&document)?;
        }
        progress(done);
        table.forget();
    }
    Ok((writer.finish()?, characters, ends.into_iter().collect()))
}

fn one(
    table: &Table,
    format: &RecordFormatter,
    encoder: &Encoder,
    count_characters: bool,
    row: usize,
) -> Result<Encoded> {
    let record = table.record(row)?;
    let text = format.text(&record).map_err(|e| e.at(table.place(row)))?;
    let document = encoder.document(&text, format.train_on);
    let mut hasher = DefaultHasher::new();
    (&document.ids, &document.labels).hash(&mut hasher);
    Ok(Encoded {
        document,
        hash: hasher.finish(),
        characters: if count_characters { format.literals.unmark(&text).chars().count() } else { 0 },
        literal_special: encoder.has_literal(&text),
    })
}
