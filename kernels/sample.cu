// The next token: the largest logit, or one drawn after temperature, top-k and top-p (the order and the rules of HF's warpers).
//
//   mass = ⌊2⁴⁰·e^((logit − largest) / temperature)⌋
//   top-k: logits of at least the k-th largest; top-p: of these, the shortest run with at least p of the mass, by falling
//   logit and rising index; draw: the token at which the mass summed up in that order passes random · total
//
// logits F32 [n,V]; rule F32 [3]: temperature (0: the largest), k (0: all), p (from 1 on: all); token I32 [n,1], −1 where the
// row has a NaN or no finite largest.
// One block per row. Nothing is sorted. A token's key is its logit's order and its index, so keys are different and "where
// does the sum from the largest key on reach this much" (`reach`) is answered bit by bit: the mass of the keys that share
// the bits found so far and have the next one is in the upper half or it is not. The three steps are three such questions.
// Masses are integers, so the order of adding does not matter and no atomics are needed.
// Bytes: 4·V once (it stays in L1 and L2). Greedy reads the row once; a question reads it 32 + log₂ V times, a few
// microseconds each: bound by the arithmetic of one multiprocessor, and small beside the products that make the logits.

#include "common.cuh"

enum { TEMPERATURE, TOP_K, TOP_P };

struct Total {
    __device__ static u64 of(u64 a, u64 b) { return a + b; }
};
struct Largest {
    __device__ static u64 of(u64 a, u64 b) { return a > b ? a : b; }
};

// Over the block; every thread gets the result. 0 is neutral.
template <class Op> __device__ inline u64 block_reduce_u64(u64 x) {
    __shared__ u64 of_warp[WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, step));
    __syncthreads();  // an earlier reduction may still be read
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    x = lane < warps ? of_warp[lane] : 0;
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}

struct Row {
    const float* logits;
    int cols;
    float top, temperature;
    u64 least;  // keys below it take no part

    // Larger logits have larger keys, of equal ones the first.
    __device__ u64 key(int i) const {
        u32 bits = __float_as_uint(logits[i] + 0.0f);  // −0 becomes 0: they are equal
        u32 order = bits >> 31 ? ~bits : bits | 0x80000000u;
        return u64(order) << 32 | ~u32(i);
    }
    __device__ u64 mass(int i) const { return u64(expf((logits[i] - top) / temperature) * 0x1p40f); }

    // The mass of the keys that take part and whose bits from `bit` on are those of `prefix`; their number if COUNTED.
    template <bool COUNTED> __device__ u64 sum(u64 prefix, int bit) const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < cols; i += blockDim.x) {
            u64 k = key(i);
            if (k >> bit == prefix >> bit && k >= least) sum += COUNTED ? 1 : mass(i);
        }
        return block_reduce_u64<Total>(sum);
    }
    // Everything that takes part.
    __device__ u64 total() const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += key(i) >= least ? mass(i) : 0;
        return block_reduce_u64<Total>(sum);
    }
    // The key at which the sum from the largest key on reaches `target` (1 .. total).
    template <bool COUNTED> __device__ u64 reach(u64 target) const {
        // The upper bits of all indices are equal: they need no question.
        int index_bits = 32 - __clz(cols);
        u64 found = 0;
        for (int bit = 63; bit >= 0; bit--) {
            u64 upper = found | u64(1) << bit;
            if (bit < 32 && bit >= index_bits) {
                found = upper;
                continue;
            }
            u64 here = sum<COUNTED>(upper, bit);
            if (here >= target) found = upper;
            else target -= here;
        }
        return found;
    }
};

extern "C" __global__ void __launch_bounds__(1024) sample(Rows rows, int cols, Mat<const float> logits, const float* rule,
                                                          const u32* seed, Mat<int> token) {
    i64 at = blockIdx.x;
    if (at >= rows.count()) return;
    Row row = {logits.row(at), cols, 0.0f, rule[TEMPERATURE], 0};
    u64 best = 0;
    bool undefined = false;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
        best = Largest::of(best, row.key(i));
        undefined |= isnan(row.logits[i]);
    }
    u64 chosen = block_reduce_u64<Largest>(best);
    undefined = __syncthreads_or(undefined);
    row.top = row.logits[~u32(chosen)];
    if (undefined || isinf(row.top)) {
        if (threadIdx.x == 0) *token.row(at) = -1;
        return;
    }
    if (row.temperature != 0.0f) {
        int k = int(rule[TOP_K]);
        // All that equal the k-th.
        if (k > 0 && k < cols) row.least = row.reach<true>(k) >> 32 << 32;
        if (rule[TOP_P] < 1.0f) {
            u64 share = u64(ceil(double(row.total()) * double(rule[TOP_P])));
            row.least = row.reach<false>(share > 1 ? share : 1);
        }
        uint4 random = philox(make_uint4(u32(at), 0, 0, 0), make_uint2(seed[0], seed[1]));
        chosen = row.reach<false>(__umul64hi(u64(random.x) << 32 | random.y, row.total()) + 1);
    }
    if (threadIdx.x == 0) *token.row(at) = ~u32(chosen);
}
