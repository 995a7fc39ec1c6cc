// The product of a few rows with a 4-bit weight, which is decoded on the way: nothing is written but the result.
//
//   out[t][n] = Σ_k x[t][k] · round(level[code[n][k]] · scale)        weights are rounded where nf4's dequantize rounds
//
// x [T,K], T up to 4, K a multiple of 32; codes U8 [N, K/2] in blocks of at least 32; out [T,N], elem or f32.
// A block makes 16 columns of out: its 8 warps share K among them in steps of 128, and their sums are added in their order.
// Tensor cores multiply: the weights are the 16 x 16 operand, the rows of x the columns of the 8-wide one (T of 8 are used).
// Both may take k in any order if it is the same, so a lane loads 32 neighbouring codes of each of its two rows (16 bytes)
// and the same 32 columns of one row of x, and no data moves between lanes. 32 neighbours share a scale.
// Bytes per weight: 0.516 (0.563 with f32 scales): bound by memory, if decoding keeps up: one look-up, one multiply, half a
// conversion and two steps of unpacking for each weight, so about 30 weights per clock and multiprocessor against the 38 that
// an H200's memory brings.

#include "mma.cuh"
#include "nf4.cuh"

constexpr int WARPS = 8, ROWS = 16, MOST = 4, STEP = 128, RUN = 32;

// What a lane needs of the weights for one step: 32 codes of the rows g and g + 8.
struct Codes {
    uint4 word[2];
    float scale[2];
    // Beyond the weight: code 0 with scale 0, hence zeros.
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

// absmax (F32) or absmax8 with nested and offset: the other is null. block_bits: log₂ of the block size.
extern "C" __global__ void __launch_bounds__(WARPS* WARP) gemv(Rows rows, int n, int k, int block_bits, int fp4,
                                                              const uint4* codes, const float* absmax,
                                                              const unsigned char* absmax8, const float* nested,
                                                              const float* offset, Mat<const elem> x, Either out) {
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
    // sum: (row g, token 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
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
