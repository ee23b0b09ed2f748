// Inside comm only: the part of NCCL's binary interface that is called, after the API reference of its user
// guide. Enumerations cross the interface as int, streams and communicators as pointers.
#pragma once

#include "comm/nccl.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    NCCL_SUCCESS = 0,
    NCCL_IN_PROGRESS = 7,
    NCCL_SUM = 0,
    NCCL_OLDEST = 21400,         // communicators that do not block
    NCCL_SHARES_DEVICES = 23000, // several ranks on one card, where NCCL_MULTI_RANK_GPU_ENABLE is 1
    NCCL_CONFIG_VERSION = 21400, // of nccl_config below; a newer library takes its defaults for the rest
};

typedef struct nccl_unique_id {
    char bytes[128];
} nccl_unique_id;

// The first release of ncclConfig_t. A library copies no more than `size` bytes of it.
typedef struct nccl_config {
    size_t size;
    unsigned int magic; // 0xcafebeef
    unsigned int version;
    int blocking;
} nccl_config;

// One entry a function, named after it: `all_reduce` is ncclAllReduce. Every int that is returned is an
// ncclResult_t; `comm` is an ncclComm_t, `type` an ncclDataType_t, `operation` an ncclRedOp_t, `stream` a
// cudaStream_t, counts are in elements.
typedef struct nccl_table {
    int (*get_version)(int *version);
    const char *(*get_error_string)(int result);
    const char *(*get_last_error)(void *comm);
    int (*get_unique_id)(nccl_unique_id *id);
    int (*comm_init_rank_config)(void **comm, int ranks, nccl_unique_id id, int rank, nccl_config *config);
    int (*comm_get_async_error)(void *comm, int *error);
    int (*comm_finalize)(void *comm);
    int (*comm_destroy)(void *comm);
    int (*comm_abort)(void *comm);
    int (*all_reduce)(const void *send, void *receive, size_t count, int type, int operation, void *comm,
                      void *stream);
    int (*reduce)(const void *send, void *receive, size_t count, int type, int operation, int root,
                  void *comm, void *stream);
    int (*broadcast)(const void *send, void *receive, size_t count, int type, int root, void *comm,
                     void *stream);
    int (*group_start)(void);
    int (*group_end)(void);
} nccl_table;

struct nccl_library {
    void *handle;
    nccl_table table;
    int version;
    char version_text[24];
    char path[512];
};
