//! NumPy's default generator, so that a seed selects the same rows as in the `datasets` library:
//! `numpy.random.default_rng(entropy).permutation(n)`, which is SeedSequence → PCG64 (XSL-RR) → Fisher–Yates with
//! masked rejection sampling.

/// NumPy's PCG64, seeded through SeedSequence.
pub struct Pcg64 {
    state: u128,
    increment: u128,
    /// The unused upper half of the last 64-bit output, for the next 32-bit output.
    upper: Option<u32>,
}

impl Pcg64 {
    /// `default_rng(entropy)`, seeded with one or more numbers.
    pub fn new(entropy: &[u64]) -> Self {
        let [a, b, c, d] = seed_sequence(entropy);
        let wide = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let mut rng = Self { state: 0, increment: (wide(c, d) << 1) | 1, upper: None };
        rng.step();
        rng.state = rng.state.wrapping_add(wide(a, b));
        rng.step();
        rng
    }

    /// A random order of `0..n`: `permutation(n)`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.up_to(i as u32) as usize);
        }
        order
    }

    /// A number from 0 to `max`, inclusive: masks outputs to the needed bits and rejects those above `max`.
    fn up_to(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(upper) = self.upper.take() {
            return upper;
        }
        let both = self.next_u64();
        self.upper = Some((both >> 32) as u32);
        both as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn step(&mut self) {
        const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }
}

/// `SeedSequence(entropy).generate_state(4, uint64)`.
fn seed_sequence(entropy: &[u64]) -> [u64; 4] {
    // Each number becomes 32-bit words, the lowest first, without leading zeros; zero is one word.
    let words: Vec<u32> =
        entropy.iter().flat_map(|&n| [Some(n as u32), Some((n >> 32) as u32).filter(|&w| w != 0)]).flatten().collect();

    let mut constant = 0x43b0_d7e5_u32;
    let mut hash = |word: u32| {
        let word = word ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let word = word.wrapping_mul(constant);
        word ^ (word >> 16)
    };
    let mix = |x: u32, y: u32| {
        let mixed = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
        mixed ^ (mixed >> 16)
    };
    let mut pool = [0_u32; 4];
    for (i, slot) in pool.iter_mut().enumerate() {
        *slot = hash(words.get(i).copied().unwrap_or(0));
    }
    for source in 0..4 {
        for target in (0..4).filter(|&t| t != source) {
            pool[target] = mix(pool[target], hash(pool[source]));
        }
    }
    for &word in words.iter().skip(4) {
        for slot in &mut pool {
            *slot = mix(*slot, hash(word));
        }
    }

    let mut constant = 0x8b51_f9dd_u32;
    let mut output = |word: u32| {
        let word = word ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let word = word.wrapping_mul(constant);
        u64::from(word ^ (word >> 16))
    };
    let mut halves = pool.iter().cycle();
    std::array::from_fn(|_| {
        let mut next = || output(*halves.next().expect("a cycle never ends"));
        next() | (next() << 32)
    })
}
