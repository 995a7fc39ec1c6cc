// Combines rows sorted by expert back into tokens. (The gather in the other direction is `embed` with the token of each row
// as ids.)
//
//   combine       out[t] = plus[t] + Σ_k weights[t,k] · y[slots[t,k]]        (weights are 1 if absent)
//   combine_bwd   dy[slots[t,k]] = weights[t,k] · dout[t]                    dweights[t,k] = ⟨dout[t], y[slots[t,k]]⟩
//
// y, dy [2T,D]; dout, plus, out [T,D]; weights, dweights [T,2]; slots I32 [T,2]. Neither direction needs atomics, because
// every row of y belongs to exactly one (token, choice). combine: one pack of 8 per thread. combine_bwd: one token per
// block. Bytes per token: combine 4·D·size, combine_bwd 5·D·size. Bound by memory.

#include "common.cuh"

extern "C" __global__ void combine(Rows rows, int cols, Mat<const elem> y, F32OrElem weights, const int* slots,
                                   Mat<const elem> plus, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, i = item % packs * PACK;
    if (row >= rows.count()) return;
    float w0 = weights.at ? load(weights, row, 0) : 1.0f, w1 = weights.at ? load(weights, row, 1) : 1.0f;
    Pack a = load(y.row(slots[2 * row]) + i), b = load(y.row(slots[2 * row + 1]) + i), to = {};
    if (plus.at) to = load(plus.row(row) + i);
#pragma unroll
    for (int j = 0; j < PACK; j++) to.v[j] += w0 * a.v[j] + w1 * b.v[j];
    store(out.row(row) + i, to);
}

extern "C" __global__ void __launch_bounds__(256) combine_bwd(Rows rows, int cols, Mat<const elem> dout, Mat<const elem> y,
                                                              F32OrElem weights, const int* slots, Mat<elem> dy,
                                                              F32OrElem dweights) {
    i64 row = blockIdx.x;
    if (row >= rows.count()) return;
    int slot0 = slots[2 * row], slot1 = slots[2 * row + 1];
    float w0 = load(weights, row, 0), w1 = load(weights, row, 1), dot0 = 0, dot1 = 0;
    for (int i = threadIdx.x * PACK; i < cols; i += blockDim.x * PACK) {
        Pack d = load(dout.row(row) + i), a = load(y.row(slot0) + i), b = load(y.row(slot1) + i);
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            dot0 += d.v[j] * a.v[j];
            dot1 += d.v[j] * b.v[j];
            a.v[j] = w0 * d.v[j];
            b.v[j] = w1 * d.v[j];
        }
        store(dy.row(slot0) + i, a);
        store(dy.row(slot1) + i, b);
    }
    dot0 = block_reduce<Sum>(dot0);
    dot1 = block_reduce<Sum>(dot1);
    if (threadIdx.x == 0) {
        store(dweights, row, 0, dot0);
        store(dweights, row, 1, dot1);
    }
}
