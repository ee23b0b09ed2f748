// Names and versions of the libraries that a room calls, as they are at run time. Ranks compare them at
// start, and manifests record them, because another version may give other bits.
#pragma once

typedef struct library_version {
    char name[24];
    char version[72];
} library_version;

// Each writes up to `capacity` entries to `list` [capacity] and returns how many it wrote.
int kernels_library_versions(library_version *list, int capacity);
int data_library_versions(library_version *list, int capacity);
int comm_library_versions(library_version *list, int capacity);

// Appends one entry if there is room for it; returns the new count.
int library_version_append(library_version *list, int count, int capacity, const char *name,
                           const char *format, ...) __attribute__((format(printf, 5, 6)));

// The best instruction set that oneDNN's matrix products use on this processor: "AVX2", "AVX-512 with bf16",
// ... Once this process computes on a GPU, that of the GPU: "sm_90".
const char *kernels_product_isa(void);

// Tells of the GPU that this process computes on, and of its libraries, as kernels_library_versions then
// lists them.
void kernels_note_gpu(const char *name, const char *instruction_set, const char *cuda, const char *driver,
                      const char *cublas);
