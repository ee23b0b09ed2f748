// What the tests of the kernels share.
#pragma once

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

// The header lacks this.
extern "C" {
#include <cmocka.h>
}

extern "C" {
#include "kernels/memory.h"
#include "kernels/operators.h"
}
