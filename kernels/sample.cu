// Samples the next token: the largest logit, or a draw after temperature, top-k and top-p, in the order and by the rules of
// HF's logits warpers.
//
//   mass = ⌊2⁴⁰·e^((logit − largest) / temperature)⌋
//   top-k: keeps the logits that are at least the k-th largest
//   top-p: of these, keeps the shortest prefix, by descending logit and ascending index, that has at least p of the mass
//   draw:  the token at which the cumulative mass, in the same order, exceeds random · total
//
// logits F32 [n,V]; rule F32 [3]: temperature (0: greedy), k (0: off), p (≥ 1: off); token I32 [n,1], −1 if the row has a
// NaN or its largest logit is not finite.
// One block per row, without sorting. A token's key combines its logit, in an order-preserving encoding, with its index, so
// all keys differ. `reach` finds the key at which the cumulative mass, from the largest key down, reaches a target. It is a
// binary search over the bits of the key, from the highest: each step sums the mass of the candidates whose next bit is set.
// Top-k, top-p and the draw are three such searches. Masses are integers, so the order of addition does not matter.
// Bytes per row: 4·V from memory, once; it stays in L1 and L2. Greedy reads the row once; a search reads it 32 + log₂ V
// times, a few microseconds each. Bound by the arithmetic of one multiprocessor, and short compared with the products that
// compute the logits.

#include "common.cuh"

enum { TEMPERATURE, TOP_K, TOP_P };

struct Total {
    __device__ static u64 of(u64 a, u64 b) { return a + b; }
};
struct Largest {
    __device__ static u64 of(u64 a, u64 b) { return a > b ? a : b; }
};

// Reduction over the block; all threads get the result. 0 is the neutral element.
template <class Op> __device__ inline u64 block_reduce_u64(u64 x) {
    __shared__ u64 of_warp[WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(0xffffffff, x, step));
    __syncthreads();  // of_warp may still be read by an earlier call
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
    u64 least;  // smallest key that takes part

    // Larger logits have larger keys; among equal logits, the lower index has the larger key.
    __device__ u64 key(int i) const {
        u32 bits = __float_as_uint(logits[i] + 0.0f);  // turns −0 into 0, which must compare equal
        u32 order = bits >> 31 ? ~bits : bits | 0x80000000u;
        return u64(order) << 32 | ~u32(i);
    }
    __device__ u64 mass(int i) const { return u64(expf((logits[i] - top) / temperature) * 0x1p40f); }

    // The mass (if COUNTED, the number) of the keys >= least whose bits from `bit` up equal those of `prefix`.
    template <bool COUNTED> __device__ u64 sum(u64 prefix, int bit) const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < cols; i += blockDim.x) {
            u64 k = key(i);
            if (k >> bit == prefix >> bit && k >= least) sum += COUNTED ? 1 : mass(i);
        }
        return block_reduce_u64<Total>(sum);
    }
    // The mass of all keys >= least.
    __device__ u64 total() const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += key(i) >= least ? mass(i) : 0;
        return block_reduce_u64<Total>(sum);
    }
    // The key at which the cumulative mass (if COUNTED, the count), from the largest key down, reaches `target` (1 .. total).
    template <bool COUNTED> __device__ u64 reach(u64 target) const {
        // The upper bits of all inverted indices are ones, so the search skips them.
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
        // Clears the index bits: ties with the k-th largest are kept.
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
