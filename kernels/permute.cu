// Combines rows sorted by expert back into tokens. (The gather in the other direction is `embed` with the token of each row
// as ids.)
//
//   combine       out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]        (weights are 1 if absent)
//   combine_bwd   dy[slots[t,k]] = weights[t,k] · dout[t]                    dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩
//
// y, dy [K·T,D]; dout, plus, out [T,D]; weights, dweights [T,K]; slots I32 [T,K]; K ≤ MAX_CHOICES. Neither direction needs
// atomics, because every row of y belongs to exactly one (token, choice). combine: one pack of 8 per thread. combine_bwd: one
// token per block. Bytes per token: combine (K + 2)·D·size, combine_bwd (2K + 1)·D·size. Bound by memory.

#include "common.cuh"

constexpr int MAX_CHOICES = 8;

extern "C" __global__ void combine(Rows rows, int cols, int choices, Mat<const elem> y, F32OrElem weights, const int* slots,
                                   Mat<const elem> plus, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    Pack to = {};
    if (plus.at) to = load(plus.row(row) + i);
    for (int k = 0; k < choices; k++) {
        float w = weights.at ? load(weights, row, k) : 1.0f;
        Pack a = load(y.row(slots[i64(choices) * row + k]) + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) to.v[j] += w * a.v[j];
    }
    store(out.row(row) + i, to);
}

extern "C" __global__ void __launch_bounds__(256) combine_bwd(Rows rows, int cols, int choices, Mat<const elem> dout,
                                                              Mat<const elem> y, F32OrElem weights, const int* slots,
                                                              Mat<elem> dy, F32OrElem dweights) {
    i64 row = blockIdx.x;
    if (row >= rows.count()) return;
    float dot[MAX_CHOICES] = {};
    for (int i = threadIdx.x * PACK; i < cols; i += blockDim.x * PACK) {
        Pack d = load(dout.row(row) + i);
        // Unrolled, so that the sums stay in registers.
#pragma unroll
        for (int k = 0; k < MAX_CHOICES; k++) {
            if (k >= choices) break;
            int slot = slots[choices * row + k];
            float w = load(weights, row, k);
            Pack a = load(y.row(slot) + i);
#pragma unroll
            for (int j = 0; j < PACK; j++) {
                dot[k] += d.v[j] * a.v[j];
                a.v[j] = w * d.v[j];
            }
            store(dy.row(slot) + i, a);
        }
    }
#pragma unroll
    for (int k = 0; k < MAX_CHOICES; k++) {
        if (k >= choices) break;
        float sum = block_reduce<Sum>(dot[k]);
        if (threadIdx.x == 0) store(dweights, row, k, sum);
    }
}
