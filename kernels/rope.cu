// Rotary position embedding (Su et al. 2021), in place, in HF's half-split layout.
//
//   angle = pos[t] · inv_freq[i]      (a, b) = (x[i], x[i + d/2])      x[i] = a·cos − b·sin      x[i + d/2] = b·cos + a·sin
//
// x [T, heads·d], pos I32 [T,1], inv_freq F32 [1, d/2]. The backward pass rotates by −angle. The angle is one f32 product;
// cos and sin are rounded to the element type as in HF.
// One block per token: it computes sine and cosine of the d/2 angles into shared memory once, and uses them for all heads. A
// thread rotates 8 pairs. Bytes per element: 2·size. Bound by memory.

#include "common.cuh"

constexpr int MAX_HALF = 128;  // head sizes up to 256

extern "C" __global__ void __launch_bounds__(256) rope(Rows rows, int cols, int half, int inverse, Mat<const int> pos,
                                                       const float* inv_freq, Mat<elem> x) {
    __shared__ float cosine[MAX_HALF], sine[MAX_HALF];
    if (blockIdx.x >= rows.count()) return;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float s, c;
        sincosf(mul(float(*pos.row(blockIdx.x)), inv_freq[i]), &s, &c);
        cosine[i] = rounded(c);
        sine[i] = inverse ? -rounded(s) : rounded(s);
    }
    __syncthreads();

    int packs = half / PACK;  // in half a head
    for (int item = threadIdx.x; item < cols / 2 / PACK; item += blockDim.x) {
        int i = item % packs * PACK;
        elem* at = x.row(blockIdx.x) + item / packs * 2 * half + i;
        Pack a = load(at), b = load(at + half), to_a, to_b;
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            to_a.v[j] = a.v[j] * cosine[i + j] - b.v[j] * sine[i + j];
            to_b.v[j] = b.v[j] * cosine[i + j] + a.v[j] * sine[i + j];
        }
        store(at, to_a);
        store(at + half, to_b);
    }
}
