// cuBLASLt is column-major: a row-major [m, n] is its [n, m]. With W [outputs, inputs] seen as [inputs,
// outputs], the three products are
//     y^T  [outputs, rows]   = W^T  (transposed) times x^T  (as it is)
//     dx^T [inputs, rows]    = W    (as it is)   times dy^T (as it is)
//     dw^T [inputs, outputs] = x^T  (as it is)   times dy^T (transposed)
#include "kernels/cuda/product_cublas.h"

#include "kernels/cuda/cublas_table.h"
#include "kernels/memory.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_BYTES = 32 << 20, ALIGNMENT = 16 };

typedef struct plan {
    cublas_shape shape;
    void *description, *first, *second, *result; // layouts of A, B, and C = D
    cublaslt_algorithm algorithm;
} plan;

struct cublas {
    card *card;
    void *library, *handle, *workspace;
    cublaslt_table table;
    char version[32];
    plan *plans;
    int count, capacity;
};

static status checked(const cublas *c, int code, const char *call) {
    return code == CUBLASLT_SUCCESS
               ? STATUS_OK
               : FAIL("cuBLASLt %s on GPU %d: %s failed: %s (%d)", c->version, card_number(c->card), call,
                      c->table.get_status_string(code), code);
}
#define CUBLAS_TRY_GOTO(result, call, label) TRY_GOTO(result, checked(c, c->table.call, #call), label)

static status look_up(cublas *c, const char *path) {
    cublaslt_table *t = &c->table;
    // POSIX gives data pointers for functions; they are stored as such.
    const struct {
        const char *name;
        void *entry;
    } entries[] = {
        {"cublasLtGetVersion", &t->get_version},
        {"cublasLtGetStatusString", &t->get_status_string},
        {"cublasLtCreate", &t->create},
        {"cublasLtDestroy", &t->destroy},
        {"cublasLtMatmulDescCreate", &t->matmul_desc_create},
        {"cublasLtMatmulDescDestroy", &t->matmul_desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &t->matmul_desc_set_attribute},
        {"cublasLtMatrixLayoutCreate", &t->matrix_layout_create},
        {"cublasLtMatrixLayoutDestroy", &t->matrix_layout_destroy},
        {"cublasLtMatmulPreferenceCreate", &t->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &t->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &t->preference_set_attribute},
        {"cublasLtMatmulAlgoGetHeuristic", &t->get_heuristic},
        {"cublasLtMatmulAlgoCheck", &t->algo_check},
        {"cublasLtMatmul", &t->matmul},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        void *function = dlsym(c->library, entries[i].name);
        if (function == NULL)
            return FAIL("%s lacks %s: install the cuBLAS of CUDA 12 or 13, or set MUSICRL_CUBLASLT to the "
                        "path of its libcublasLt.so",
                        path, entries[i].name);
        memcpy(entries[i].entry, &function, sizeof function);
    }
    const size_t version = t->get_version();
    snprintf(c->version, sizeof c->version, "%zu.%zu.%zu", version / 10000, version % 10000 / 100,
             version % 100);
    return STATUS_OK;
}

static status open_library(cublas *c, const char *path) {
    static const char *const usual[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char *from_environment = getenv("MUSICRL_CUBLASLT");
    if (path == NULL && from_environment != NULL && from_environment[0] != '\0')
        path = from_environment;
    if (path != NULL)
        c->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; path == NULL && c->library == NULL && i < sizeof usual / sizeof usual[0]; i++)
        c->library = dlopen(usual[i], RTLD_NOW | RTLD_LOCAL);
    if (c->library == NULL) {
        const char *reason = dlerror();
        return FAIL("cuBLASLt cannot be opened (%s): install the cuBLAS of CUDA 12 or 13, or set "
                    "MUSICRL_CUBLASLT to the path of its libcublasLt.so",
                    reason == NULL ? "libcublasLt.so" : reason);
    }
    return look_up(c, path == NULL ? "libcublasLt.so" : path);
}

status cublas_open(cublas **out, card *card, const char *path) {
    *out = NULL;
    cublas *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "cuBLASLt"));
    c->card = card;
    status result;
    TRY_GOTO(result, open_library(c, path), failed);
    CUBLAS_TRY_GOTO(result, create(&c->handle), failed);
    TRY_GOTO(result, card_allocate(card, &c->workspace, WORKSPACE_BYTES, "cuBLASLt's workspace"), failed);
    *out = c;
    return STATUS_OK;
failed:
    cublas_close(c);
    return result;
}

static void release_plan(const cublas *c, plan *p) {
    if (p->description != NULL)
        c->table.matmul_desc_destroy(p->description);
    void *layouts[] = {p->first, p->second, p->result};
    for (int i = 0; i < 3; i++)
        if (layouts[i] != NULL)
            c->table.matrix_layout_destroy(layouts[i]);
}

void cublas_close(cublas *c) {
    if (c == NULL)
        return;
    for (int i = 0; i < c->count; i++)
        release_plan(c, &c->plans[i]);
    memory_free(c->plans);
    if (c->handle != NULL)
        c->table.destroy(c->handle);
    card_free(c->card, c->workspace);
    if (c->library != NULL)
        dlclose(c->library);
    memory_free(c);
}

const char *cublas_version_text(const cublas *c) {
    return c->version;
}

// A row-major matrix of `columns` wide rows.
static status add_layout(const cublas *c, void **out, cublas_type type, int64_t rows, int64_t columns) {
    return checked(c,
                   c->table.matrix_layout_create(out, (int)type, (uint64_t)columns, (uint64_t)rows, columns),
                   "cublasLtMatrixLayoutCreate");
}

// Description and layouts of a product of `rows` rows.
static status describe(const cublas *c, const cublas_shape *s, int64_t rows, plan *p) {
    const int compute = s->factors == CUBLAS_TYPE_BF16 ? CUBLASLT_COMPUTE_F32 : CUBLASLT_COMPUTE_TF32;
    const int first = s->kind == CUBLAS_FORWARD ? CUBLASLT_TRANSPOSE : CUBLASLT_TRANSPOSE_NOT,
              second = s->kind == CUBLAS_BACKWARD_WEIGHT ? CUBLASLT_TRANSPOSE : CUBLASLT_TRANSPOSE_NOT;
    status result;
    *p = (plan){.shape = *s};
    CUBLAS_TRY_GOTO(result, matmul_desc_create(&p->description, compute, CUBLASLT_TYPE_F32), failed);
    CUBLAS_TRY_GOTO(
        result, matmul_desc_set_attribute(p->description, CUBLASLT_DESC_TRANSPOSE_A, &first, sizeof first),
        failed);
    CUBLAS_TRY_GOTO(
        result, matmul_desc_set_attribute(p->description, CUBLASLT_DESC_TRANSPOSE_B, &second, sizeof second),
        failed);
    switch (s->kind) {
    case CUBLAS_FORWARD:
        TRY_GOTO(result, add_layout(c, &p->first, s->factors, s->outputs, s->inputs), failed);
        TRY_GOTO(result, add_layout(c, &p->second, s->factors, rows, s->inputs), failed);
        TRY_GOTO(result, add_layout(c, &p->result, s->result, rows, s->outputs), failed);
        break;
    case CUBLAS_BACKWARD_DATA:
        TRY_GOTO(result, add_layout(c, &p->first, s->factors, s->outputs, s->inputs), failed);
        TRY_GOTO(result, add_layout(c, &p->second, s->factors, rows, s->outputs), failed);
        TRY_GOTO(result, add_layout(c, &p->result, s->result, rows, s->inputs), failed);
        break;
    case CUBLAS_BACKWARD_WEIGHT:
        TRY_GOTO(result, add_layout(c, &p->first, s->factors, rows, s->inputs), failed);
        TRY_GOTO(result, add_layout(c, &p->second, s->factors, rows, s->outputs), failed);
        TRY_GOTO(result, add_layout(c, &p->result, s->result, s->outputs, s->inputs), failed);
        break;
    }
    return STATUS_OK;
failed:
    release_plan(c, p);
    *p = (plan){0};
    return result;
}

// The gradient of a weight is small beside the number of rows that it adds up, too small to fill a card: its
// sums may be split, and the pieces added in their order, without losing bits in between.
static uint32_t reductions_of(const cublas_shape *s) {
    if (s->kind != CUBLAS_BACKWARD_WEIGHT)
        return CUBLASLT_REDUCTION_NONE;
    return CUBLASLT_REDUCTION_COMPUTE_TYPE |
           (s->result == CUBLAS_TYPE_F32 ? (uint32_t)CUBLASLT_REDUCTION_OUTPUT_TYPE : 0);
}

static status choose_algorithm(const cublas *c, const plan *p, cublaslt_algorithm *out) {
    const cublas_shape *s = &p->shape;
    const size_t workspace = WORKSPACE_BYTES;
    const uint32_t reductions = reductions_of(s);
    void *preference = NULL;
    cublaslt_choice choice = {0};
    int found = 0;
    status result;
    CUBLAS_TRY_GOTO(result, preference_create(&preference), done);
    CUBLAS_TRY_GOTO(
        result,
        preference_set_attribute(preference, CUBLASLT_PREFERENCE_WORKSPACE, &workspace, sizeof workspace),
        done);
    CUBLAS_TRY_GOTO(
        result,
        preference_set_attribute(preference, CUBLASLT_PREFERENCE_REDUCTIONS, &reductions, sizeof reductions),
        done);
    // Otherwise it takes 256 for granted.
    const uint32_t alignment = ALIGNMENT;
    for (int which = CUBLASLT_PREFERENCE_ALIGNMENT_A; which <= CUBLASLT_PREFERENCE_ALIGNMENT_D; which++)
        CUBLAS_TRY_GOTO(result, preference_set_attribute(preference, which, &alignment, sizeof alignment),
                        done);
    CUBLAS_TRY_GOTO(result,
                    get_heuristic(c->handle, p->description, p->first, p->second, p->result, p->result,
                                  preference, 1, &choice, &found),
                    done);
    if (found < 1 || choice.outcome != CUBLASLT_SUCCESS)
        result = FAIL("cuBLASLt %s has no algorithm for a product of %lld rows, %lld inputs, %lld outputs: "
                      "install another cuBLAS",
                      c->version, (long long)s->rows, (long long)s->inputs, (long long)s->outputs);
    *out = choice.algorithm;
done:
    if (preference != NULL)
        c->table.preference_destroy(preference);
    return result;
}

// Whether what was chosen for tuned_rows serves the shape's own rows.
static status check_tuned(const cublas *c, const plan *p) {
    const cublas_shape *s = &p->shape;
    cublaslt_choice found = {0};
    const int code = c->table.algo_check(c->handle, p->description, p->first, p->second, p->result, p->result,
                                         &p->algorithm, &found);
    if (code == CUBLASLT_SUCCESS && found.workspace_bytes <= WORKSPACE_BYTES)
        return STATUS_OK;
    return FAIL(
        "cuBLASLt %s: what it chose for %lld rows, %lld inputs, %lld outputs does not serve %lld rows; "
        "set one_order to false",
        c->version, (long long)s->tuned_rows, (long long)s->inputs, (long long)s->outputs,
        (long long)s->rows);
}

static status make_plan(const cublas *c, const cublas_shape *s, plan *p) {
    status result;
    TRY(describe(c, s, s->rows, p));
    if (s->tuned_rows > 0 && s->tuned_rows != s->rows) {
        plan tuned;
        TRY_GOTO(result, describe(c, s, s->tuned_rows, &tuned), failed);
        result = choose_algorithm(c, &tuned, &p->algorithm);
        release_plan(c, &tuned);
        if (result == STATUS_OK)
            result = check_tuned(c, p);
    } else
        result = choose_algorithm(c, p, &p->algorithm);
    if (result == STATUS_OK)
        return STATUS_OK;
failed:
    release_plan(c, p);
    return result;
}

static bool is_same(const cublas_shape *x, const cublas_shape *y) {
    return x->kind == y->kind && x->rows == y->rows && x->outputs == y->outputs && x->inputs == y->inputs &&
           x->factors == y->factors && x->result == y->result && x->accumulate == y->accumulate &&
           x->tuned_rows == y->tuned_rows;
}

static status find_plan(cublas *c, const cublas_shape *s, const plan **out) {
    for (int i = 0; i < c->count; i++)
        if (is_same(&c->plans[i].shape, s)) {
            *out = &c->plans[i];
            return STATUS_OK;
        }
    if (c->count == c->capacity) {
        const int capacity = c->capacity == 0 ? 32 : 2 * c->capacity;
        plan *larger;
        TRY(memory_allocate((void **)&larger, sizeof *larger * (size_t)capacity, "prepared products"));
        if (c->count > 0)
            memcpy(larger, c->plans, sizeof *larger * (size_t)c->count);
        memory_free(c->plans);
        c->plans = larger;
        c->capacity = capacity;
    }
    TRY(make_plan(c, s, &c->plans[c->count]));
    *out = &c->plans[c->count++];
    return STATUS_OK;
}

status cublas_prepare(cublas *c, const cublas_shape *s) {
    const plan *p;
    return find_plan(c, s, &p);
}

int cublas_count(const cublas *c) {
    return c->count;
}

const cublas_shape *cublas_prepared(const cublas *c, int i) {
    return &c->plans[i].shape;
}

status cublas_product(cublas *c, const cublas_shape *s, const void *left, const void *right, void *out) {
    const float alpha = 1.0f, beta = s->accumulate ? 1.0f : 0.0f;
    const plan *p;
    TRY(card_check(c->card));
    TRY(find_plan(c, s, &p));
    // In column-major order the right factor comes first.
    return checked(c,
                   c->table.matmul(c->handle, p->description, &alpha, right, p->first, left, p->second, &beta,
                                   out, p->result, out, p->result, &p->algorithm, c->workspace,
                                   WORKSPACE_BYTES, card_stream(c->card)),
                   "cublasLtMatmul");
}
