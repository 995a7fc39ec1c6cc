//! Turns rows into optimizer steps in a deterministic order, which can be resumed after any step.

use serde::{Deserialize, Serialize};

use crate::config::data::PackingStrategy;
use crate::config::recipe::Recipe;
use crate::data::packing::PackedRows;
use crate::data::random::Pcg64;
use crate::data::sampler::group_by_length;
use crate::data::tokens::Tokens;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::session::batch::{Document, IGNORED, MicroBatch, num_items};

/// The settings for batches.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Batching {
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of an optimizer step.
    pub accumulation: usize,
    /// `group_by_length`: batches hold rows of similar length.
    pub group_by_length: bool,
    /// Leave out a last micro-batch that is not full.
    pub drop_last: bool,
    /// Whether rows are packed. The first label of each document is then masked, as in HF's flattening collator.
    pub packed: bool,
    /// Whether TRL flattens the packed rows of a micro-batch into one, as it does unless they are cut (`wrapped`). The
    /// length of that row determines the size of NEFTune's noise.
    pub flattened: bool,
    /// The model's sliding window, in tokens.
    pub sliding_window: Option<usize>,
    /// Seed of the order.
    pub seed: u64,
}

impl Batching {
    /// The settings of a recipe for the model of `config`.
    pub fn new(recipe: &Recipe, config: &ModelConfig) -> Self {
        let Recipe { data, training, .. } = recipe;
        Self {
            batch: training.batch_size,
            accumulation: training.accumulation,
            group_by_length: data.group_by_length,
            drop_last: training.drop_last,
            packed: data.packing,
            flattened: data.packing && data.packing_strategy == PackingStrategy::Bfd,
            sliding_window: config.sliding_window,
            seed: training.data_seed,
        }
    }
}

/// Tokenized documents and the rows made of them.
pub struct Dataset {
    /// The documents.
    pub tokens: Tokens,
    /// The rows; a micro-batch has one or more of them.
    pub rows: PackedRows,
}

impl Dataset {
    /// The documents of row `row`. With `packed`, their first labels are masked.
    pub fn documents(&self, row: usize, packed: bool) -> impl Iterator<Item = Document> {
        self.rows.row(row).iter().map(move |piece| {
            let mut document = self.tokens.piece(piece.document, piece.start..piece.end);
            if packed && let Some(label) = document.labels.first_mut() {
                *label = IGNORED;
            }
            document
        })
    }

    /// All rows in their stored order, `batch` at a time, for evaluation.
    pub fn in_order(
        &self,
        batch: usize,
        packed: bool,
        sliding_window: Option<usize>,
    ) -> impl Iterator<Item = MicroBatch> {
        (0..self.rows.len()).step_by(batch.max(1)).map(move |start| {
            let rows = start..self.rows.len().min(start + batch.max(1));
            self.micro_batch(&rows.collect::<Vec<_>>(), packed, sliding_window).0
        })
    }

    /// The micro-batch of `rows`, and how many of its labels count toward the loss.
    fn micro_batch(&self, rows: &[usize], packed: bool, sliding_window: Option<usize>) -> (MicroBatch, usize) {
        let documents: Vec<Document> = rows.iter().flat_map(|&row| self.documents(row, packed)).collect();
        let mut batch = MicroBatch::new(&documents.iter().collect::<Vec<_>>(), sliding_window);
        let length = |row: &usize| self.rows.row(*row).iter().map(|piece| piece.end - piece.start).sum();
        batch.longest_row = rows.iter().map(length).max().unwrap_or(0);
        (batch, num_items(&documents))
    }

    /// A hash of the documents' tokens and lengths and of the rows, stored in checkpoints.
    fn fingerprint(&self) -> u64 {
        // FNV-1a over everything that maps a row number to tokens.
        let pieces = (0..self.rows.len()).flat_map(|r| self.rows.row(r).iter().map(move |p| (r, p)));
        let numbers = pieces.flat_map(|(r, p)| [r, p.document, p.start, p.end, self.tokens.length(p.document)]);
        let hash = self.tokens.hash();
        let start = 0xcbf2_9ce4_8422_2325 ^ hash as u64 ^ (hash >> 64) as u64;
        numbers.fold(start, |h, n| (h ^ n as u64).wrapping_mul(0x0100_0000_01b3))
    }
}

/// The position of a [`Loader`] in the data; part of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Seed of the order.
    pub seed: u64,
    /// Number of the current epoch, from 0.
    pub epoch: u64,
    /// Rows of this epoch that were already returned.
    pub index: usize,
    /// Hash of the rows, so that a checkpoint is not resumed on other data.
    pub fingerprint: u64,
}

/// The data of one optimizer step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepData {
    /// At most `accumulation` micro-batches; fewer at the end of an epoch.
    pub micro_batches: Vec<MicroBatch>,
    /// The divisor of the step's summed loss ([`num_items`]).
    pub num_items: usize,
    /// The row numbers, for the error if the loss is not finite.
    pub rows: Vec<usize>,
    /// Tokens as HF's Trainer counts them, including padding if rows are not packed.
    pub padded_tokens: usize,
    /// Epochs done after this step, as a fraction: 0.5 is the middle of the first.
    pub epoch: f64,
}

/// Returns steps endlessly, epoch after epoch. Each epoch has its own order.
pub struct Loader {
    dataset: Dataset,
    batching: Batching,
    position: Position,
    order: Vec<usize>,
    /// Tokens of each row.
    lengths: Vec<usize>,
}

impl Loader {
    /// A loader at the start of the first epoch. Errors if an epoch has no micro-batch.
    pub fn new(dataset: Dataset, batching: Batching) -> Result<Loader> {
        let rows = dataset.rows.len();
        if rows == 0 || batching.batch == 0 || (batching.drop_last && rows < batching.batch) {
            return Err(Error::input(format!("{rows} rows do not fill a batch of {}", batching.batch)));
        }
        let position = Position { seed: batching.seed, epoch: 0, index: 0, fingerprint: dataset.fingerprint() };
        let lengths = dataset.rows.lengths();
        let mut loader = Loader { dataset, batching, position, order: Vec::new(), lengths };
        loader.order = loader.order_of(0);
        Ok(loader)
    }

    /// The position at which the next step begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Moves to a position of an equal loader. Errors if the data or the seed differ.
    pub fn seek(&mut self, position: Position) -> Result<()> {
        let here = self.position;
        if position.seed != here.seed || position.fingerprint != here.fingerprint || position.index > self.order.len() {
            let what = if position.seed != here.seed { "the seed" } else { "the training data" };
            return Err(Error::input(format!("the checkpoint cannot be continued: {what} has changed since"))
                .hint("restore the original data and seed, or start a new run in another output_dir"));
        }
        self.position = position;
        self.order = self.order_of(position.epoch);
        Ok(())
    }

    /// The data of the next optimizer step.
    pub fn next_step(&mut self) -> StepData {
        if self.position.index == self.order.len() {
            self.position.epoch += 1;
            self.position.index = 0;
            self.order = self.order_of(self.position.epoch);
        }
        let Batching { batch, accumulation, packed, flattened, sliding_window, .. } = self.batching;
        let rest = &self.order[self.position.index..];
        let rows = &rest[..rest.len().min(batch * accumulation.max(1))];
        let micro_batch = |rows: &[usize]| {
            let (mut batch, items) = self.dataset.micro_batch(rows, packed, sliding_window);
            if flattened {
                batch.longest_row = batch.tokens();
            }
            (batch, items)
        };
        let (micro_batches, items): (Vec<_>, Vec<_>) = rows.chunks(batch).map(micro_batch).unzip();
        let rows = rows.to_vec();
        self.position.index += rows.len();
        let padded = |b: &MicroBatch| if packed { b.tokens() } else { b.padded_tokens() };
        StepData {
            padded_tokens: micro_batches.iter().map(padded).sum(),
            micro_batches,
            num_items: items.iter().sum(),
            rows,
            epoch: self.position.epoch as f64 + self.position.index as f64 / self.order.len() as f64,
        }
    }

    /// The rows and tokens that the steps are made of.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The row numbers of an epoch in order, without those that `drop_last` drops.
    fn order_of(&self, epoch: u64) -> Vec<usize> {
        let Batching { batch, accumulation, group_by_length: grouped, drop_last, seed, .. } = self.batching;
        let mut order = Pcg64::new(&[seed, epoch]).permutation(self.dataset.rows.len());
        if grouped {
            order = group_by_length(&self.lengths, batch * accumulation.max(1), order);
        }
        if drop_last {
            order.truncate(order.len() / batch * batch);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::data::OverLength;
    use crate::data::packing::fit;
    use crate::data::tokens::TokensWriter;

    /// Ten documents of 2 to 11 tokens; document d is made of the id d.
    fn dataset(packed: bool) -> Dataset {
        let mut writer = TokensWriter::default();
        for d in 0..10_u32 {
            let ids = vec![d; d as usize + 2];
            writer.push(&Document { labels: ids.iter().map(|&i| i as i32).collect(), ids }).unwrap();
        }
        let tokens = writer.finish().unwrap();
        let (pieces, _) = fit(&tokens.lengths(), 11, OverLength::Error, |_| String::new()).unwrap();
        let rows = if packed { PackedRows::best_fit_decreasing(pieces, 11) } else { PackedRows::unpacked(pieces) };
        Dataset { tokens, rows }
    }

    const BATCHING: Batching = Batching {
        batch: 2,
        accumulation: 2,
        group_by_length: false,
        drop_last: false,
        packed: false,
        flattened: false,
        sliding_window: None,
        seed: 42,
    };

    fn loader(batching: Batching) -> Loader {
        Loader::new(dataset(batching.packed), batching).unwrap()
    }

    #[test]
    fn every_epoch_visits_every_row_once_in_another_order() {
        let mut loader = loader(BATCHING);
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let steps: Vec<StepData> = (0..3).map(|_| loader.next_step()).collect();
            assert_eq!(steps.iter().map(|s| s.micro_batches.len()).collect::<Vec<_>>(), [2, 2, 1]);
            assert_eq!(steps.iter().map(|s| s.epoch).collect::<Vec<_>>(), [0.4, 0.8, 1.0].map(|e| e + epoch as f64));
            let order: Vec<usize> = steps.iter().flat_map(|s| s.rows.clone()).collect();
            let mut sorted = order.clone();
            sorted.sort();
            assert!(sorted.into_iter().eq(0..10));
            assert!(steps.iter().all(|s| s.num_items == s.rows.iter().map(|r| r + 2).sum::<usize>()));
            orders.push(order);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    }

    #[test]
    fn a_run_taken_up_anywhere_goes_on_with_the_same_steps() {
        for grouped in [false, true] {
            let batching = Batching { group_by_length: grouped, ..BATCHING };
            let mut whole = loader(batching);
            let steps: Vec<(Position, StepData)> = (0..8).map(|_| (whole.position(), whole.next_step())).collect();
            for first in 0..8 {
                let saved = serde_json::to_string(&steps[first].0).unwrap();
                let mut resumed = loader(batching);
                resumed.seek(serde_json::from_str(&saved).unwrap()).unwrap();
                assert!(steps[first..].iter().all(|(_, step)| resumed.next_step() == *step), "from step {first}");
            }
        }
    }

    #[test]
    fn a_position_of_other_data_or_another_seed_is_refused() {
        let position = loader(BATCHING).position();
        let other_seed = loader(Batching { seed: 1, ..BATCHING }).seek(position).unwrap_err();
        assert!(other_seed.to_string().contains("the seed has changed"));
        let other_data = loader(Batching { packed: true, ..BATCHING }).seek(position).unwrap_err();
        assert!(other_data.to_string().contains("the training data has changed"));
        // One token is another one; all lengths are the same.
        let mut changed = loader(BATCHING);
        let mut writer = TokensWriter::default();
        for d in 0..10 {
            let mut document = changed.dataset.tokens.document(d);
            if d == 7 {
                (document.ids[3], document.labels[3]) = (99, 99);
            }
            writer.push(&document).unwrap();
        }
        changed = Loader::new(Dataset { tokens: writer.finish().unwrap(), ..changed.dataset }, BATCHING).unwrap();
        let other_token = changed.seek(position).unwrap_err();
        assert!(other_token.to_string().contains("the training data has changed"));
    }

    #[test]
    fn packed_rows_mask_the_first_label_of_every_document() {
        let mut loader = loader(Batching { packed: true, batch: 100, ..BATCHING });
        let step = loader.next_step();
        let batch = &step.micro_batches[0];
        assert_eq!((batch.documents, batch.tokens(), batch.longest_row), (10, 65, 11));
        assert_eq!(step.num_items, 55);
        assert_eq!(batch.predicted(), 55);
    }

    #[test]
    fn the_longest_row_is_a_packed_row_or_all_rows_that_trl_flattens() {
        let longest = |flattened, packed, batch| {
            let batching = Batching { packed, flattened, batch, ..BATCHING };
            // Documents of 2 to 6 tokens, so that every row of up to 11 has several.
            let mut data = dataset(false);
            let (pieces, _) = fit(&data.tokens.lengths()[..5], 11, OverLength::Error, |_| String::new()).unwrap();
            data.rows = if packed { PackedRows::best_fit_decreasing(pieces, 11) } else { PackedRows::unpacked(pieces) };
            let step = Loader::new(data, batching).unwrap().next_step();
            step.micro_batches[0].longest_row
        };
        assert_eq!(longest(false, false, 5), 6, "the longest document");
        assert_eq!(longest(false, true, 2), 11, "20 tokens in rows of 11 and 9");
        assert_eq!(longest(true, true, 2), 20, "both rows");
    }

    #[test]
    fn grouping_starts_with_the_longest_and_drop_last_drops() {
        let mut grouped = loader(Batching { group_by_length: true, ..BATCHING });
        assert_eq!(grouped.next_step().rows[0], 9);
        let mut dropping = loader(Batching { batch: 3, accumulation: 1, drop_last: true, ..BATCHING });
        let rows: Vec<usize> = (0..3).flat_map(|_| dropping.next_step().rows).collect();
        assert_eq!((rows.len(), dropping.next_step().epoch), (9, 4.0 / 3.0));
        assert!(Loader::new(dataset(false), Batching { batch: 11, drop_last: true, ..BATCHING }).is_err());
    }

    #[test]
    fn evaluation_goes_in_order_to_the_last_row() {
        let data = dataset(false);
        let batches: Vec<MicroBatch> = data.in_order(4, false, None).collect();
        assert_eq!(batches.iter().map(|b| b.documents).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(batches[2].ids[..10], [8; 10]);
    }
}
