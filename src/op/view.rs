//! Operands: a buffer, or a rectangle of one.

/// A buffer of a program (an index into [`Program::bufs`](super::Program::bufs)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Buf(pub u32);

/// How many rows an operand has. Buffers are sized for the program's capacity of tokens; a run has fewer live ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rows {
    /// Always this many.
    Fixed(usize),
    /// This many for each token.
    Tokens(usize),
    /// The tokens `start .. start + len`, as far as they are live.
    Chunk {
        /// First token.
        start: usize,
        /// Number of tokens at most.
        len: usize,
    },
}

impl Rows {
    /// Rows when `tokens` tokens are live (or, for the capacity, planned).
    pub fn count(self, tokens: usize) -> usize {
        match self {
            Rows::Fixed(n) => n,
            Rows::Tokens(times) => times * tokens,
            Rows::Chunk { start, len } => tokens.saturating_sub(start).min(len),
        }
    }
}

/// A row-major matrix inside a buffer: the whole, a range of rows, a slice of columns, or a matrix within a flat buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// The buffer.
    pub buf: Buf,
    /// First element, counted from the start of the buffer.
    pub offset: usize,
    /// Number of rows.
    pub rows: Rows,
    /// Number of columns.
    pub cols: usize,
    /// Leading dimension: elements from one row to the next. 0 repeats one row.
    pub ld: usize,
}

impl View {
    /// Columns `from .. from + cols`.
    pub fn columns(self, from: usize, cols: usize) -> View {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        View { offset: self.offset + from, cols, ..self }
    }
    /// Rows `from .. from + rows` of a matrix of fixed size.
    pub fn slab(self, from: usize, rows: usize) -> View {
        assert!(
            matches!(self.rows, Rows::Fixed(n) if from + rows <= n),
            "rows {from}..{} of {:?}",
            from + rows,
            self.rows
        );
        View { offset: self.offset + from * self.ld, rows: Rows::Fixed(rows), ..self }
    }
    /// The tokens `start .. start + len` of a matrix with one row for each token.
    pub fn chunk(self, start: usize, len: usize) -> View {
        assert_eq!(self.rows, Rows::Tokens(1), "only a stream of tokens is cut into chunks");
        View { offset: self.offset + start * self.ld, rows: Rows::Chunk { start, len }, ..self }
    }
    /// A matrix whose `rows` rows are all this one row.
    pub fn repeated(self, rows: Rows) -> View {
        assert_eq!(self.rows, Rows::Fixed(1), "only one row is repeated");
        View { rows, ld: 0, ..self }
    }
    /// The `rows × cols` matrix that starts at element `offset` of a flat `[1, n]` buffer.
    pub fn within(self, offset: usize, rows: usize, cols: usize) -> View {
        assert!(self.rows == Rows::Fixed(1) && offset + rows * cols <= self.cols, "outside of the flat buffer");
        View { offset: self.offset + offset, rows: Rows::Fixed(rows), cols, ld: cols, ..self }
    }
    /// Elements from the first to one past the last, when `tokens` tokens are live: `offset .. end`.
    pub fn end(&self, tokens: usize) -> usize {
        match self.rows.count(tokens) {
            0 => self.offset,
            n => self.offset + (n - 1) * self.ld + self.cols,
        }
    }
    /// Whether both have an element in common at capacity. Views with one leading dimension are compared as rectangles.
    pub fn overlaps(&self, other: &View, tokens: usize) -> bool {
        if self.buf != other.buf || self.end(tokens) <= other.offset || other.end(tokens) <= self.offset {
            return false;
        }
        if self.ld != other.ld || self.ld == 0 {
            return true;
        }
        let (a, b) = (self.offset % self.ld, other.offset % self.ld);
        a < b + other.cols && b < a + self.cols
    }
}
