//! Launches of `kernels/gemm.cu`: which of its tiles serves a product. All of them give the same bits.

use super::launch::{F32OrElem, Grid, Launcher, Mat};
use super::modules::Family;
use super::sm_90a;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Form, Gemm, Term};

/// A tile of the kernel file, with the names that its `TileShape` gives the sizes.
struct Tile {
    /// nt, nn, tn; empty where the file has none.
    kernels: [&'static str; 3],
    /// Rows of out that a block makes.
    bm: usize,
    /// Columns of out that a block makes.
    bn: usize,
    /// Depth of a pipeline stage.
    bk: usize,
    /// Stages of the pipeline.
    stages: usize,
    /// Rows and columns that a warp makes.
    wm: usize,
    wn: usize,
}

/// A tile from (BM, BN, BK, STAGES, WM, WN), in the order of the kernel file.
const fn tile(kernels: [&'static str; 3], sizes: [usize; 6]) -> Tile {
    let [bm, bn, bk, stages, wm, wn] = sizes;
    Tile { kernels, bm, bn, bk, stages, wm, wn }
}

const LARGE: Tile = tile(["gemm_nt_large", "gemm_nn_large", ""], [128, 256, 64, 3, 64, 64]);
const MEDIUM: Tile = tile(["gemm_nt_medium", "gemm_nn_medium", "gemm_tn_medium"], [128, 128, 64, 3, 64, 64]);
const SMALL: Tile = tile(["gemm_nt_small", "gemm_nn_small", "gemm_tn_small"], [64, 64, 64, 4, 32, 32]);
const NARROW: Tile = tile(["gemm_nt_narrow", "gemm_nn_narrow", ""], [64, 16, 64, 6, 16, 16]);
const NARROW32: Tile = tile(["gemm_nt_narrow32", "gemm_nn_narrow32", ""], [64, 32, 64, 6, 16, 32]);
const NARROW64: Tile = tile(["gemm_nt_narrow64", "gemm_nn_narrow64", ""], [64, 64, 64, 6, 16, 64]);
const SHALLOW: Tile = tile(["gemm_nt_shallow", "gemm_nn_shallow", ""], [64, 128, 32, 2, 32, 64]);
const FLAT: Tile = tile(["", "", "gemm_tn_flat"], [16, 128, 64, 3, 16, 32]);
const FLAT32: Tile = tile(["", "", "gemm_tn_flat32"], [32, 128, 64, 3, 32, 32]);
const FLAT64: Tile = tile(["", "", "gemm_tn_flat64"], [64, 128, 64, 3, 64, 32]);
const TALL: Tile = tile(["", "", "gemm_tn_tall"], [128, 16, 64, 3, 32, 16]);

/// Fewer tiles than this leave much of a GPU idle: smaller ones are faster.
const FEW_TILES: usize = 100;

/// From this many rows on, a narrow product is bound by reading them.
const MANY_ROWS: usize = 2048;

/// The same for the columns of a flat product.
const WIDE: usize = 2048;

impl Tile {
    /// Threads of a block: one warp for each WM × WN.
    const fn threads(&self) -> usize {
        self.bm / self.wm * (self.bn / self.wn) * 32
    }

    /// Bytes of dynamic shared memory: STAGES slices of both operands, 16 bits an element.
    const fn shared(&self) -> usize {
        self.stages * (self.bm + self.bn) * self.bk * 2
    }

    /// Tiles that cover `out[m,n]`.
    fn count(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.bm) * n.div_ceil(self.bn)
    }

    /// The tile of an nt or nn product with `out[m,n]`, on a card with this much shared memory.
    fn of_rows(m: usize, n: usize, k: usize, shared_memory: usize) -> Tile {
        match () {
            () if n <= 16 => NARROW,
            () if k <= 64 => SHALLOW,
            () if n <= 32 && m >= MANY_ROWS => NARROW32,
            () if n <= 64 && m >= MANY_ROWS => NARROW64,
            () if n <= 64 || m <= 64 || MEDIUM.count(m, n) < FEW_TILES => SMALL,
            () if LARGE.shared() <= shared_memory && LARGE.count(m, n) >= FEW_TILES => LARGE,
            () => MEDIUM,
        }
    }

    /// The tile of a tn product with `out[m,n]`.
    fn of_tn(m: usize, n: usize) -> Tile {
        match () {
            () if m <= 16 => FLAT,
            () if n <= 16 => TALL,
            () if m <= 32 && n >= WIDE => FLAT32,
            () if m <= 64 && n >= WIDE => FLAT64,
            () if m <= 64 || n <= 64 || MEDIUM.count(m, n) < FEW_TILES => SMALL,
            () => MEDIUM,
        }
    }
}

/// Split-K of tn: rows of one partial sum, 0: no partial sums. Part of the result's bits, hence a
/// function of the shape alone.
fn split_k(m: usize, n: usize) -> usize {
    match m * n {
        size if size <= 1 << 17 => 512,
        size if size <= 1 << 21 => 1024,
        _ => 0,
    }
}

/// Partial sums of tn over `rows` rows: no two groups share one.
fn splits(rows: usize, split_k: usize, groups: usize) -> usize {
    rows.div_ceil(split_k) + groups - 1
}

/// Bytes of scratch memory that a product needs with `tokens` tokens: the partial sums of tn.
pub fn scratch(op: &Gemm, tokens: usize) -> usize {
    let (m, n) = (op.out.rows.count(0) / op.slabs(), op.out.cols);
    match split_k(m, n) {
        _ if op.form != Form::Tn => 0,
        0 => 0,
        split_k => splits(op.a.rows.count(tokens), split_k, op.slabs()) * m * n * 4,
    }
}

/// `out = plus + scale · product(a, b)`.
pub fn gemm(l: &mut Launcher, op: &Gemm) -> Result<()> {
    if let Some(plus) = op.plus.filter(|p| l.dtype(p) != l.dtype(&op.out)) {
        return Err(l.refused(&plus, &format!("must be {} like the result", l.dtype(&op.out).torch_name())));
    }
    match op.form {
        Form::Nt | Form::Nn if sm_90a::gemm::serves(l.arch, op.out.cols, op.a.cols) => sm_90a::gemm::gemm(l, op),
        Form::Nt | Form::Nn => by_rows(l, op),
        Form::Tn => over_rows(l, op),
    }
}

/// I32 offsets of the groups, or 0.
pub fn offsets(l: &Launcher, op: &Gemm) -> Result<u64> {
    op.groups.map_or(Ok(0), |g| l.flat(&g.offsets, DType::I32))
}

/// nt and nn: a block for each tile of out.
fn by_rows(l: &mut Launcher, op: &Gemm) -> Result<()> {
    let (rows, m, n, k) = (l.rows(&op.a), l.grid_rows(&op.a), op.out.cols, op.a.cols);
    let (out, plus, offsets) = (l.f32_or_elem(&op.out)?, l.f32_or_elem_or_none(&op.plus)?, offsets(l, op)?);
    let tile = Tile::of_rows(m, n, k, l.shared_memory);
    // Sums run along packs of a, and of b in nt.
    let a = l.packs(&op.a)?;
    let (kernel, b) = match op.form {
        Form::Nt => (tile.kernels[0], l.packs(&op.b)?),
        _ => (tile.kernels[1], l.aligned(&op.b)?),
    };
    let (term_a, term_b, ranks) = term(l, op)?;
    let row_tiles = if m == 0 { 0 } else { m.div_ceil(tile.bm) + op.groups.map_or(0, |g| g.count) };
    let blocks = row_tiles * n.div_ceil(tile.bn);
    let grid = Grid { blocks: [blocks, 1, 1], threads: tile.threads(), shared: tile.shared() };
    let (n, k, count, scale) = (n as i32, k as i32, op.slabs() as i32, op.scale as f32);
    l.launch(
        Family::Gemm,
        kernel,
        grid,
        &[&out, &plus, &a, &b, &term_a, &term_b, &rows, &n, &k, &ranks, &scale, &offsets, &count],
    )
}

/// The operands of the term and its depth, 0 if there is none.
pub fn term(l: &Launcher, op: &Gemm) -> Result<(Mat, Mat, i32)> {
    let Some(Term { a, b }) = op.term else { return Ok((Mat::NONE, Mat::NONE, 0)) };
    let right = if op.form == Form::Nt { l.packs(&b)? } else { l.aligned(&b)? };
    Ok((l.packs(&a)?, right, a.cols as i32))
}

/// tn: a block for each tile of out and, where the sum is split, for each part of it; then the sum of the parts.
fn over_rows(l: &mut Launcher, op: &Gemm) -> Result<()> {
    let (rows, live_rows, count) = (l.rows(&op.a), l.grid_rows(&op.a), op.slabs());
    let (m, n) = (l.grid_rows(&op.out) / count, op.out.cols);
    let (out, plus, offsets) = (l.f32_or_elem(&op.out)?, l.f32_or_elem_or_none(&op.plus)?, offsets(l, op)?);
    // Sums run over rows: columns need not fill whole packs.
    let (a, b) = (l.aligned(&op.a)?, l.aligned(&op.b)?);
    let (tile, split_k) = (Tile::of_tn(m, n), split_k(m, n));
    let kernel = tile.kernels[2];
    let grid = |y: usize| Grid { blocks: [tile.count(m, n), y, 1], threads: tile.threads(), shared: tile.shared() };
    let (m_arg, n_arg, count_arg, split_arg) = (m as i32, n as i32, count as i32, split_k as i32);
    let scale = op.scale as f32;
    if split_k == 0 {
        return l.launch(
            Family::Gemm,
            kernel,
            grid(count),
            &[&out, &plus, &a, &b, &rows, &m_arg, &n_arg, &scale, &offsets, &count_arg, &split_arg],
        );
    }
    let splits = splits(live_rows, split_k, count);
    let partials = l.memory.partials(splits * m * n * 4)?;
    let (partial, one) = (F32OrElem { at: partials, ld: n as i64, wide: 1 }, 1f32);
    l.launch(
        Family::Gemm,
        kernel,
        grid(splits),
        &[&partial, &F32OrElem::NONE, &a, &b, &rows, &m_arg, &n_arg, &one, &offsets, &count_arg, &split_arg],
    )?;
    let sum = Grid { blocks: [(m * n).div_ceil(256), count, 1], threads: 256, shared: 0 };
    l.launch(
        Family::Gemm,
        "gemm_tn_sum",
        sum,
        &[&out, &plus, &partials, &rows, &m_arg, &n_arg, &scale, &offsets, &split_arg],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("../../../kernels/gemm.cu");

    /// The sizes are those of `using Large = …<128, 256, …>` in the kernel file, threads and bytes those of its header.
    #[test]
    fn tiles_are_those_of_the_kernel_file() {
        let numbers = |text: &str| -> Vec<usize> { text.split_whitespace().filter_map(|n| n.parse().ok()).collect() };
        let tiles = [LARGE, MEDIUM, SMALL, NARROW, NARROW32, NARROW64, SHALLOW, FLAT, FLAT32, FLAT64, TALL];
        let declared = SOURCE.lines().filter(|line| line.starts_with("using ") && line.contains("Shape<"));
        assert_eq!(declared.count(), tiles.len(), "a tile of the kernel file is missing here");
        for tile in tiles {
            let kernel = tile.kernels.iter().find(|k| !k.is_empty()).expect("a tile has a kernel");
            let name = kernel.rsplit('_').next().expect("gemm_form_tile");
            let class = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
            let sizes = vec![tile.bm, tile.bn, tile.bk, tile.stages, tile.wm, tile.wn];
            let using = format!("using {class} = ");
            let shape = SOURCE.lines().find_map(|line| line.strip_prefix(&using)).unwrap_or_else(|| panic!("{using}"));
            assert_eq!(numbers(&shape.replace(['<', '>', ',', ';'], " "))[..6], sizes, "{name}");
            let words = |line: &'static str| line.trim_start_matches('/').trim_start();
            let mut rows = SOURCE.lines().map(words).filter(|line| line.starts_with(name)).map(numbers);
            let row = rows.find(|row| row.len() >= 8).unwrap_or_else(|| panic!("the header does not list {name}"));
            assert_eq!(row[..8], [sizes, vec![tile.threads(), tile.shared()]].concat(), "{name} in the header");
            for (kernel, form) in tile.kernels.iter().zip(["nt, NT, ", "nn, NN, ", ""]).filter(|(k, _)| !k.is_empty()) {
                assert!(SOURCE.contains(&format!("({form}{name}, {class})")), "{kernel}");
            }
        }
    }
}
