// The functions of cuBLASLt that are used, by their published signatures; outcomes are cublasStatus_t, 0 is
// success. Handles and descriptors are opaque pointers.
#pragma once

#include <stddef.h>
#include <stdint.h>

// cublasLtMatmulAlgo_t and cublasLtMatmulHeuristicResult_t.
typedef struct cublaslt_algorithm {
    uint64_t data[8];
} cublaslt_algorithm;
typedef struct cublaslt_choice {
    cublaslt_algorithm algorithm;
    size_t workspace_bytes;
    int outcome;
    float waves;
    int reserved[4];
} cublaslt_choice;

typedef struct cublaslt_table {
    size_t (*get_version)(void);
    const char *(*get_status_string)(int code);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*matmul_desc_create)(void **description, int compute_type, int scale_type);
    int (*matmul_desc_destroy)(void *description);
    int (*matmul_desc_set_attribute)(void *description, int attribute, const void *value, size_t bytes);
    int (*matrix_layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading);
    int (*matrix_layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_destroy)(void *preference);
    int (*preference_set_attribute)(void *preference, int attribute, const void *value, size_t bytes);
    int (*get_heuristic)(void *handle, void *description, void *a, void *b, void *c, void *d,
                         void *preference, int wanted, cublaslt_choice *choices, int *found);
    int (*algo_check)(void *handle, void *description, void *a, void *b, void *c, void *d,
                      const cublaslt_algorithm *algorithm, cublaslt_choice *result);
    int (*matmul)(void *handle, void *description, const void *alpha, const void *a, void *a_layout,
                  const void *b, void *b_layout, const void *beta, const void *c, void *c_layout, void *d,
                  void *d_layout, const cublaslt_algorithm *algorithm, void *workspace,
                  size_t workspace_bytes, void *stream);
} cublaslt_table;

enum {
    CUBLASLT_SUCCESS = 0,
    CUBLASLT_COMPUTE_F32 = 68,
    CUBLASLT_COMPUTE_TF32 = 77,
    CUBLASLT_TYPE_F32 = 0,
    CUBLASLT_TRANSPOSE_NOT = 0,
    CUBLASLT_TRANSPOSE = 1,
    CUBLASLT_DESC_TRANSPOSE_A = 3,
    CUBLASLT_DESC_TRANSPOSE_B = 4,
    CUBLASLT_PREFERENCE_WORKSPACE = 1,
    CUBLASLT_PREFERENCE_REDUCTIONS = 3,
    CUBLASLT_PREFERENCE_ALIGNMENT_A = 5, // of B, C and D: 6, 7, 8
    CUBLASLT_PREFERENCE_ALIGNMENT_D = 8,
    CUBLASLT_REDUCTION_NONE = 0,         // no sum in pieces
    CUBLASLT_REDUCTION_COMPUTE_TYPE = 2, // pieces in the workspace, as f32 or
    CUBLASLT_REDUCTION_OUTPUT_TYPE = 4,  // as the result, added up in a step of its own
};
