//! A small random number generator (xorshift), so that a failing case is the same everywhere.

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }
    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
    /// Characters from all of Unicode, mostly from the parts that are in use.
    pub fn unicode(&mut self, longest: usize) -> String {
        let count = self.below(longest + 1);
        let high = *self.of(&[0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000]);
        (0..count).filter_map(|_| char::from_u32(self.below(high) as u32)).collect()
    }
}
