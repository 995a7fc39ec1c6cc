// Row gather.
//
//   out[i] = table[ids[i]]        ids I32 [n,1], table [V,D], out [n,D]
//
// Used for token embeddings, and to gather the rows of each expert (`ids` = the token of each row). One thread copies one
// pack of 8 elements. Bytes per row: 2·D·size + 4; no arithmetic. Bound by memory.

#include "common.cuh"

extern "C" __global__ void embed(Rows rows, int cols, Mat<const int> ids, Mat<const elem> table, Mat<elem> out) {
    u32 packs = cols / PACK, item = global_thread();
    u32 row = item / packs, pack = item % packs;
    if (row >= rows.count()) return;
    const uint4* from = reinterpret_cast<const uint4*>(table.row(*ids.row(row)));
    reinterpret_cast<uint4*>(out.row(row))[pack] = from[pack];
}
