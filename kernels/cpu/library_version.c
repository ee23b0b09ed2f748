#include "kernels/library_version.h"

#include <dnnl.h>
#include <stdarg.h>
#include <stdio.h>

int library_version_append(library_version *list, int count, int capacity, const char *name,
                           const char *format, ...) {
    if (count >= capacity)
        return count;
    snprintf(list[count].name, sizeof list[count].name, "%s", name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(list[count].version, sizeof list[count].version, format, arguments);
    va_end(arguments);
    return count + 1;
}

// Of the GPU that this process computes on, empty without one.
static struct {
    char instruction_set[16];
    library_version versions[4];
    int count;
} gpu;

void kernels_note_gpu(const char *name, const char *instruction_set, const char *cuda, const char *driver,
                      const char *cublas) {
    const struct {
        const char *name, *version;
    } entries[] = {{"GPU", name}, {"CUDA", cuda}, {"NVIDIA driver", driver}, {"cuBLASLt", cublas}};
    snprintf(gpu.instruction_set, sizeof gpu.instruction_set, "%s", instruction_set);
    gpu.count = 0;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        gpu.count =
            library_version_append(gpu.versions, gpu.count, 4, entries[i].name, "%s", entries[i].version);
}

int kernels_library_versions(library_version *list, int capacity) {
    const dnnl_version_t *onednn = dnnl_version();
    int count = library_version_append(list, 0, capacity, "oneDNN", "%d.%d.%d", onednn->major, onednn->minor,
                                       onednn->patch);
    for (int i = 0; i < gpu.count && count < capacity; i++)
        list[count++] = gpu.versions[i];
    return count;
}

const char *kernels_product_isa(void) {
    // Each value holds the bits of every lesser one.
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } known[] = {
        {dnnl_cpu_isa_avx512_core_amx, "AVX-512 with bf16 and AMX"},
        {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 with bf16"},
        {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 with VNNI"},
        {dnnl_cpu_isa_avx512_core, "AVX-512"},
        {dnnl_cpu_isa_avx2, "AVX2"},
    };
    if (gpu.count > 0)
        return gpu.instruction_set;
    dnnl_cpu_isa_t used = dnnl_get_effective_cpu_isa();
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if ((used & known[i].isa) == known[i].isa)
            return known[i].name;
    }
    return "less than AVX2";
}
