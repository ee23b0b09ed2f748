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

int kernels_library_versions(library_version *list, int capacity) {
    const dnnl_version_t *onednn = dnnl_version();
    return library_version_append(list, 0, capacity, "oneDNN", "%d.%d.%d", onednn->major, onednn->minor,
                                  onednn->patch);
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
    dnnl_cpu_isa_t used = dnnl_get_effective_cpu_isa();
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if ((used & known[i].isa) == known[i].isa)
            return known[i].name;
    }
    return "less than AVX2";
}
