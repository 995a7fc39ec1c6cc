// The product of a few rows with a 4-bit weight. The weight is decoded in registers; only the result is written.
//
//   out[t][n] = Σ_k x[t][k] · round(level[code[n][k]] · scale)        weights are rounded exactly as dequantize in nf4 does
//
// x [T,K], T up to 4, K a multiple of 32; codes U8 [N, K/2] in blocks of at least 32; out [T,N], elem or f32.
// A block computes 16 columns of out. Its 8 warps take steps of 128 along K in turn; their sums are added in warp order.
// Tensor cores multiply: the weights are the 16 x 16 operand a, the rows of x are the columns of b (T of its 8 are used).
// Any permutation of k is valid if both operands use the same one. A lane therefore loads 32 adjacent codes (16 bytes) of
// each of its two weight rows, and the same 32 columns of one row of x; no data moves between lanes. 32 adjacent weights
// share a scale.
// Bytes per weight: 0.516 (0.563 with f32 scales). Bound by memory where decoding keeps up. On an H200 it falls just short:
// each weight takes one lookup, one multiply, half a conversion and two unpacking steps, so a multiprocessor decodes about
// 30 weights per clock, while memory delivers 38.

#include "mma.cuh"
#include "nf4.cuh"

constexpr int WARPS = 8, ROWS = 16, MOST = 4, STEP = 128, RUN = 32;

// A lane's weights for one step: 32 codes each of the rows g and g + 8.
struct Codes {
    uint4 word[2];
    float scale[2];
    // Outside the weight, scale 0 makes the decoded values zero.
    __device__ void load(const uint4* codes, Scales scales, int block_bits, int row, int n, int col, int k) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            bool inside = row + 8 * h < n && col < k;
            i64 element = i64(row + 8 * h) * k + col;
            word[h] = inside ? codes[element / RUN] : make_uint4(0, 0, 0, 0);
            scale[h] = inside ? scales.of(element >> block_bits) : 0.0f;
        }
    }
};

// Elements 2p and 2p + 1 of a word of eight codes.
__device__ inline u32 decode_pair(const float* levels, u32 word, int p, float scale) {
    return narrow_pair(mul(levels[code_of(word, 2 * p)], scale), mul(levels[code_of(word, 2 * p + 1)], scale));
}

// Scales are either absmax, or absmax8 with nested and offset; the others are null. block_bits: log₂ of the block size.
extern "C" __global__ void __launch_bounds__(WARPS* WARP) gemv(Rows rows, int n, int k, int block_bits, int fp4,
                                                              const uint4* codes, const float* absmax,
                                                              const unsigned char* absmax8, const float* nested,
                                                              const float* offset, Mat<const elem> x, F32OrElem out) {
    __shared__ float levels[16], sums[WARPS][MOST][ROWS];
    int tokens = rows.count();
    load_levels(levels, fp4);
    __syncthreads();

    int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    int first = blockIdx.x * ROWS, row = first + g;
    Scales scales = {absmax, absmax8, nested, offset};
    float sum[4] = {};
    Codes next;
    next.load(codes, scales, block_bits, row, n, warp * STEP + RUN * t, k);
    for (int at = warp * STEP; at < k; at += WARPS * STEP) {
        Codes now = next;
        int col = at + RUN * t;
        next.load(codes, scales, block_bits, row, n, col + WARPS * STEP, k);
        bool real = g < tokens && col < k;
#pragma unroll
        for (int j = 0; j < RUN / PACK; j++) {
            uint4 b = make_uint4(0, 0, 0, 0);
            if (real) b = *reinterpret_cast<const uint4*>(x.row(g) + col + j * PACK);
            u32 word[2] = {(&now.word[0].x)[j], (&now.word[1].x)[j]}, pair[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int p = 0; p < 4; p++) pair[h][p] = decode_pair(levels, word[h], p, now.scale[h]);
            }
            u32 a0[4] = {pair[0][0], pair[1][0], pair[0][1], pair[1][1]};
            u32 a1[4] = {pair[0][2], pair[1][2], pair[0][3], pair[1][3]};
            mma_16816(sum, a0, b.x, b.y);
            mma_16816(sum, a1, b.z, b.w);
        }
    }
    // sum holds (row, token) = (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
    if (2 * t < MOST) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[warp][2 * t + i % 2][g + i / 2 * 8] = sum[i];
    }
    __syncthreads();
    int token = threadIdx.x / ROWS, column = threadIdx.x % ROWS;
    if (token >= tokens || first + column >= n) return;
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += sums[w][token][column];
    store(out, token, first + column, total);
}
