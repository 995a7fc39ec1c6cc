// The instructions that CUDA C++ has no words for, wrapped once: one function each. No other file of the sm_80 path holds
// assembly.
//
// The names are PTX's; the diagrams of the fragments are in the PTX manual under mma.m16n8k16 and ldmatrix. In all of them
// lane l has group g = l / 4 and place t = l % 4.

#pragma once
#include "common.cuh"

template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<__nv_bfloat16> = true;

// The address of shared memory as the instructions below want it: 32 bits, counted from the start of the window.
__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// ---- Copies from global to shared memory, behind the program's back -----------------------------------------------------

// 16 bytes, past L1 (which has no second use for them). Where not `valid`, zeros, and nothing is read.
__device__ inline void cp_async_16(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// 4 bytes, for columns of a matrix. Where not `valid`, zeros, and nothing is read.
__device__ inline void cp_async_4(u32 to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

// Closes the group of the copies that this thread has issued since the last one.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's groups are under way. Others see the data after a barrier.
template <int PENDING> __device__ inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Asks for the 128 bytes around p to be brought into L2.
__device__ inline void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// ---- Fragments ----------------------------------------------------------------------------------------------------------

// Four 8 x 8 matrices of 16-bit elements. Lanes 8i .. 8i + 7 give the addresses of the eight rows (16 bytes each) of matrix
// i; register i then holds row g, columns 2t and 2t + 1 of it.
__device__ inline void ldmatrix_x4(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// The same, each matrix transposed on the way: register i holds rows 2t and 2t + 1 of column g.
__device__ inline void ldmatrix_x4_trans(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// d[16,8] += a[16,16] * b[16,8], products of elements summed in f32.
// d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). a, pairs of columns: (g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8).
// b, pairs of rows: (2t, g), (2t+8, g).
__device__ inline void mma_16816(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (is_bf16<elem>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to elements; the first in the lower half, where the lower column of a fragment is.
__device__ inline u32 narrow_pair(float low, float high) {
    u32 pair;
    if constexpr (is_bf16<elem>) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// ---- Arithmetic ---------------------------------------------------------------------------------------------------------

// 2^x by the special function unit: relative error 2^-22, 0 for -inf.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x itself. The compiler does not see where it comes from, so what is derived from it is computed here, each time, instead
// of once before a loop, where it would occupy registers.
__device__ inline u32 recomputed(u32 x) {
    asm volatile("" : "+r"(x));
    return x;
}
__device__ inline i64 recomputed(i64 x) {
    asm volatile("" : "+l"(x));
    return x;
}

// ---- Tiles in shared memory ----------------------------------------------------------------------------------------------

// A tile has rows of CHUNKS pieces of 16 bytes. ldmatrix reads the same piece of eight rows at once, cp.async writes eight
// pieces of one row: with this permutation within each row both touch all 32 banks once.
// Returns the offset in bytes of (row, chunk).
template <int CHUNKS> __device__ inline u32 swizzled(u32 row, u32 chunk) {
    static_assert(CHUNKS == 2 || CHUNKS == 4 || CHUNKS % 8 == 0, "rows of 32, 64 or a multiple of 128 bytes");
    // Eight rows of 32 bytes lie in two lines of 128 bytes, of 64 bytes in four.
    u32 line = CHUNKS == 2 ? row / 4 % 2 : CHUNKS == 4 ? row / 2 % 4 : row % 8;
    return (row * CHUNKS + (chunk ^ line)) * 16;
}

// Which chunks of each ROWS x COLS tile of a matrix this thread copies: one column of chunks, every STEP-th row.
template <int ROWS, int COLS, int THREADS> struct Feed {
    static constexpr int CHUNKS = COLS / PACK, STEP = THREADS / CHUNKS, TIMES = (ROWS + STEP - 1) / STEP;
    static_assert(THREADS % CHUNKS == 0);
    const elem* from;  // the first of them in the next tile
    i64 ld;
    int row, chunk;

    // m begins at the first tile.
    __device__ explicit Feed(Mat<const elem> m) : ld(m.ld), row(threadIdx.x / CHUNKS), chunk(threadIdx.x % CHUNKS) {
        from = m.row(row) + chunk * PACK;
    }
    // Copies a tile of which `rows` rows and `cols` columns exist; the rest of it becomes zero.
    __device__ void copy(u32 tile, int rows, int cols) const {
        const elem* p = from;
#pragma unroll
        for (int i = 0; i < TIMES; i++, p += STEP * ld) {
            int r = row + i * STEP;
            if (ROWS % STEP == 0 || r < ROWS)
                cp_async_16(tile + swizzled<CHUNKS>(r, chunk), p, r < rows && chunk * PACK < cols);
        }
    }
};

// Fragments of 16 x 16 are read from a lane's own address in the tile: that of its row of the fragment at (row, col), which
// may differ between warps. Fragments beside and below it are reached by constants: the permutation is an exclusive or, so a
// step along the row is one too.
//
// A tile may hold an operand as it is, or transposed: a[m][k] = tile[k][m], b[k][n] = tile[n][k].
template <int CHUNKS> __device__ inline u32 lane_of_a(u32 tile, int row, int col) {
    int lane = threadIdx.x % WARP;
    return tile + swizzled<CHUNKS>(row + lane % 16, col / PACK + lane / 16);
}
template <int CHUNKS> __device__ inline u32 lane_of_a_transposed(u32 tile, int row, int col) {
    int lane = threadIdx.x % WARP;
    return tile + swizzled<CHUNKS>(col + lane / 16 * 8 + lane % 8, row / PACK + lane / 8 % 2);
}
template <int CHUNKS> __device__ inline u32 lane_of_b(u32 tile, int row, int col) { return lane_of_a<CHUNKS>(tile, row, col); }
template <int CHUNKS> __device__ inline u32 lane_of_b_transposed(u32 tile, int row, int col) {
    return lane_of_a_transposed<CHUNKS>(tile, row, col);
}

// The fragment `row` and `col` (multiples of 16) away from the lane's own. Tiles begin at multiples of the length of a row.
template <int CHUNKS> __device__ inline void load_a(u32 (&a)[4], u32 lane, int row, int col) {
    ldmatrix_x4(a, (lane ^ col * 2) + row * CHUNKS * 16);
}
template <int CHUNKS> __device__ inline void load_a_transposed(u32 (&a)[4], u32 lane, int row, int col) {
    ldmatrix_x4_trans(a, (lane ^ row * 2) + col * CHUNKS * 16);
}
// Registers 0 and 1 serve the first 8 columns of b, 2 and 3 the others.
template <int CHUNKS> __device__ inline void load_b(u32 (&b)[4], u32 lane, int row, int col) {
    ldmatrix_x4_trans(b, (lane ^ col * 2) + row * CHUNKS * 16);
}
template <int CHUNKS> __device__ inline void load_b_transposed(u32 (&b)[4], u32 lane, int row, int col) {
    ldmatrix_x4(b, (lane ^ row * 2) + col * CHUNKS * 16);
}
