// The table of the CPU's functions.
#include "kernels/cpu/device_cpu.h"

const backend cpu_backend = {
#define OPERATOR(name, parameters, arguments) .name = cpu_##name,
#define QUESTION(type, name, parameters, arguments) .name = cpu_##name,
#define PRODUCT(type, name, parameters, arguments) .name = cpu_##name,
#include "kernels/operator_list.h"
    .device_destroy = cpu_device_destroy,
    .device_free = cpu_device_free,
    .weight_create = cpu_weight_create,
    .weight_destroy = cpu_weight_destroy,
};
