#include "tests/cuda/shim/instructions.h"

#include "tests/cuda/shim/cuda_bf16.h"

namespace shim {

namespace {

float half_of(uint32_t pair, int which) {
    return __uint_as_float(which == 0 ? pair << 16 : pair & 0xFFFF0000u);
}

struct product {
    float *d;
    const uint32_t *a, *b;
    const float *c;
};

void perform_product(unsigned, void *const lanes[32]) {
    float a[16][16], b[16][8], sum[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const product *p = static_cast<const product *>(lanes[lane]);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++)
                a[group + r % 2 * 8][pair + half + r / 2 * 8] = half_of(p->a[r], half);
            for (int r = 0; r < 2; r++) {
                b[pair + half + r * 8][group] = half_of(p->b[r], half);
                sum[group + r * 8][pair + half] = p->c[2 * r + half];
            }
        }
    }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 16; k++)
                sum[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++) {
        const product *p = static_cast<const product *>(lanes[lane]);
        for (int i = 0; i < 4; i++)
            p->d[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

struct matrix_load {
    int matrices;
    bool transposed;
    uint32_t *registers;
    const void *row;
};

void perform_load(unsigned, void *const lanes[32]) {
    const matrix_load *first = static_cast<const matrix_load *>(lanes[0]);
    for (int m = 0; m < first->matrices; m++) {
        uint16_t value[8][8];
        for (int r = 0; r < 8; r++) {
            const matrix_load *l = static_cast<const matrix_load *>(lanes[m * 8 + r]);
            if (reinterpret_cast<uintptr_t>(l->row) % 16 != 0)
                reject("ldmatrix: the row of lane %d at %p is not aligned to 16 bytes", m * 8 + r, l->row);
            memcpy(value[r], l->row, sizeof value[r]);
        }
        for (int lane = 0; lane < 32; lane++) {
            const matrix_load *l = static_cast<const matrix_load *>(lanes[lane]);
            const int r = lane / 4, c = lane % 4 * 2;
            const uint32_t low = first->transposed ? value[c][r] : value[r][c],
                           high = first->transposed ? value[c + 1][r] : value[r][c + 1];
            l->registers[m] = low | high << 16;
        }
    }
}

} // namespace

void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4],
                       const char *file, int line) {
    product own = {d, a, b, c};
    warp_collect(0xFFFFFFFFu, &own, perform_product, {"mma.m16n8k16", file, line});
}

void load_matrices(int matrices, bool transposed, uint32_t *registers, const void *row, const char *file,
                   int line) {
    matrix_load own = {matrices, transposed, registers, row};
    warp_collect(0xFFFFFFFFu, &own, perform_load, {"ldmatrix", file, line});
}

std::map<const void *, size_t> &permitted_shared_bytes() {
    static std::map<const void *, size_t> bytes;
    return bytes;
}

} // namespace shim
