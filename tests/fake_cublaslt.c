// Stands in for cuBLASLt: computes products on host memory, column-major as the real one is documented, and
// counts what it is asked. Misuse and wishes for failure give the status that the real one would.
#include "kernels/cuda/cublas_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 7, NOT_SUPPORTED = 15, BF16 = 14 };

// What tests read and set.
int fake_heuristics, fake_products, fake_refuse, fake_execution_fails, fake_algorithm_fails;
int fake_order_by_rows;          // sums go backwards where the result has fewer than this many columns
uint64_t fake_heuristic_columns; // of B when the last algorithm was asked for
// Where the caller records its stream: takes a product (and frees it) that is to be done later, any number of
// times, instead of now.
void (*fake_record)(int (*run)(const void *product), void *product);

typedef struct description {
    int compute, transposed[2];
} description;
typedef struct layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
} layout;
typedef struct preference {
    uint64_t workspace;
    uint32_t reductions, alignment[4];
} preference;

size_t cublasLtGetVersion(void) {
    return 130002;
}

const char *cublasLtGetStatusString(int code) {
    return code == NOT_SUPPORTED ? "not supported" : code == INVALID_VALUE ? "invalid value" : "failed";
}

static int make(void **out, const void *value, size_t bytes) {
    *out = malloc(bytes);
    memcpy(*out, value, bytes);
    return CUBLASLT_SUCCESS;
}

static int drop(void *pointer) {
    free(pointer);
    return CUBLASLT_SUCCESS;
}

int cublasLtCreate(void **handle) {
    return make(handle, "handle", 7);
}
int cublasLtDestroy(void *handle) {
    return drop(handle);
}
int cublasLtMatmulDescCreate(void **out, int compute, int scale) {
    const description d = {.compute = compute};
    return scale == CUBLASLT_TYPE_F32 ? make(out, &d, sizeof d) : INVALID_VALUE;
}
int cublasLtMatmulDescDestroy(void *d) {
    return drop(d);
}
int cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *value, size_t bytes) {
    const int which = attribute - CUBLASLT_DESC_TRANSPOSE_A;
    if ((which != 0 && which != 1) || bytes != sizeof(int))
        return INVALID_VALUE;
    memcpy(&((description *)d)->transposed[which], value, bytes);
    return CUBLASLT_SUCCESS;
}
int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    const layout l = {type, rows, columns, leading};
    return leading >= (int64_t)rows ? make(out, &l, sizeof l) : INVALID_VALUE;
}
int cublasLtMatrixLayoutDestroy(void *l) {
    return drop(l);
}
int cublasLtMatmulPreferenceCreate(void **out) {
    const preference p = {0, 7, {256, 256, 256, 256}};
    return make(out, &p, sizeof p);
}
int cublasLtMatmulPreferenceDestroy(void *p) {
    return drop(p);
}
int cublasLtMatmulPreferenceSetAttribute(void *p, int attribute, const void *value, size_t bytes) {
    preference *to = p;
    if (attribute == CUBLASLT_PREFERENCE_WORKSPACE && bytes == sizeof to->workspace)
        memcpy(&to->workspace, value, bytes);
    else if (attribute == CUBLASLT_PREFERENCE_REDUCTIONS && bytes == sizeof to->reductions)
        memcpy(&to->reductions, value, bytes);
    else if (attribute >= CUBLASLT_PREFERENCE_ALIGNMENT_A && attribute <= CUBLASLT_PREFERENCE_ALIGNMENT_D &&
             bytes == sizeof to->alignment[0])
        memcpy(&to->alignment[attribute - CUBLASLT_PREFERENCE_ALIGNMENT_A], value, bytes);
    else
        return INVALID_VALUE;
    return CUBLASLT_SUCCESS;
}

// Sizes as operands, or 0 if they do not fit together.
static int fits(const description *d, const layout *a, const layout *b, const layout *out, uint64_t *depth) {
    const uint64_t m = d->transposed[0] ? a->columns : a->rows, k = d->transposed[0] ? a->rows : a->columns,
                   n = d->transposed[1] ? b->rows : b->columns,
                   other = d->transposed[1] ? b->columns : b->rows;
    *depth = k;
    return m == out->rows && n == out->columns && k == other && a->type == b->type &&
           d->compute == (a->type == BF16 ? CUBLASLT_COMPUTE_F32 : CUBLASLT_COMPUTE_TF32);
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *d, void *a, void *b, void *c, void *out, void *p,
                                   int wanted, cublaslt_choice *choices, int *found) {
    // Sums in pieces only where both factors are read across (gradients of weights), never in place, and kept
    // as the result only if that is f32.
    const bool splits = !((description *)d)->transposed[0] && ((description *)d)->transposed[1];
    const uint32_t reductions = !splits ? 0 : ((layout *)out)->type == BF16 ? 2 : 6;
    uint64_t depth;
    if (handle == NULL || c != out || wanted != 1 || ((preference *)p)->reductions != reductions ||
        !fits(d, a, b, out, &depth))
        return INVALID_VALUE;
    fake_heuristics++;
    fake_heuristic_columns = ((layout *)b)->columns;
    *found = fake_refuse ? 0 : 1;
    const uint32_t *alignment = ((preference *)p)->alignment;
    if (*found == 1)
        *choices = (cublaslt_choice){
            .algorithm = {{fake_heuristic_columns, alignment[0], alignment[1], alignment[2], alignment[3]}},
            .workspace_bytes = 256};
    return CUBLASLT_SUCCESS;
}

int cublasLtMatmulAlgoCheck(void *handle, void *d, void *a, void *b, void *c, void *out,
                            const cublaslt_algorithm *algorithm, cublaslt_choice *result) {
    uint64_t depth;
    if (handle == NULL || c != out || algorithm->data[0] == 0 || !fits(d, a, b, out, &depth))
        return INVALID_VALUE;
    if (fake_algorithm_fails)
        return NOT_SUPPORTED;
    *result = (cublaslt_choice){.algorithm = *algorithm, .workspace_bytes = 256};
    return CUBLASLT_SUCCESS;
}

static bool is_aligned(const void *pointer, uint64_t bytes) {
    return (uintptr_t)pointer % bytes == 0;
}

static float value_at(const void *matrix, const layout *l, int transposed, uint64_t row, uint64_t column) {
    const size_t at = transposed ? (size_t)(column + row * (uint64_t)l->leading)
                                 : (size_t)(row + column * (uint64_t)l->leading);
    if (l->type != BF16)
        return ((const float *)matrix)[at];
    const uint32_t bits = (uint32_t)((const uint16_t *)matrix)[at] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

typedef struct product {
    const description *how;
    const layout *a_layout, *b_layout, *to;
    const void *a, *b;
    void *out;
    uint64_t depth;
    float beta;
} product;

static int multiply(const void *of) {
    const product *p = of;
    const layout *to = p->to;
    fake_products++;
    for (uint64_t column = 0; column < to->columns; column++)
        for (uint64_t row = 0; row < to->rows; row++) {
            float sum = 0.0f;
            const bool backwards = to->columns < (uint64_t)fake_order_by_rows;
            for (uint64_t i = 0; i < p->depth; i++) {
                const uint64_t k = backwards ? p->depth - 1 - i : i;
                sum += value_at(p->a, p->a_layout, p->how->transposed[0], row, k) *
                       value_at(p->b, p->b_layout, p->how->transposed[1], k, column);
            }
            if (p->beta != 0.0f)
                sum += p->beta * value_at(p->out, to, 0, row, column);
            const size_t at = (size_t)(row + column * (uint64_t)to->leading);
            if (to->type == BF16)
                ((uint16_t *)p->out)[at] = rounded(sum);
            else
                ((float *)p->out)[at] = sum;
        }
    return CUBLASLT_SUCCESS;
}

int cublasLtMatmul(void *handle, void *d, const void *alpha, const void *a, void *a_layout, const void *b,
                   void *b_layout, const void *beta, const void *c, void *c_layout, void *out,
                   void *out_layout, const cublaslt_algorithm *algorithm, void *workspace,
                   size_t workspace_bytes, void *stream) {
    const description *how = d;
    const layout *to = out_layout;
    uint64_t depth;
    if (handle == NULL || c != out || c_layout != out_layout || algorithm->data[0] == 0 ||
        workspace == NULL || workspace_bytes < 256 || stream == NULL || *(const float *)alpha != 1.0f ||
        !fits(how, a_layout, b_layout, to, &depth) || !is_aligned(a, algorithm->data[1]) ||
        !is_aligned(b, algorithm->data[2]) || !is_aligned(c, algorithm->data[3]) ||
        !is_aligned(out, algorithm->data[4]))
        return INVALID_VALUE;
    if (fake_execution_fails)
        return NOT_SUPPORTED;
    const product p = {how, a_layout, b_layout, to, a, b, out, depth, *(const float *)beta};
    if (fake_record == NULL)
        return multiply(&p);
    void *later;
    make(&later, &p, sizeof p);
    fake_record(multiply, later);
    return CUBLASLT_SUCCESS;
}
