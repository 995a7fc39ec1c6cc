//! The one allocation, and the passage between storage and arithmetic: operands are loaded in the accumulator type and
//! results stored in the buffer's.

use super::real::Real;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Buf, Place, Program, View};
use crate::plan::Plan;
use half::{bf16, f16};
use std::borrow::Cow;
use std::sync::Arc;

/// A dense matrix of accumulators; borrowed where the storage already is one.
pub struct Matrix<'a, A: Real> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    data: Cow<'a, [A]>,
}

impl<A: Real> Matrix<'_, A> {
    /// A matrix of these elements, row by row.
    pub fn new(rows: usize, cols: usize, data: Vec<A>) -> Self {
        assert_eq!(data.len(), rows * cols);
        Self { rows, cols, data: Cow::Owned(data) }
    }
    /// Row `i`.
    pub fn row(&self, i: usize) -> &[A] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }
    /// All rows, one after the other.
    pub fn data(&self) -> &[A] {
        &self.data
    }
}

/// All buffers of a program.
pub struct CpuMemory {
    program: Arc<Program>,
    plan: Arc<Plan>,
    device: Vec<u64>,
    host: Vec<u64>,
}

impl CpuMemory {
    /// Zeroed memory for the program.
    pub fn new(program: Arc<Program>, plan: Arc<Plan>) -> Result<Self> {
        let zeroed = |bytes: usize| {
            let mut words: Vec<u64> = Vec::new();
            words.try_reserve_exact(bytes.div_ceil(8)).map_err(|_| {
                Error::system(format!("cannot allocate {} MiB of memory", bytes >> 20))
                    .hint("use a shorter `max_seq_length`, a smaller batch, or `gradient_checkpointing = true`")
            })?;
            words.resize(bytes.div_ceil(8), 0);
            Ok(words)
        };
        Ok(Self { device: zeroed(plan.bytes)?, host: zeroed(plan.host_bytes)?, program, plan })
    }

    /// The raw bytes of `buf`.
    pub fn bytes(&self, buf: Buf) -> &[u8] {
        let at = self.plan.address(buf);
        &as_bytes(self.home(buf))[at..at + self.program.bytes(buf)]
    }

    /// The raw bytes of `buf`.
    pub fn bytes_mut(&mut self, buf: Buf) -> &mut [u8] {
        let (at, n) = (self.plan.address(buf), self.program.bytes(buf));
        let home = if self.program.info(buf).place == Place::Host { &mut self.host } else { &mut self.device };
        // SAFETY: u8 has no alignment and no invalid values; the slice covers exactly the words of the borrowed vector.
        let bytes = unsafe { std::slice::from_raw_parts_mut(home.as_mut_ptr().cast::<u8>(), home.len() * 8) };
        &mut bytes[at..at + n]
    }

    /// Every byte 0xFF: NaN in all float types, −1 in the integers.
    pub fn poison(&mut self, buf: Buf) {
        self.bytes_mut(buf).fill(0xFF);
    }

    /// The type of `view`'s elements.
    pub fn dtype(&self, view: &View) -> DType {
        self.program.info(view.buf).dtype
    }

    /// The live rows of `view` as accumulators.
    pub fn load<A: Real>(&self, view: &View, live: usize) -> Matrix<'_, A> {
        let (rows, cols) = (view.rows.count(live), view.cols);
        let dtype = self.dtype(view);
        if dtype == A::DTYPE && (view.ld == cols || rows <= 1) {
            let data = &self.elements::<A>(view)[..rows * cols];
            return Matrix { rows, cols, data: Cow::Borrowed(data) };
        }
        let mut data = Vec::with_capacity(rows * cols);
        for i in 0..rows {
            match dtype {
                DType::F32 => self.extend(&mut data, view, i, |x: &f32| A::of(f64::from(*x))),
                DType::F64 => self.extend(&mut data, view, i, |x: &f64| A::of(*x)),
                DType::Bf16 => self.extend(&mut data, view, i, |x: &bf16| A::of(f64::from(*x))),
                DType::F16 => self.extend(&mut data, view, i, |x: &f16| A::of(f64::from(*x))),
                _ => unreachable!("{} holds integers", self.program.info(view.buf).name),
            }
        }
        Matrix { rows, cols, data: Cow::Owned(data) }
    }

    fn extend<E: Copy, A>(&self, data: &mut Vec<A>, view: &View, row: usize, convert: impl Fn(&E) -> A) {
        let from = row * view.ld;
        data.extend(self.elements::<E>(view)[from..from + view.cols].iter().map(convert));
    }

    /// The live rows of a contiguous operand as they are stored.
    pub fn slice<E: Copy>(&self, view: &View, live: usize) -> &[E] {
        let rows = view.rows.count(live);
        assert!(view.ld == view.cols || rows <= 1, "the operand must be contiguous");
        &self.elements::<E>(view)[..rows * view.cols]
    }

    /// Stores elements of the buffer's type from the first of `view` on.
    pub fn write_slice<E: Copy>(&mut self, view: &View, data: &[E]) {
        self.elements_mut::<E>(view)[..data.len()].copy_from_slice(data);
    }

    /// Rounds `data` to the buffer's type and stores it in the live rows of `view`.
    pub fn store<A: Real>(&mut self, view: &View, live: usize, data: &[A]) {
        let rows = view.rows.count(live);
        assert_eq!(data.len(), rows * view.cols, "{}", self.program.info(view.buf).name);
        match self.dtype(view) {
            DType::F32 => self.put(view, data, |x| x.f64() as f32),
            DType::F64 => self.put(view, data, |x| x.f64()),
            DType::Bf16 => self.put(view, data, |x| bf16::from_f32(x.f64() as f32)),
            DType::F16 => self.put(view, data, |x| f16::from_f32(x.f64() as f32)),
            _ => unreachable!("{} holds integers", self.program.info(view.buf).name),
        }
    }

    fn put<E: Copy, A: Real>(&mut self, view: &View, data: &[A], convert: impl Fn(A) -> E) {
        let (cols, ld) = (view.cols, view.ld);
        if cols == 0 {
            return;
        }
        let out = self.elements_mut::<E>(view);
        for (i, row) in data.chunks_exact(cols).enumerate() {
            for (o, &x) in out[i * ld..i * ld + cols].iter_mut().zip(row) {
                *o = convert(x);
            }
        }
    }

    fn home(&self, buf: Buf) -> &[u64] {
        if self.program.info(buf).place == Place::Host { &self.host } else { &self.device }
    }

    /// The elements of the view's buffer, starting at the view's first element.
    fn elements<E: Copy>(&self, view: &View) -> &[E] {
        let bytes = self.bytes(view.buf);
        // SAFETY: addresses are multiples of 256 (or of the element size, inside a flat parent) in a vector of u64; E is
        // a number type of the buffer's element size, so every bit pattern is valid; the length is rounded down.
        let all = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<E>(), bytes.len() / size_of::<E>()) };
        debug_assert_eq!(size_of::<E>(), self.dtype(view).bytes());
        &all[view.offset..]
    }

    fn elements_mut<E: Copy>(&mut self, view: &View) -> &mut [E] {
        debug_assert_eq!(size_of::<E>(), self.dtype(view).bytes());
        let bytes = self.bytes_mut(view.buf);
        // SAFETY: as in `elements`; the borrow is exclusive.
        let all =
            unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<E>(), bytes.len() / size_of::<E>()) };
        &mut all[view.offset..]
    }
}

fn as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: u8 has no alignment and no invalid values; the slice covers exactly the words.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) }
}
