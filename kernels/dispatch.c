// The public functions of the device: each looks its backend's up.
#include "kernels/backend.h"

#define OPERATOR(name, parameters, arguments)                                                                \
    void name parameters {                                                                                   \
        backend_of(d)->name arguments;                                                                       \
    }
#define QUESTION(type, name, parameters, arguments)                                                          \
    type name parameters {                                                                                   \
        return backend_of(d)->name arguments;                                                                \
    }
#define PRODUCT(type, name, parameters, arguments)                                                           \
    type name parameters {                                                                                   \
        return backend_of(device_of(w))->name arguments;                                                     \
    }
#include "kernels/operator_list.h"

void device_destroy(device *d) {
    if (d != NULL)
        backend_of(d)->device_destroy(d);
}

void device_free(device *d, void *pointer) {
    if (pointer != NULL)
        backend_of(d)->device_free(d, pointer);
}

status weight_create(weight **out, device *d, int64_t outputs, int64_t inputs, weight_use use,
                     weight_precision precision) {
    return backend_of(d)->weight_create(out, d, outputs, inputs, use, precision);
}

void weight_destroy(weight *w) {
    if (w != NULL)
        backend_of(device_of(w))->weight_destroy(w);
}
